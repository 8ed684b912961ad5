//! The reverse zones of a domain: where its members' addresses get their names from.

use ipnet::Ipv4Net;
use kontor_config::site::Zone;

use crate::{Samba, Site};

/// Nobody outside knows names of these (RFC 1918, and RFC 6598 for providers' own).
const PRIVATE: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 10),
];

/// Those of a domain that has its home here: of the internal networks and of the branches'.
#[must_use]
pub fn reverse_zones(site: &Site, samba: &Samba) -> Vec<String> {
    let own = site.networks_in(Zone::Internal).filter_map(|network| network.static_address());
    let branches = samba.branches.iter().flat_map(|branch| &branch.networks).copied();
    names(own.chain(branches))
}

/// Those of all addresses that companies use inside (RFC 1918): whoever is only part of a domain does not know which of them it
/// has.
#[must_use]
pub fn private_reverse_zones() -> Vec<String> {
    let [ten, others, home, _] = PRIVATE;
    names([ten, others, home].into_iter())
}

/// In order, none of them in another.
fn names(networks: impl Iterator<Item = Ipv4Net>) -> Vec<String> {
    let zones: Vec<Ipv4Net> = networks.flat_map(zones_of).collect();
    let is_top = |zone: &&Ipv4Net| !zones.iter().any(|other| other != *zone && other.contains(*zone));
    let mut top: Vec<Ipv4Net> = zones.iter().filter(is_top).copied().collect();
    top.sort();
    top.dedup();
    top.into_iter().map(name).collect()
}

/// A zone ends at an octet. Among private addresses the one around a network is right; of others the neighbours belong to
/// somebody else, so that there are some smaller ones or none.
fn zones_of(network: Ipv4Net) -> Vec<Ipv4Net> {
    let at = |prefix: u8| Ipv4Net::new(network.addr(), prefix).map(|zone| zone.trunc());
    let prefix = network.prefix_len();
    if prefix.is_multiple_of(8) && prefix <= 24 {
        return vec![network.trunc()];
    }
    let around = at((prefix / 8 * 8).min(24)).ok();
    let around = around.filter(|zone| PRIVATE.iter().any(|private| private.contains(zone)));
    let inside = || network.subnets(prefix.div_ceil(8) * 8).into_iter().flatten();
    match around {
        Some(zone) => vec![zone],
        None if prefix < 24 => inside().collect(),
        None => Vec::new(),
    }
}

fn name(zone: Ipv4Net) -> String {
    let octets = zone.addr().octets();
    let fixed = octets.iter().take(usize::from(zone.prefix_len() / 8)).rev();
    fixed.map(|octet| format!("{octet}.")).collect::<String>() + "in-addr.arpa"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(networks: &[&str], expect: &[&str]) {
        assert_eq!(names(networks.iter().map(|network| network.parse().unwrap())), expect, "{networks:?}");
    }

    #[test]
    fn zones_end_at_octets() {
        check(&["192.168.77.1/24"], &["77.168.192.in-addr.arpa"]);
        check(&["10.99.0.1/30", "10.99.0.2/32"], &["0.99.10.in-addr.arpa"]);
        check(&["10.20.0.0/16", "10.20.3.0/24"], &["20.10.in-addr.arpa"]);
        check(&["172.20.16.0/20"], &["20.172.in-addr.arpa"]);
        check(&["10.0.0.0/9", "10.1.0.0/16"], &["10.in-addr.arpa"]);
    }

    #[test]
    fn nobody_elses_addresses_are_in_them() {
        check(&["172.30.0.0/15"], &["30.172.in-addr.arpa", "31.172.in-addr.arpa"]);
        check(&["198.51.100.0/29"], &[]);
        check(&["198.51.100.0/24"], &["100.51.198.in-addr.arpa"]);
        check(&["198.51.100.0/23"], &["100.51.198.in-addr.arpa", "101.51.198.in-addr.arpa"]);
        let private = private_reverse_zones();
        assert_eq!(private.len(), 1 + 16 + 1);
        assert!(private.contains(&"168.192.in-addr.arpa".to_owned()));
    }
}
