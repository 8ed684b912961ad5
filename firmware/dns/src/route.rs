//! Whom a name is asked for: the servers of its forward zone, else the general upstreams.
//!
//! A forward zone (RFC 9499 calls who has one a stub) belongs to servers that nobody else may be asked instead of: the
//! realm of an Active Directory to its domain controllers. The longest zone that a name is in counts.

use std::net::SocketAddr;

use crate::name::Name;
use crate::upstream::Upstreams;

/// A zone that other servers than the general upstreams know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardZone {
    /// Its apex.
    pub name: Name,
    /// Whom to ask; the first that answers is asked for everything.
    pub servers: Vec<SocketAddr>,
}

/// All upstreams.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    general: Upstreams,
    /// Longest names first.
    zones: Vec<(Name, Upstreams)>,
    /// The zone that the caller put first.
    first: Option<Name>,
}

impl Routes {
    /// Replaces the general upstreams. Returns whether anything changed.
    pub(crate) fn set_general(&mut self, addresses: &[SocketAddr]) -> bool {
        self.general.set(addresses)
    }

    /// Replaces the forward zones; those that stay keep what was learnt about their servers. Returns whether anything
    /// changed.
    pub(crate) fn set_zones(&mut self, zones: &[ForwardZone]) -> bool {
        let mut old = std::mem::take(&mut self.zones);
        let mut changed = old.len() != zones.len();
        self.first = zones.first().map(|zone| zone.name);
        for zone in zones {
            let known = old.iter().position(|(name, _)| *name == zone.name);
            changed |= known.is_none();
            let mut upstreams = known.map_or_else(Upstreams::in_order, |at| old.swap_remove(at).1);
            changed |= upstreams.set(&zone.servers);
            self.zones.push((zone.name, upstreams));
        }
        self.zones.sort_by_key(|(name, _)| std::cmp::Reverse(name.wire().len()));
        changed
    }

    pub(crate) fn general(&self) -> &Upstreams {
        &self.general
    }

    /// Offset in `name` of the forward zone it is in.
    #[inline]
    pub(crate) fn zone_of(&self, name: &Name) -> Option<usize> {
        self.zones.iter().find_map(|(apex, _)| name.offset_of(apex))
    }

    /// The zone to negotiate keys with when the name says nothing about it.
    pub(crate) fn first_zone(&self) -> Option<Name> {
        self.first
    }

    /// Those who know `name`.
    pub(crate) fn of(&mut self, name: &Name) -> &mut Upstreams {
        let zone = self.zones.iter_mut().find(|(apex, _)| name.offset_of(apex).is_some());
        zone.map_or(&mut self.general, |(_, upstreams)| upstreams)
    }

    /// Whether `name` is in a forward zone that this machine's own servers have: asking them costs nothing.
    pub(crate) fn is_here(&mut self, name: &Name) -> bool {
        self.zone_of(name).is_some() && self.of(name).are_here()
    }

    /// Whether there is a forward zone that this machine's own servers have.
    pub(crate) fn has_zone_here(&self) -> bool {
        self.zones.iter().any(|(_, upstreams)| upstreams.are_here())
    }

    /// Whether `name` is in a forward zone whose servers have all been silent for a while.
    pub(crate) fn is_silent(&mut self, now: std::time::Instant, name: &Name) -> bool {
        self.zone_of(name).is_some() && self.of(name).all_rest(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    fn server(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 53))
    }

    fn zone(text: &str, last: u8) -> ForwardZone {
        ForwardZone { name: name(text), servers: vec![server(last)] }
    }

    fn routes() -> Routes {
        let mut routes = Routes::default();
        assert!(routes.set_general(&[server(9)]));
        assert!(routes.set_zones(&[zone("ad.example", 1), zone("lab.ad.example", 2)]));
        routes
    }

    #[track_caller]
    fn check(qname: &str, expect: u8) {
        let found: Vec<SocketAddr> = routes().of(&name(qname)).addresses().collect();
        assert_eq!(found, [server(expect)]);
    }

    #[test]
    fn the_longest_zone_counts() {
        check("www.example", 9);
        check("example", 9);
        check("ad.example", 1);
        check("_ldap._tcp.dc._msdcs.ad.example", 1);
        check("xad.example", 9);
        check("lab.ad.example", 2);
        check("pc.lab.ad.example", 2);
    }

    #[test]
    fn only_changes_are_changes() {
        let mut routes = routes();
        assert!(
            !routes.set_zones(&[zone("lab.ad.example", 2), zone("ad.example", 1)]),
            "the order says nothing"
        );
        assert!(routes.set_zones(&[zone("ad.example", 3), zone("lab.ad.example", 2)]), "another server");
        assert!(routes.set_zones(&[zone("ad.example", 3)]), "one less");
        assert!(routes.set_zones(&[zone("ad.other", 3)]), "another name");
        assert!(routes.set_zones(&[]));
        assert!(routes.zone_of(&name("ad.other")).is_none());
    }
}
