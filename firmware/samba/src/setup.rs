//! The commands that make the box part of a domain, once.
//!
//! Whole command lines, program first, without user and password: the caller adds those in a way that does
//! not show in the list of processes.

use std::net::Ipv4Addr;

use crate::{Samba, SambaRole, Site, interfaces, internal_addresses, netbios_name, realm};

pub(crate) const SAMBA_TOOL: &str = "/usr/bin/samba-tool";
const NET: &str = "/usr/bin/net";

/// `samba-tool domain provision`: makes the domain of a [`SambaRole::Dc`]; nothing for the other roles.
///
/// Without `--adminpass` the tool draws a password and prints it; the caller sets another one
/// afterwards. The tool writes an `smb.conf` of its own, with whatever resolver it finds as forwarder: the
/// caller replaces it by [`crate::smb_conf`].
#[must_use]
pub fn provision_arguments(site: &Site, samba: &Samba) -> Option<Vec<String>> {
    if samba.role != SambaRole::Dc {
        return None;
    }
    let mut arguments = words(&[SAMBA_TOOL, "domain", "provision", "--use-rfc2307"]);
    arguments.extend([
        format!("--realm={}", realm(samba)),
        format!("--domain={}", samba.domain),
        "--server-role=dc".to_owned(),
        "--dns-backend=SAMBA_INTERNAL".to_owned(),
        format!("--site={}", samba.first_site()),
        format!("--host-name={}", site.office.host_name),
    ]);
    arguments.extend(internal_addresses(site).next().map(|address| format!("--host-ip={}", address.addr())));
    arguments.extend(network_options(site));
    Some(arguments)
}

/// The join of an existing domain: `samba-tool domain join` for [`SambaRole::Rodc`], `net ads join` for
/// [`SambaRole::Member`]; nothing for [`SambaRole::Dc`].
///
/// The domain controllers are found by DNS, because Kerberos needs their names: the box must forward the
/// realm to [`Samba::servers`] by then. Both read [`crate::smb_conf`] from `smb_conf`, the name of the box and its
/// addresses with the rest, and leave it as it is. The directory's site is what headquarters has for the address that the
/// box comes from, unless `near` is given: a domain controller's name and [`Samba::site`].
#[must_use]
pub fn join_arguments(samba: &Samba, smb_conf: &str, near: Option<(&str, &str)>) -> Option<Vec<String>> {
    let (head, tail) = match samba.role {
        SambaRole::Dc => return None,
        SambaRole::Rodc => {
            let mut tail = words(&[&samba.realm, "RODC", "--dns-backend=SAMBA_INTERNAL"]);
            // A site alone would lose against what headquarters has for the address, which may be that of the line.
            let both = |(server, site)| [format!("--server={server}"), format!("--site={site}")];
            tail.extend(near.into_iter().flat_map(both));
            (&[SAMBA_TOOL, "domain", "join"], tail)
        }
        // The domain's DNS service need not accept updates from members, and the office's own knows the box.
        SambaRole::Member => (&[NET, "ads", "join"], words(&["--no-dns-updates"])),
    };
    Some([words(head), tail, vec!["-s".to_owned(), smb_conf.to_owned()]].concat())
}

/// Asks the domain for a computer of the box's name, which tells as well whether user and password are right.
/// The answer has [`NO_COMPUTER`] when there is none. What the tool writes goes to `scratch`: nothing of it is to stay.
#[must_use]
pub fn name_arguments(site: &Site, smb_conf: &str, scratch: &str) -> Vec<String> {
    // A host name has letters, digits and hyphens: nothing that a filter would take for something else.
    let filter = format!("(sAMAccountName={}$)", netbios_name(site));
    let search = words(&[NET, "ads", "search", &filter, "distinguishedName", "-s", smb_conf]);
    [search, elsewhere(scratch)].concat()
}

/// Asks headquarters what time it is there; [`clock_offset_s`] reads the answer. As [`name_arguments`], but nobody needs an
/// account for it.
#[must_use]
pub fn time_arguments(smb_conf: &str, scratch: &str) -> Vec<String> {
    [words(&[NET, "ads", "info", "-s", smb_conf]), elsewhere(scratch)].concat()
}

/// By how many seconds headquarters' clock is ahead of this one's, from what `net ads info` says.
#[must_use]
pub fn clock_offset_s(said: &str) -> Option<i64> {
    said.lines().find_map(|line| line.strip_prefix("Server time offset:")?.trim().parse().ok())
}

fn elsewhere(scratch: &str) -> Vec<String> {
    let directories = ["private dir", "state directory", "cache directory", "lock directory"];
    directories.map(|name| format!("--option={name}={scratch}")).to_vec()
}

/// Asks a domain controller at this address who it is; nobody has to log on for that.
#[must_use]
pub fn info_arguments(server: Ipv4Addr, smb_conf: &str) -> Vec<String> {
    words(&[SAMBA_TOOL, "domain", "info", &server.to_string(), "-s", smb_conf])
}

/// The DNS name in the answer.
#[must_use]
pub fn name_in_info(said: &str) -> Option<&str> {
    let value = said.lines().find_map(|line| line.strip_prefix("DC name")?.trim_start().strip_prefix(':'));
    value.map(str::trim).filter(|name| !name.is_empty() && !name.contains(char::is_whitespace))
}

/// Makes a zone in the domain's DNS, by the service of the domain controller itself and with its own account.
#[must_use]
pub fn zone_arguments(zone: &str, smb_conf: &str) -> Vec<String> {
    words(&[SAMBA_TOOL, "dns", "zonecreate", "127.0.0.1", zone, "-P", "-s", smb_conf])
}

/// Names the domain controller `host` as the name server of a zone that was just made; Samba has the domain itself there, for which
/// Kerberos gives nobody a ticket to sign an update with.
#[must_use]
pub fn name_server_arguments(zone: &str, realm: &str, host: &str, smb_conf: &str) -> Vec<String> {
    let update = [SAMBA_TOOL, "dns", "update", "127.0.0.1", zone, "@", "NS", realm, host];
    words(&[&update[..], &["-P", "-s", smb_conf]].concat())
}

/// What `net ads search` says when it has found nothing.
pub const NO_COMPUTER: &str = "Got 0 replies";

/// The tools look at the interfaces to find the box's address, before there is a configuration.
fn network_options(site: &Site) -> [String; 2] {
    [format!("--option=interfaces={}", interfaces(site)), "--option=bind interfaces only=yes".to_owned()]
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_at_headquarters_is_read_where_it_is_told() {
        let said = "LDAP server: 10.99.0.1\nServer time: Thu, 26 Nov 2026 15:35:35 UTC\nServer time offset: -3599\n\n";
        assert_eq!(clock_offset_s(said), Some(-3599));
        assert_eq!(clock_offset_s("Didn't find the ldap server!\n"), None);
        assert_eq!(clock_offset_s("Server time offset: soon\n"), None);
    }

    #[test]
    fn a_domain_controller_says_its_name() {
        let said = "Forest           : ad.office.internal\nDC name          : hq.ad.office.internal\nDC netbios name  : HQ\n";
        assert_eq!(name_in_info(said), Some("hq.ad.office.internal"));
        assert_eq!(name_in_info("ERROR: Invalid IP address '10.99.0.1'!\n"), None);
        assert_eq!(name_in_info("DC name          : \n"), None);
    }
}
