//! The commands that make the box part of a domain, once.
//!
//! Whole command lines, program first, without user and password: the caller adds those in a way that does
//! not show in the list of processes.

use crate::{Samba, SambaRole, Site, interfaces, internal_addresses, netbios_name, realm};

const SAMBA_TOOL: &str = "/usr/bin/samba-tool";

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
        format!("--site={}", samba.site),
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
/// realm to [`Samba::servers`] by then. `net` reads [`crate::smb_conf`]; what `samba-tool` writes, the
/// caller replaces by it.
#[must_use]
pub fn join_arguments(site: &Site, samba: &Samba) -> Option<Vec<String>> {
    match samba.role {
        SambaRole::Dc => None,
        SambaRole::Rodc => {
            let mut arguments = words(&[SAMBA_TOOL, "domain", "join"]);
            arguments.extend([
                samba.realm.clone(),
                "RODC".to_owned(),
                "--dns-backend=SAMBA_INTERNAL".to_owned(),
                format!("--site={}", samba.site),
                format!("--option=netbios name={}", netbios_name(site)),
            ]);
            arguments.extend(network_options(site));
            Some(arguments)
        }
        // The domain's DNS service need not accept updates from members, and the office's own knows the box.
        SambaRole::Member => Some(words(&["/usr/bin/net", "ads", "join", "--no-dns-updates"])),
    }
}

/// The tools look at the interfaces to find the box's address, before there is a configuration.
fn network_options(site: &Site) -> [String; 2] {
    [format!("--option=interfaces={}", interfaces(site)), "--option=bind interfaces only=yes".to_owned()]
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
