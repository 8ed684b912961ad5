//! Whom dnsd asks for the names of the Active Directory domain that the box is in.
//!
//! A domain controller has Samba's own DNS service beside dnsd, which alone may be asked from outside the box. A read-only
//! one has it only after it has joined: until then nobody listens there, and headquarters is asked.

use std::net::{Ipv4Addr, SocketAddr};

use kontor_config::Site;
use kontor_dns::{ForwardZone, Name, WireError};

/// The realm, and who knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Realm {
    name: Name,
    /// Whether Samba's DNS service is on the box.
    here: bool,
    /// Headquarters' domain controllers.
    servers: Vec<Ipv4Addr>,
}

impl Realm {
    /// The realm of a site that has one.
    pub(crate) fn of(site: &Site) -> Result<Option<Self>, WireError> {
        let Some(samba) = &site.samba else { return Ok(None) };
        let here = samba.role.is_domain_controller();
        Ok(Some(Self { name: Name::from_text(&samba.realm)?, here, servers: samba.servers.clone() }))
    }

    /// The zone that others know; `samba_port` is that of the service here, `port` that of headquarters.
    pub(crate) fn zone(&self, samba_port: u16, port: u16) -> ForwardZone {
        let here = self.here.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, samba_port)));
        let there = self.servers.iter().map(|&server| SocketAddr::from((server, port)));
        ForwardZone { name: self.name, servers: here.into_iter().chain(there).collect() }
    }
}

#[cfg(test)]
mod tests {
    use kontor_config::Board;

    use super::*;

    const BOARD: &str =
        "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n";

    fn realm(table: &str) -> Option<Realm> {
        let board = Board::parse("board.toml", BOARD).unwrap();
        let text = format!("{}\n{table}", Site::default_text());
        Realm::of(&Site::parse("site.toml", &text, &board).unwrap()).unwrap()
    }

    #[track_caller]
    fn check(role: &str, expect: &[&str]) {
        let realm = realm(&format!("[samba]\nrealm = \"ad.office.internal\"\n{role}")).unwrap();
        let zone = realm.zone(kontor_samba::DNS_PORT, 53);
        assert_eq!(zone.name.to_string(), "ad.office.internal.");
        let servers: Vec<String> = zone.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, expect);
    }

    #[test]
    fn the_role_decides_who_is_asked() {
        check("role = \"dc\"", &["127.0.0.1:5300"]);
        let servers = "servers = [\"10.0.0.1\", \"10.0.0.2\"]";
        check(&format!("role = \"rodc\"\n{servers}"), &["127.0.0.1:5300", "10.0.0.1:53", "10.0.0.2:53"]);
        check(&format!("role = \"member\"\n{servers}"), &["10.0.0.1:53", "10.0.0.2:53"]);
        assert_eq!(realm(""), None);
    }
}
