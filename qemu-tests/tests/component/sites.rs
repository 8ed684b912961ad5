//! How clients find the domain controller that is near, and names of addresses.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::company::Company;
use super::headquarters::{Headquarters, PASSWORD, dig};

/// Headquarters looks who has come every minute; on two slow, busy processors.
const LIMIT: Duration = Duration::from_secs(300);
const NAMES: &str = "DNS has the names of this domain controller";
const HEADQUARTERS: &str = "hq.ad.office.internal.";
const BRANCH: &str = "nord.ad.office.internal.";
/// Where clients of a site ask for their domain controllers.
const NEAR: [&str; 6] = [
    "_ldap._tcp.North._sites.ad.office.internal",
    "_ldap._tcp.North._sites.dc._msdcs.ad.office.internal",
    "_kerberos._tcp.North._sites.ad.office.internal",
    "_kerberos._tcp.North._sites.dc._msdcs.ad.office.internal",
    "_gc._tcp.North._sites.ad.office.internal",
    "_ldap._tcp.North._sites.gc._msdcs.ad.office.internal",
];

/// A branch without a domain controller and then with one of its own, its computers' names, and a site file that changes.
pub(crate) fn lead_to_the_near_one(directory: &Path, program: &Path) -> Result<()> {
    let mut company = Company::found(directory, program, "rodc")?;
    company.there(|company| has_all_names(&company.headquarters))?;
    is_in_site(&company.branch, "10.99.0.1", "Main", "North")?;
    for name in NEAR {
        is_served_by(name, HEADQUARTERS)?;
    }
    company.join()?;
    company.branch.wait_for_words(NAMES)?;
    is_in_site(&company.branch, "192.168.78.1", "North", "North")?;
    the_near_one_is_found(&mut company)?;
    addresses_have_names(&mut company)?;
    company.branch.stop()?;
    company.there(|company| follows_its_site_file(&mut company.headquarters))
}

/// All internal addresses, and whatever Samba's own program would enter.
fn has_all_names(headquarters: &Headquarters) -> Result<()> {
    headquarters.wait_for_words(NAMES)?;
    // Of Samba itself: dnsd may have asked a moment before, and asks again after a second.
    let addresses = dig(&["-p", "5300", "@127.0.0.1", HEADQUARTERS])?;
    let mut addresses: Vec<&str> = addresses.lines().collect();
    addresses.sort_unstable();
    ensure!(addresses == ["10.99.0.1", "192.168.77.1"], "{addresses:?}");
    let list = "/run/kontor/dns_update_list";
    let update =
        ["/usr/sbin/samba_dnsupdate", "--verbose", "--update-list", list, "-s", "/run/kontor/smb.conf"];
    let said = headquarters.exec(&update)?;
    ensure!(said.contains("No DNS updates needed"), "{said}");
    is_in_site(headquarters, "192.168.77.1", "Main", "Main")
}

/// What a client learns that asks a domain controller where it is ([MS-ADTS], section 6.3.3).
fn is_in_site(office: &Headquarters, asked: &str, server: &str, client: &str) -> Result<()> {
    let said = office.client(&["net", "ads", "lookup", "-S", asked])?;
    for (key, site) in [("Server Site Name", server), ("Client Site Name", client)] {
        let mut values = said.lines().filter_map(|line| line.trim().strip_prefix(key)?.split_once(':'));
        ensure!(values.any(|(_, value)| value.trim() == site), "no {key} {site}: {said}");
    }
    Ok(())
}

/// By nobody else.
fn is_served_by(name: &str, server: &str) -> Result<()> {
    let found = dig(&["@127.0.0.1", name, "SRV"])?;
    let servers: Vec<&str> = found.lines().filter_map(|line| line.split(' ').nth(3)).collect();
    ensure!(servers == [server], "{name} is {servers:?}");
    Ok(())
}

/// In its site, and there alone: everywhere else it would be asked to write.
fn the_near_one_is_found(company: &mut Company) -> Result<()> {
    let began = Instant::now();
    company.there(|company| {
        while let Err(error) = NEAR.iter().try_for_each(|name| is_served_by(name, BRANCH)) {
            ensure!(began.elapsed() < LIMIT, "{error}: {}", company.headquarters.log());
            // The pause between two looks.
            company.headquarters.exec(&["samba-tool", "user", "list"])?;
        }
        println!("samba: the near domain controller in DNS after {:.1} s", began.elapsed().as_secs_f32());
        has_all_names(&company.headquarters)?;
        is_served_by("_ldap._tcp.Main._sites.ad.office.internal", HEADQUARTERS)
    })?;
    for name in ["_ldap._tcp.dc._msdcs.ad.office.internal", "_ldap._tcp.ad.office.internal"] {
        is_served_by(name, HEADQUARTERS)?;
    }
    let dc = company.branch.exec(&["wbinfo", "--dsgetdcname=ad.office.internal"])?;
    ensure!(dc.lines().filter(|line| line.trim() == "North").count() >= 1, "{dc}");
    Ok(())
}

/// The boxes' own, and what a computer of the domain enters; what nobody knows is asked of nobody outside.
fn addresses_have_names(company: &mut Company) -> Result<()> {
    company.there(|company| {
        company.headquarters.ticket("anna", PASSWORD)?;
        let update = "server 192.168.77.1\nzone 77.168.192.in-addr.arpa\n\
                      update add 50.77.168.192.in-addr.arpa 900 PTR pc1.ad.office.internal\nsend\n";
        company.headquarters.update_names(update)?;
        all_have_names()?;
        points_to("192.168.78.1", "")
    })?;
    all_have_names()?;
    points_to("192.168.78.1", BRANCH)?;
    let zone = dig(&["@127.0.0.1", "78.168.192.in-addr.arpa", "NS"])?;
    ensure!(zone.trim() == HEADQUARTERS, "the branch's reverse zone is {zone:?}");
    Ok(())
}

fn all_have_names() -> Result<()> {
    points_to("192.168.77.1", HEADQUARTERS)?;
    points_to("192.168.77.50", "pc1.ad.office.internal.")?;
    points_to("192.168.77.51", "")
}

fn points_to(address: &str, name: &str) -> Result<()> {
    let found = dig(&["@127.0.0.1", "-x", address])?;
    ensure!(found.trim() == name, "{address} is {found:?}");
    Ok(())
}

/// What it does not declare any more goes, what somebody has made by hand stays, and its own site is another.
fn follows_its_site_file(headquarters: &mut Headquarters) -> Result<()> {
    headquarters.exec(&["samba-tool", "sites", "subnet", "create", "10.30.0.0/16", "North"])?;
    headquarters.stop()?;
    headquarters.edit_site(", \"10.99.0.2/32\"", "")?;
    headquarters.edit_site("site = \"Main\"", "site = \"Centre\"")?;
    headquarters.start()?;
    let subnets = headquarters.exec(&["samba-tool", "sites", "subnet", "list", "North"])?;
    let mut subnets: Vec<&str> = subnets.lines().map(str::trim).collect();
    subnets.sort_unstable();
    ensure!(subnets == ["10.30.0.0/16", "192.168.78.0/24"], "{subnets:?}");
    is_in_site(headquarters, "192.168.77.1", "Centre", "Centre")?;
    headquarters.exec(&["samba-tool", "dbcheck", "--cross-ncs"])?;
    headquarters.stop()?;
    let before = headquarters.log().len();
    headquarters.start()?;
    ensure!(!headquarters.log()[before..].contains(" is in the site"), "{}", headquarters.log());
    headquarters.stop().map(drop)
}
