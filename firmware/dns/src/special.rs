//! Names that never leave the office: RFC 6303, RFC 6761 and their successors.
//!
//! A forwarder that sends these upstream leaks what the office looks like and gets nothing useful back. Each
//! zone here is answered locally as if it were empty. Zones of private use (reverse names of private
//! addresses, `internal.`, `home.arpa.`, `local.`) go upstream only when the operator named private
//! forwarders, because then those may know them.

use std::net::Ipv4Addr;

use crate::name::Name;

/// How a special zone is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `localhost.` and below: loopback (RFC 6761 §6.3).
    Localhost,
    /// No name exists.
    Empty,
    /// Every name exists and has no data (RFC 9462 §6.4).
    NoData,
    /// Not even the zone's own name exists.
    Canary,
    /// As [`Kind::Empty`] unless private forwarders are there to ask.
    Private,
}

/// Zones by name, with their source.
const ZONES: &[(&str, Kind)] = &[
    ("localhost", Kind::Localhost),            // RFC 6761
    ("invalid", Kind::Empty),                  // RFC 6761
    ("test", Kind::Empty),                     // RFC 6761
    ("onion", Kind::Empty),                    // RFC 7686
    ("alt", Kind::Empty),                      // RFC 9476
    ("local", Kind::Private),                  // RFC 6762 §22.1; forwarded for old Active Directory domains
    ("internal", Kind::Private),               // reserved by ICANN in 2024
    ("home.arpa", Kind::Private),              // RFC 8375
    ("resolver.arpa", Kind::NoData),           // RFC 9462
    ("use-application-dns.net", Kind::Canary), // Firefox: keep to the office's resolver
    ("0.in-addr.arpa", Kind::Empty),           // RFC 6303 from here on
    ("127.in-addr.arpa", Kind::Empty),
    ("254.169.in-addr.arpa", Kind::Empty),
    ("2.0.192.in-addr.arpa", Kind::Empty),
    ("100.51.198.in-addr.arpa", Kind::Empty),
    ("113.0.203.in-addr.arpa", Kind::Empty),
    ("255.255.255.255.in-addr.arpa", Kind::Empty),
    ("10.in-addr.arpa", Kind::Private),
    ("168.192.in-addr.arpa", Kind::Private),
    ("0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", Kind::Empty),
    ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", Kind::Empty),
    ("8.b.d.0.1.0.0.2.ip6.arpa", Kind::Empty),
    ("8.e.f.ip6.arpa", Kind::Empty),
    ("9.e.f.ip6.arpa", Kind::Empty),
    ("a.e.f.ip6.arpa", Kind::Empty),
    ("b.e.f.ip6.arpa", Kind::Empty),
    ("c.f.ip6.arpa", Kind::Private), // RFC 4193
    ("d.f.ip6.arpa", Kind::Private),
];

/// The special zones, ready for look-ups.
#[derive(Debug)]
pub(crate) struct Special {
    zones: Vec<(Name, Kind)>,
}

impl Special {
    pub(crate) fn new() -> Self {
        let named = ZONES.iter().map(|&(name, kind)| (name.to_owned(), kind));
        // 172.16.0.0/12 (RFC 6303) and 100.64.0.0/10 (RFC 7793) do not end on an octet.
        let private_b = (16..32).map(|octet| (format!("{octet}.172.in-addr.arpa"), Kind::Private));
        let shared = (64..128).map(|octet| (format!("{octet}.100.in-addr.arpa"), Kind::Private));
        let all = named.chain(private_b).chain(shared);
        let zones = all.filter_map(|(name, kind)| Some((Name::from_text(&name).ok()?, kind))).collect();
        Self { zones }
    }

    /// The special zone `name` is in, with the offset of its apex.
    pub(crate) fn find(&self, name: &Name) -> Option<(Kind, usize)> {
        if !may_be_special(name) {
            return None;
        }
        self.zones.iter().find_map(|(apex, kind)| name.offset_of(apex).map(|offset| (*kind, offset)))
    }
}

/// Cheap test on the last label, so that ordinary names cost nothing more.
fn may_be_special(name: &Name) -> bool {
    let wire = name.wire();
    let ends = |tail: &[u8]| wire.ends_with(tail);
    match wire.len().checked_sub(2).and_then(|at| wire.get(at)) {
        Some(b't') => {
            ends(b"\x09localhost\0")
                || ends(b"\x04test\0")
                || ends(b"\x03alt\0")
                || ends(b"\x13use-application-dns\x03net\0")
        }
        Some(b'd') => ends(b"\x07invalid\0"),
        Some(b'n') => ends(b"\x05onion\0"),
        Some(b'l') => ends(b"\x05local\0") || ends(b"\x08internal\0"),
        Some(b'a') => ends(b"\x04arpa\0"),
        _ => false,
    }
}

/// Whether reverse names of `address` lie in a zone of private use.
pub(crate) fn is_private(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_private() || (first == 100 && (64..128).contains(&second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expect: Option<Kind>) {
        let name = Name::from_text(name).unwrap();
        assert_eq!(Special::new().find(&name).map(|(kind, _)| kind), expect);
    }

    #[test]
    fn every_zone_passes_its_own_cheap_test() {
        let special = Special::new();
        assert_eq!(special.zones.len(), ZONES.len() + 16 + 64);
        for (apex, kind) in &special.zones {
            assert_eq!(special.find(apex), Some((*kind, 0)), "{apex}");
            assert_eq!(special.find(&apex.child("x").unwrap()), Some((*kind, 2)), "{apex}");
        }
    }

    #[test]
    fn neighbours_are_not_special() {
        check("www.example.net", None);
        check("15.172.in-addr.arpa", None);
        check("32.172.in-addr.arpa", None);
        check("63.100.in-addr.arpa", None);
        check("8.8.8.8.in-addr.arpa", None);
        check("mylocalhost", None);
        check("contest", None);
        check("nas.local", Some(Kind::Private));
        check("7.0.31.172.in-addr.arpa", Some(Kind::Private));
    }
}
