//! The addresses of one network and who has them, with indexes by client and by time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use crate::time::Instant;

use super::runs::Runs;

/// What holds an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Offered until `until`.
    Offered,
    /// Leased until `until`.
    Leased,
    /// In use by a stranger; rests until `until`.
    Declined,
    /// Nothing since `until`; the last holder gets it again if it comes in time.
    Free,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) mac: [u8; 6],
    pub(super) client_id: Vec<u8>,
    pub(super) name: Option<String>,
    pub(super) hold: Hold,
    pub(super) until: Instant,
    /// Whether the holder ever had a lease here: what was only offered is forgotten at once.
    pub(super) leased_before: bool,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: BTreeMap<Ipv4Addr, Entry>,
    /// The addresses of `entries`.
    known: Runs,
    by_mac: BTreeSet<([u8; 6], Ipv4Addr)>,
    by_client_id: HashMap<Vec<u8>, Ipv4Addr>,
    deadlines: BTreeSet<(Instant, Ipv4Addr)>,
    free: BTreeSet<(Instant, Ipv4Addr)>,
}

impl Table {
    pub(super) fn get(&self, address: Ipv4Addr) -> Option<&Entry> {
        self.entries.get(&address)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Entry)> {
        self.entries.iter().map(|(address, entry)| (*address, entry))
    }

    /// All addresses a hardware address holds or held.
    pub(super) fn all_by_mac(&self, mac: [u8; 6]) -> impl Iterator<Item = (Ipv4Addr, &Entry)> {
        let all = self.by_mac.range((mac, Ipv4Addr::UNSPECIFIED)..=(mac, Ipv4Addr::BROADCAST));
        all.filter_map(|(_, address)| Some((*address, self.get(*address)?)))
    }

    /// The address a hardware address holds, else the one it held last.
    pub(super) fn by_mac(&self, mac: [u8; 6]) -> Option<Ipv4Addr> {
        let rank = |entry: &Entry| (entry.hold == Hold::Leased, entry.hold == Hold::Offered, entry.until);
        self.all_by_mac(mac).max_by_key(|(_, entry)| rank(entry)).map(|(address, _)| address)
    }

    /// The address last held by a client identifier (never by an empty one).
    pub(super) fn by_client_id(&self, client_id: &[u8]) -> Option<Ipv4Addr> {
        self.by_client_id.get(client_id).copied()
    }

    /// Free addresses, the one that has been free longest first.
    pub(super) fn free_oldest_first(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.free.iter().map(|(_, address)| *address)
    }

    /// The first address from this one on of which nothing is known.
    pub(super) fn next_unknown(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        self.known.next_outside(address.into()).map(Ipv4Addr::from)
    }

    /// Forgets free addresses that nobody can get (again).
    pub(super) fn forget_free(&mut self, useless: impl Fn(Ipv4Addr, &Entry) -> bool) {
        let all = self.iter().filter(|(address, entry)| entry.hold == Hold::Free && useless(*address, entry));
        for address in all.map(|(address, _)| address).collect::<Vec<_>>() {
            self.remove(address);
        }
    }

    /// Sets or replaces an entry.
    pub(super) fn put(&mut self, address: Ipv4Addr, entry: Entry) {
        self.remove(address);
        if entry.hold == Hold::Free {
            self.free.insert((entry.until, address));
        } else {
            self.deadlines.insert((entry.until, address));
        }
        // A stranger on a declined address is nobody's previous address.
        if entry.hold != Hold::Declined {
            self.by_mac.insert((entry.mac, address));
            if !entry.client_id.is_empty() {
                self.by_client_id.insert(entry.client_id.clone(), address);
            }
        }
        self.known.insert(address.into());
        self.entries.insert(address, entry);
    }

    pub(super) fn remove(&mut self, address: Ipv4Addr) -> Option<Entry> {
        let entry = self.entries.remove(&address)?;
        self.known.remove(address.into());
        self.free.remove(&(entry.until, address));
        self.deadlines.remove(&(entry.until, address));
        self.by_mac.remove(&(entry.mac, address));
        if self.by_client_id(&entry.client_id) == Some(address) {
            self.by_client_id.remove(&entry.client_id);
        }
        Some(entry)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// An address whose offer, lease or rest is over.
    pub(super) fn next_expired(&self, now: Instant) -> Option<Ipv4Addr> {
        self.deadlines.first().filter(|(until, _)| *until <= now).map(|(_, address)| *address)
    }
}
