//! Sites and subnets of the directory ([MS-ADTS], sections 6.1.1.2.2.1 and 6.3.2): by the subnet that a client's address is in it
//! learns its site, and by the site's records in DNS the domain controller that is near.
//!
//! The site file says which there are, and wins where an administrator says otherwise. What is made of it carries [`MARK`]:
//! nothing without it is ever removed, and no site, because domain controllers may be in it.

use ipnet::Ipv4Net;
use kontor_config::site::Zone;

use crate::ldif::Entry;
use crate::{Samba, Site, netbios_name};

/// The description of what the site file has made. Who takes it away takes the object over.
const MARK: &str = "From the site file of Kontor";
/// What [`changes`] needs to know of the directory, as a search filter below [`sites_base`].
pub const SITES_FILTER: &str =
    "(|(objectClass=site)(objectClass=subnet)(objectClass=siteLink)(objectClass=server))";

/// Which sites there are to be, and whose server this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sites {
    /// Name of the domain controller.
    server: String,
    /// The one that it is in comes first.
    sites: Vec<String>,
    /// Network and site.
    subnets: Vec<(String, String)>,
    base: String,
}

/// Where the directory has its sites.
#[must_use]
pub fn sites_base(samba: &Samba) -> String {
    let domain: Vec<String> = samba.realm.split('.').map(|label| format!("DC={label}")).collect();
    format!("CN=Sites,CN=Configuration,{}", domain.join(","))
}

impl Sites {
    /// What the site file of a domain's first domain controller says. An internal network that a branch claims, like that of
    /// the line to it, is the branch's.
    #[must_use]
    pub fn of(site: &Site, samba: &Samba) -> Self {
        let own = samba.first_site();
        let branches = samba.branches.iter();
        let branches = branches.flat_map(|branch| branch.networks.iter().map(|net| (*net, &*branch.site)));
        let mut networks: Vec<(Ipv4Net, &str)> = branches.collect();
        let internal = site.networks_in(Zone::Internal).filter_map(|network| network.static_address());
        for network in internal.map(|address| address.trunc()) {
            if !networks.iter().any(|(claimed, _)| *claimed == network) {
                networks.push((network, own));
            }
        }
        let sites = std::iter::once(own).chain(samba.branches.iter().map(|branch| branch.site.as_str()));
        Self {
            server: netbios_name(site),
            sites: sites.map(str::to_owned).collect(),
            subnets: disjoint(&networks),
            base: sites_base(samba),
        }
    }
}

/// Networks and sites so that none lies in one of another site. Windows takes the smallest that an address is in, and Samba any
/// (`samdb_client_site_name`): what is a smaller one's is cut out of the larger.
fn disjoint(networks: &[(Ipv4Net, &str)]) -> Vec<(String, String)> {
    let parts = |(network, site): &(Ipv4Net, &str)| {
        let lies_in = |other: &Ipv4Net| *other != *network && network.contains(other);
        let others = networks.iter().filter(|(other, of)| of != site && lies_in(other));
        without(*network, &others.map(|(other, _)| *other).collect::<Vec<_>>())
            .into_iter()
            .map(|part| (part.to_string(), (*site).to_owned()))
            .collect::<Vec<_>>()
    };
    let mut list: Vec<_> = networks.iter().flat_map(parts).collect();
    // A network in one of its own site may be a part of that as well.
    list.sort();
    list.dedup();
    list
}

/// The fewest networks that make up `network` without the holes.
fn without(network: Ipv4Net, holes: &[Ipv4Net]) -> Vec<Ipv4Net> {
    if holes.iter().any(|hole| hole.contains(&network)) {
        return Vec::new();
    }
    if !holes.iter().any(|hole| network.contains(hole)) {
        return vec![network];
    }
    let halves = network.subnets(network.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| without(half, holes)).collect()
}

/// What `ldbmodify` is to change in a directory that has `found`, and what that is in words. Nothing when all is as it is to be.
#[must_use]
pub fn changes(wanted: &Sites, found: &[Entry]) -> Changes {
    let directory = Directory { found, base: &wanted.base };
    let mut changes = Changes::default();
    wanted.sites.iter().for_each(|site| directory.have_site(site, &mut changes));
    if let Some(own) = wanted.sites.first() {
        directory.have_server(&wanted.server, own, &mut changes);
    }
    wanted.subnets.iter().for_each(|(network, site)| directory.have_subnet(network, site, &mut changes));
    directory.leave_subnets(wanted, &mut changes);
    changes
}

