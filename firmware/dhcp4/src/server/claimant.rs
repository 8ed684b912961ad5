//! Hosts for which every address is taken: routers with proxy ARP and broken bridges answer for whatever address is
//! asked for, and clients behind them decline whatever they are given.
//!
//! Believed, one of them takes every address of the pools out of use. So whoever claims several in a row,
//! with no probe between that nobody answered, is not believed for a while.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::time::Instant;

/// Addresses one host may claim in a row. Few, as each costs its client half a second and the pool an
/// address; a host that has so many of its own within a pool is a mistake too.
const BELIEVED: usize = 4;
/// How long nothing it says about addresses counts: after that, a mended network is checked again.
const DISBELIEF: Duration = Duration::from_secs(600);

/// The last host that claimed an address of one network.
#[derive(Debug, Default)]
pub(super) struct Claimant {
    mac: [u8; 6],
    addresses: Vec<Ipv4Addr>,
    /// The first of them.
    began_at: Instant,
    disbelieved_until: Option<Instant>,
}

impl Claimant {
    /// Whether a claim of this host says nothing.
    pub(super) fn is_disbelieved(&self, mac: [u8; 6]) -> bool {
        self.disbelieved_until.is_some() && self.mac == mac
    }

    /// A host claims a probed address. Returns all it claimed when that is one too many.
    pub(super) fn claim(&mut self, now: Instant, mac: [u8; 6], address: Ipv4Addr) -> Option<Vec<Ipv4Addr>> {
        if self.mac != mac && self.disbelieved_until.is_some() {
            return None;
        }
        let long_ago = now.since(self.began_at) >= DISBELIEF && self.disbelieved_until.is_none();
        if self.mac != mac || long_ago {
            *self = Self { mac, began_at: now, ..Self::default() };
        }
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
        if self.addresses.len() < BELIEVED {
            return None;
        }
        self.disbelieved_until = Some(now + DISBELIEF);
        Some(std::mem::take(&mut self.addresses))
    }

    /// A probe that nobody answered: not every address is claimed.
    pub(super) fn handle_silence(&mut self) {
        self.addresses.clear();
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.disbelieved_until.is_some_and(|until| until <= now) {
            *self = Self::default();
        }
    }

    /// For people: what it does (`answers ARP for`, `declines`) to every address.
    pub(super) fn problem(&self, network: &str, deed: &str) -> Option<String> {
        self.disbelieved_until?;
        let [a, b, c, d, e, f] = self.mac;
        Some(format!(
            "network {network}: {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} {deed} every address and is not \
             believed; look for a router with proxy ARP"
        ))
    }
}
