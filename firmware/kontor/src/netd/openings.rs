//! Which ports the firewall opens for components: those of the components that the box has, in the roles that the site
//! gives them.

use kontor_component::{Protocol, Shipped};
use kontor_config::Site;
use kontor_firewall::Openings;

use crate::component::role;

/// The ports of `shipped` in this site; none of a component that the site has no table for.
pub(super) fn openings(site: &Site, shipped: &[Shipped]) -> Openings {
    let mut openings = Openings::default();
    for Shipped { manifest, .. } in shipped {
        let Some(role) = role(site, &manifest.name) else { continue };
        for (protocol, port) in manifest.ports(role) {
            match protocol {
                Protocol::Tcp => openings.tcp.insert(port),
                Protocol::Udp => openings.udp.insert(port),
            };
        }
    }
    openings
}

#[cfg(test)]
mod tests {
    use kontor_config::Board;

    use super::*;

    const BOARD: &str =
        "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n";

    fn site(table: &str) -> Site {
        let board = Board::parse("board.toml", BOARD).unwrap();
        Site::parse("site.toml", &format!("{}\n{table}", Site::default_text()), &board).unwrap()
    }

    fn shipped(name: &str) -> Shipped {
        let digits = "0".repeat(64);
        let text = format!(
            "schema = 1\nname = '{name}'\nmemory-mib = 1\nprocesses = 1\n[[service]]\nname = 'x'\ncommand = ['/x']\n\
             [[port]]\nprotocol = 'tcp'\nnumber = [445]\n[[port]]\nprotocol = 'udp'\nrole = ['dc']\nnumber = [88, 389]\n\
             [seal]\nbytes = 1\nsha256 = '{digits}'\nverity = '{digits}'\n"
        );
        Shipped::parse(&text).unwrap()
    }

    #[track_caller]
    fn check(table: &str, components: &[&str], tcp: &[u16], udp: &[u16]) {
        let shipped: Vec<Shipped> = components.iter().map(|name| shipped(name)).collect();
        let expect = Openings { tcp: tcp.iter().copied().collect(), udp: udp.iter().copied().collect() };
        assert_eq!(openings(&site(table), &shipped), expect);
    }

    #[test]
    fn what_is_there_and_wanted_is_opened() {
        const DC: &str = "[samba]\nrole = \"dc\"\nrealm = \"ad.office.internal\"\n";
        let member = format!("{}servers = [\"10.0.0.1\"]\n", DC.replace("\"dc\"", "\"member\""));
        check(DC, &["samba"], &[445], &[88, 389]);
        check(&member, &["samba"], &[445], &[]);
        check("", &["samba"], &[], &[]);
        check(DC, &[], &[], &[]);
        check(DC, &["other"], &[], &[]);
    }
}