/// Changes of the directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// For `ldbmodify`.
    pub ldif: String,
    /// For people.
    pub lines: Vec<String>,
}

impl Changes {
    fn record(&mut self, dn: &str, kind: &str, attributes: &[(&str, &str)]) {
        self.ldif.push_str(&format!("dn: {dn}\nchangetype: {kind}\n"));
        attributes.iter().for_each(|(name, value)| self.ldif.push_str(&format!("{name}: {value}\n")));
        self.ldif.push_str(if kind == "modify" { "-\n\n" } else { "\n" });
    }
}

struct Directory<'a> {
    found: &'a [Entry],
    base: &'a str,
}

impl<'a> Directory<'a> {
    fn all(&self, class: &'static str) -> impl Iterator<Item = &'a Entry> {
        let is = move |entry: &&Entry| entry.values("objectClass").any(|value| value == class);
        self.found.iter().filter(is)
    }

    fn dn_of_site(&self, site: &str) -> String {
        format!("CN={site},{}", self.base)
    }

    fn have_site(&self, site: &str, changes: &mut Changes) {
        let dn = self.dn_of_site(site);
        if !self.all("site").any(|entry| is_at(entry, &dn)) {
            changes.record(&dn, "add", &[("objectClass", "site"), ("description", MARK)]);
            let settings = format!("CN=NTDS Site Settings,{dn}");
            changes.record(&settings, "add", &[("objectClass", "nTDSSiteSettings")]);
            changes.record(&format!("CN=Servers,{dn}"), "add", &[("objectClass", "serversContainer")]);
            changes.lines.push(format!("site {site} made"));
        }
        self.have_link(&dn, changes);
    }

    /// What is in no link is far from everywhere: nothing is replicated there, and nobody answers for a site that has no
    /// domain controller yet.
    fn have_link(&self, dn: &str, changes: &mut Changes) {
        let mut links = self.all("siteLink").peekable();
        let first = links.peek().and_then(|link| link.values("dn").next());
        let is_linked = links.flat_map(|link| link.values("siteList")).any(|site| same(site, dn));
        if let Some(link) = first.filter(|_| !is_linked) {
            changes.record(link, "modify", &[("add", "siteList"), ("siteList", dn)]);
        }
    }

    fn have_server(&self, server: &str, site: &str, changes: &mut Changes) {
        let container = format!("CN=Servers,{}", self.dn_of_site(site));
        let rdn = format!("CN={server}");
        let is_it = |dn: &&str| {
            dn.split_once(',').is_some_and(|(first, rest)| same(first, &rdn) && !same(rest, &container))
        };
        let elsewhere = self.all("server").filter_map(|entry| entry.values("dn").next()).find(is_it);
        if let Some(dn) = elsewhere {
            let to = [("newrdn", &*rdn), ("deleteoldrdn", "1"), ("newsuperior", &container)];
            changes.record(dn, "modrdn", &to);
            changes.lines.push(format!("this domain controller is in the site {site} now"));
        }
    }

    fn have_subnet(&self, network: &str, site: &str, changes: &mut Changes) {
        let (dn, site_dn) = (format!("CN={network},CN=Subnets,{}", self.base), self.dn_of_site(site));
        let present = self.all("subnet").find(|entry| is_at(entry, &dn));
        match present {
            Some(entry) if entry.values("siteObject").any(|value| same(value, &site_dn)) => return,
            Some(_) => {
                changes.record(&dn, "modify", &[("replace", "siteObject"), ("siteObject", &site_dn)]);
            }
            None => {
                let attributes = [("objectClass", "subnet"), ("siteObject", &site_dn), ("description", MARK)];
                changes.record(&dn, "add", &attributes);
            }
        }
        changes.lines.push(format!("network {network} is in the site {site} now"));
    }

    fn leave_subnets(&self, wanted: &Sites, changes: &mut Changes) {
        for entry in self.all("subnet").filter(|entry| entry.values("description").any(|text| text == MARK)) {
            let Some(dn) = entry.values("dn").next() else { continue };
            let is_it = |network: &str| same(dn, &format!("CN={network},CN=Subnets,{}", self.base));
            if !wanted.subnets.iter().any(|(network, _)| is_it(network)) {
                changes.record(dn, "delete", &[]);
                changes.lines.push(format!("{dn} removed: the site file does not have it any more"));
            }
        }
    }
}

fn is_at(entry: &Entry, dn: &str) -> bool {
    entry.values("dn").any(|value| same(value, dn))
}

/// Names of the directory, without regard to case; none of those that are compared needs an escape.
fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}
