//! How clients find a domain controller: its names in DNS, and the reverse zones of its domain.
//!
//! A service of the component, from the firmware's own program: after each start, when a domain controller has come or gone, and
//! every hour. Samba would do the same, but ends its command after 20 s, and on a slow machine DNS then has only the first
//! of the box's addresses.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kontor_config::Site;
use kontor_config::site::{Samba, SambaRole};
use kontor_samba::ldif::Entry;
use kontor_samba::{
    CONTROLLERS_FILTER, name_server_arguments, read_only_records, reverse_zones, sites_base, update_words,
    without_addresses, zone_arguments,
};
use serde::{Deserialize, Serialize};

use super::recurring::{AGAIN, Findings, repeat};
use super::{SMB_CONF, tool};
use crate::component::office;

/// The subcommand that is this process.
pub(in crate::component) const ARGUMENT: &str = "locator";
/// Below /run/kontor: [`Wanted`].
pub(super) const FILE: &str = "locator.json";
/// Below /run/kontor: the names that DNS is to have.
const LIST: &str = "dns_update_list";
/// What Samba brings along; the domain's own copy of it may be of an older version.
const SAMBAS_LIST: &str = "/usr/share/samba/setup/dns_update_list";
/// An administrator may have removed a name; and a look costs a second of the processor.
const EVERY: Duration = Duration::from_secs(3600);
/// While headquarters does not answer: nothing has changed here, and joining has entered the most important names.
const AGAIN_AT_A_BRANCH: Duration = Duration::from_secs(600);
/// Some thirty names and a program in Python, on a slow machine that starts everything else, too.
const LIMIT: Duration = Duration::from_secs(600);

/// What there is to be.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    realm: String,
    /// The domain controller's own name.
    host: String,
    /// Where the directory has its sites, and its DNS zones.
    sites: String,
    zones_base: String,
    is_read_only: bool,
    /// Reverse zones; none when the domain has its home elsewhere.
    zones: Vec<String>,
}

impl Wanted {
    pub(super) fn of(site: &Site, samba: &Samba) -> Self {
        let domain: Vec<String> = samba.realm.split('.').map(|label| format!("DC={label}")).collect();
        let is_home = samba.role == SambaRole::Dc;
        Self {
            realm: samba.realm.clone(),
            host: format!("{}.{}", site.office.host_name, samba.realm),
            sites: sites_base(samba),
            zones_base: format!("CN=MicrosoftDNS,DC=DomainDnsZones,{}", domain.join(",")),
            is_read_only: samba.role == SambaRole::Rodc,
            zones: if is_home { reverse_zones(site, samba) } else { Vec::new() },
        }
    }
}

/// The process, until it is told to end.
pub(in crate::component) fn run() -> anyhow::Result<()> {
    let path = Path::new(office::DIRECTORY).join(FILE);
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let wanted: Wanted = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let locator = Locator { wanted, made: RefCell::default(), done: RefCell::default() };
    repeat(|| Some(locator.look()))
}

struct Locator {
    wanted: Wanted,
    /// What was made since the start, for the log.
    made: RefCell<BTreeSet<String>>,
    /// For which domain controllers DNS has all names, and since when.
    done: RefCell<Option<(String, Instant)>>,
}

impl Locator {
    fn look(&self) -> Findings {
        let result = self.have_zones().and_then(|()| self.have_names());
        let mut lines = self.made.borrow().clone();
        let again = if self.wanted.is_read_only { AGAIN_AT_A_BRANCH } else { AGAIN };
        match result {
            // Who comes or goes is seen with the next cheap look; a read-only one knows only of itself.
            Ok(()) if self.wanted.is_read_only => Findings { lines, status: String::new(), pause: EVERY },
            Ok(()) => Findings { lines, status: String::new(), pause: AGAIN },
            Err(error) => {
                let status = format!("names in DNS are not refreshed: {error:#}");
                lines.insert(status.clone());
                Findings { lines, status, pause: again }
            }
        }
    }

    fn have_zones(&self) -> anyhow::Result<()> {
        if self.wanted.zones.is_empty() {
            return Ok(());
        }
        let found = super::sites::search(&self.wanted.zones_base, "(objectClass=dnsZone)", &["name"])?;
        for zone in missing(&self.wanted.zones, &found) {
            let (realm, host) = (&self.wanted.realm, &self.wanted.host);
            let server = name_server_arguments(zone, realm, host, &smb_conf());
            for words in [zone_arguments(zone, &smb_conf()), server] {
                let outcome = tool::run(&words, LIMIT)?;
                ensure!(outcome.success, "zone {zone}: {}", tool::last_line(&outcome.said));
            }
            self.made.borrow_mut().insert(format!("reverse zone {zone} made"));
        }
        Ok(())
    }

    fn have_names(&self) -> anyhow::Result<()> {
        let list = self.list()?;
        let is_done = |(done, at): &(String, Instant)| *done == list && at.elapsed() < EVERY;
        if self.done.borrow().as_ref().is_some_and(is_done) {
            return Ok(());
        }
        let path = Path::new(office::DIRECTORY).join(LIST);
        fs::write(&path, &list).with_context(|| path.display().to_string())?;
        let words = update_words(&path.display().to_string(), &smb_conf(), self.wanted.is_read_only);
        let outcome = tool::run(&words, LIMIT)?;
        ensure!(outcome.success, "{}", tool::last_line(&outcome.said));
        self.made.borrow_mut().insert("DNS has the names of this domain controller".to_owned());
        *self.done.borrow_mut() = Some((list, Instant::now()));
        Ok(())
    }

    /// All names, with what Samba's own program puts in for this domain controller.
    fn list(&self) -> anyhow::Result<String> {
        let list = fs::read_to_string(SAMBAS_LIST).context(SAMBAS_LIST)?;
        if self.wanted.is_read_only {
            return Ok(without_addresses(&list));
        }
        let attributes = ["objectClass", "objectGUID", "options", "msDS-isRODC", "dNSHostName"];
        let found = super::sites::search(&self.wanted.sites, CONTROLLERS_FILTER, &attributes)?;
        let names = found.iter().flat_map(|entry| entry.values("dn")).collect::<BTreeSet<_>>();
        // A site without a domain controller is answered for by the nearest one: who there is matters, wherever it is.
        let comments = names.iter().map(|name| format!("# {name}\n")).collect::<String>();
        Ok(format!("{list}\n{comments}{}", read_only_records(&self.wanted.realm, &found)))
    }
}

fn missing<'a>(wanted: &'a [String], found: &'a [Entry]) -> impl Iterator<Item = &'a String> {
    let is_there = |zone: &str| {
        found.iter().flat_map(|entry| entry.values("name")).any(|name| name.eq_ignore_ascii_case(zone))
    };
    wanted.iter().filter(move |zone| !is_there(zone))
}

fn smb_conf() -> String {
    format!("{}/{SMB_CONF}", office::DIRECTORY)
}

#[cfg(test)]
mod tests {
    use kontor_samba::ldif::entries;

    use super::*;

    #[test]
    fn a_zone_that_is_there_is_not_made() {
        let wanted = ["77.168.192.in-addr.arpa", "10.in-addr.arpa"].map(str::to_owned);
        let found = entries("dn: DC=10.IN-ADDR.ARPA,CN=MicrosoftDNS\nname: 10.IN-ADDR.ARPA\n");
        assert_eq!(missing(&wanted, &found).collect::<Vec<_>>(), [&wanted[0]]);
        assert_eq!(missing(&wanted, &[]).count(), 2);
    }
}
