//! Whom dnsd asks for the names of the Active Directory domain that the box is in, and for those of its members' addresses.
//!
//! A domain controller has Samba's own DNS service beside dnsd, which alone may be asked from outside the box. A read-only
//! one has it only after it has joined: until then nobody listens there, and headquarters is asked.

use std::net::{Ipv4Addr, SocketAddr};

use kontor_config::Site;
use kontor_config::site::SambaRole;
use kontor_dns::{ForwardZone, Name, WireError};

/// The realm, and who knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Realm {
    name: Name,
    /// What a domain controller is called in there.
    own_name: Option<Name>,
    /// Whether Samba's DNS service is on the box.
    here: bool,
    /// Headquarters' domain controllers.
    servers: Vec<Ipv4Addr>,
    /// Whose names members of the domain enter, too.
    reverse: Vec<Name>,
}

impl Realm {
    /// The realm of a site that has one.
    pub(crate) fn of(site: &Site) -> Result<Option<Self>, WireError> {
        let Some(samba) = &site.samba else { return Ok(None) };
        let here = samba.role.is_domain_controller();
        let reverse = match samba.role {
            SambaRole::Dc => kontor_samba::reverse_zones(site, samba),
            // Which of them the domain has, headquarters knows, and no address of the company is another's.
            SambaRole::Rodc | SambaRole::Member => kontor_samba::private_reverse_zones(),
        };
        let name = Name::from_text(&samba.realm)?;
        let own_name = here.then(|| name.child(&site.office.host_name)).transpose()?;
        let reverse = reverse.iter().map(|zone| Name::from_text(zone)).collect::<Result<_, _>>()?;
        Ok(Some(Self { name, own_name, here, servers: samba.servers.clone(), reverse }))
    }

    /// The name that Kerberos knows a domain controller by: who looks its address up is to find that one (`rdns` in
    /// krb5.conf(5), which is on unless told otherwise).
    pub(crate) fn own_name(&self) -> Option<Name> {
        self.own_name
    }

    /// The zones that others know, the realm first; `samba_port` is that of the service here, `port` that of headquarters.
    ///
    /// Reverse zones are asked of whoever may change them: Samba here has not all of them when it is a read-only copy, and
    /// sends what it does not have back.
    pub(crate) fn zones(&self, samba_port: u16, port: u16) -> Vec<ForwardZone> {
        let here = self.here.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, samba_port)));
        let there: Vec<_> = self.servers.iter().map(|&server| SocketAddr::from((server, port))).collect();
        let all: Vec<_> = here.into_iter().chain(there.iter().copied()).collect();
        let masters = if there.is_empty() { all.clone() } else { there };
        let reverse = self.reverse.iter().map(|&name| ForwardZone { name, servers: masters.clone() });
        std::iter::once(ForwardZone { name: self.name, servers: all }).chain(reverse).collect()
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
    fn check(role: &str, expect: &[&str], reverse: (usize, &str)) {
        let realm = realm(&format!("[samba]\nrealm = \"ad.office.internal\"\n{role}")).unwrap();
        let zones = realm.zones(kontor_samba::DNS_PORT, 53);
        assert_eq!(zones[0].name.to_string(), "ad.office.internal.");
        let servers = |at: usize| zones[at].servers.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(servers(0), expect);
        let zone = zones.iter().position(|zone| zone.name.to_string().ends_with("168.192.in-addr.arpa."));
        assert_eq!((zones.len() - 1, &*servers(zone.unwrap())[0]), reverse);
    }

    #[test]
    fn the_role_decides_who_is_asked() {
        check("role = \"dc\"", &["127.0.0.1:5300"], (1, "127.0.0.1:5300"));
        let servers = "servers = [\"10.0.0.1\", \"10.0.0.2\"]";
        check(
            &format!("role = \"rodc\"\n{servers}"),
            &["127.0.0.1:5300", "10.0.0.1:53", "10.0.0.2:53"],
            (18, "10.0.0.1:53"),
        );
        check(&format!("role = \"member\"\n{servers}"), &["10.0.0.1:53", "10.0.0.2:53"], (18, "10.0.0.1:53"));
        assert_eq!(realm(""), None);
    }
}
