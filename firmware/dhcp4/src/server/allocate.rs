//! Which address a client gets (RFC 2131 §4.3.1), and whether it may have the one it asks for.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::time::Instant;

use super::table::Hold;
use super::{MAX_ENTRIES, Network, Peer, Reservation};

/// An address its last holder left longer ago is probed again: somebody may have configured it by hand.
const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// What the server thinks of a client having an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the client's.
    Grant,
    /// It is wrong for this client or this network.
    Refuse,
    /// It could be the client's, but we know nothing of it.
    Unknown,
}

impl Network {
    /// The address to offer; `avoid` has just turned out to be in use.
    pub(super) fn choose(
        &self,
        peer: &Peer,
        requested: Option<Ipv4Addr>,
        avoid: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        let allowed = |address: &Ipv4Addr| Some(*address) != avoid;
        let reserved = self.usable_reservation(peer).map(|reservation| reservation.address);
        let wanted = requested.filter(|address| self.is_dynamic(*address) && self.is_available(*address));
        reserved
            .filter(allowed)
            .or_else(|| self.previous(peer).filter(allowed))
            .or_else(|| wanted.filter(allowed))
            .or_else(|| self.unused(peer, avoid))
            .or_else(|| {
                self.table
                    .free_oldest_first()
                    .find(|a| allowed(a) && self.is_dynamic(*a) && self.is_available(*a))
            })
    }

    /// Whether to probe before offering: not when the client had the address just now.
    pub(super) fn wants_probe(&self, now: Instant, peer: &Peer, address: Ipv4Addr) -> bool {
        let Some(entry) = self.table.get(address).filter(|entry| entry.mac == peer.mac) else { return true };
        entry.hold == Hold::Free && now.since(entry.until) > PROBE_AGAIN_AFTER
    }

    pub(super) fn verdict(&self, peer: &Peer, address: Ipv4Addr) -> Verdict {
        let mine = self.is_reservation(address, peer.mac);
        let own = self.usable_reservation(peer);
        let elsewhere = own.is_some_and(|reservation| reservation.address != address);
        if !self.is_host(address) || elsewhere || !(mine || self.is_dynamic(address)) {
            return Verdict::Refuse;
        }
        match self.table.get(address) {
            None => Verdict::Unknown,
            Some(entry) if entry.hold == Hold::Declined => Verdict::Refuse,
            Some(entry) if entry.mac == peer.mac => Verdict::Grant,
            Some(entry) if entry.hold == Hold::Leased => Verdict::Refuse,
            Some(entry) if !peer.client_id.is_empty() && entry.client_id == peer.client_id => Verdict::Grant,
            Some(entry) if entry.hold == Hold::Offered => Verdict::Refuse,
            Some(_) => Verdict::Unknown,
        }
    }

    /// The client's reservation, unless its address is in somebody else's hands for now.
    fn usable_reservation(&self, peer: &Peer) -> Option<&Reservation> {
        let reservation = self.config.reservations.iter().find(|r| r.mac == peer.mac)?;
        let usable = match self.table.get(reservation.address) {
            None => true,
            Some(entry) => {
                entry.hold == Hold::Free || (entry.mac == peer.mac && entry.hold != Hold::Declined)
            }
        };
        usable.then_some(reservation)
    }

    /// What the client had before. The same hardware address counts even under another client identifier:
    /// boot ROM, installer and operating system of one machine use different ones. The same identifier
    /// under another hardware address counts too (a new network card), after a probe.
    fn previous(&self, peer: &Peer) -> Option<Ipv4Addr> {
        let candidates = [self.table.by_mac(peer.mac), self.table.by_client_id(&peer.client_id)];
        candidates
            .into_iter()
            .flatten()
            .find(|address| self.is_dynamic(*address) && !self.probed_by_other(peer, *address))
    }

    fn probed_by_other(&self, peer: &Peer, address: Ipv4Addr) -> bool {
        self.pending.get(&address).is_some_and(|pending| pending.peer.mac != peer.mac)
    }

    /// A pool address nobody ever had, starting at a place that depends on the client only: it gets the
    /// same one even if we forgot everything.
    fn unused(&self, peer: &Peer, avoid: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let total: u64 = self.config.pools.iter().map(pool_size).sum();
        if total == 0 || self.table.len() + self.pending.len() >= MAX_ENTRIES {
            return None;
        }
        let key = if peer.client_id.is_empty() { &peer.mac[..] } else { &peer.client_id };
        let ranges = self.pools_from(fnv1a(key) % total);
        ranges.into_iter().find_map(|range| self.unused_in(range, avoid))
    }

    /// At most as many steps as there are probes and reservations.
    fn unused_in(&self, (mut at, last): (Ipv4Addr, Ipv4Addr), avoid: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        loop {
            let unknown = self.table.next_unknown(at).filter(|address| *address <= last)?;
            let usable =
                Some(unknown) != avoid && !self.pending.contains_key(&unknown) && self.is_dynamic(unknown);
            if usable {
                return Some(unknown);
            }
            at = u32::from(unknown).checked_add(1)?.into();
        }
    }

    /// All pools as ranges, beginning at this place among their addresses and ending before it.
    fn pools_from(&self, mut offset: u64) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let mut ranges = Vec::new();
        for (index, pool) in self.config.pools.iter().enumerate() {
            let inside = u32::try_from(offset).ok().filter(|_| offset < pool_size(pool));
            let Some(inside) = inside else {
                offset -= pool_size(pool);
                continue;
            };
            let start = u32::from(pool.0).saturating_add(inside);
            ranges.push((start.into(), pool.1));
            ranges.extend(&self.config.pools[index + 1..]);
            ranges.extend(&self.config.pools[..index]);
            ranges.extend((inside > 0).then(|| (pool.0, (start - 1).into())));
            break;
        }
        ranges
    }

    /// Whether nobody holds the address and nobody is about to.
    fn is_available(&self, address: Ipv4Addr) -> bool {
        let free = self.table.get(address).is_none_or(|entry| entry.hold == Hold::Free);
        free && !self.pending.contains_key(&address)
    }

    /// Whether the address may be leased dynamically: in a pool, and not reserved.
    pub(super) fn is_dynamic(&self, address: Ipv4Addr) -> bool {
        let pooled = self.config.pools.iter().any(|(first, last)| (*first..=*last).contains(&address));
        pooled && self.is_host(address) && !self.config.reservations.iter().any(|r| r.address == address)
    }

    /// Whether the address can be a client's in this network at all.
    pub(super) fn is_host(&self, address: Ipv4Addr) -> bool {
        let net = self.config.address;
        net.contains(&address) && ![net.addr(), net.network(), net.broadcast()].contains(&address)
    }
}

fn pool_size((first, last): &(Ipv4Addr, Ipv4Addr)) -> u64 {
    (u64::from(u32::from(*last)) + 1).saturating_sub(u64::from(u32::from(*first)))
}

/// FNV-1a: the same on every box and in every version, unlike std's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
