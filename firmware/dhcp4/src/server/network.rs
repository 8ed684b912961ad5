//! One network of the server: its addresses, and the probes under way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv4Addr;

use crate::lease::{Record, RecordState};
use crate::time::Instant;
use crate::wire::Message;

use super::claimant::Claimant;
use super::table::{Entry, Hold, Table};
use super::{MAX_ENTRIES, NetworkConfig, Now, Peer};

/// A DISCOVER that waits for its probe.
#[derive(Debug)]
pub(super) struct Pending {
    /// Interface network.
    pub(super) arrived_on: usize,
    pub(super) message: Message,
    pub(super) peer: Peer,
    pub(super) until: Instant,
}

/// One network: its configuration, its addresses, and the probes under way.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) config: NetworkConfig,
    pub(super) table: Table,
    pub(super) pending: BTreeMap<Ipv4Addr, Pending>,
    pub(super) pending_by_mac: HashMap<[u8; 6], Ipv4Addr>,
    /// Ends of probes, in order: all probes take equally long.
    pub(super) probe_ends: VecDeque<(Instant, Ipv4Addr)>,
    /// Until when it is worth telling that a DISCOVER found no address, unless one does before. Those of clients
    /// that have an address do not count: the problem would come and go.
    pub(super) exhausted_until: Option<Instant>,
    /// Who claims addresses that are probed.
    pub(super) claimant: Claimant,
    /// The client that declines one address after the other.
    pub(super) decliner: Claimant,
}

impl Network {
    pub(super) fn new(config: NetworkConfig, mut table: Table) -> Self {
        let mut network = Self {
            config,
            table: Table::default(),
            pending: BTreeMap::new(),
            pending_by_mac: HashMap::new(),
            probe_ends: VecDeque::new(),
            exhausted_until: None,
            claimant: Claimant::default(),
            decliner: Claimant::default(),
        };
        // Otherwise a full pool would be searched among all of them.
        table.forget_free(|address, entry| !network.is_memorable(address, entry.mac));
        network.table = table;
        network
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let probe = self.probe_ends.front().map(|(until, _)| *until);
        self.table.next_deadline().into_iter().chain(probe).min()
    }

    pub(super) fn take_finished_probe(&mut self, now: Instant) -> Option<(Ipv4Addr, Pending)> {
        while let Some((until, address)) = self.probe_ends.front().copied() {
            if until > now {
                return None;
            }
            self.probe_ends.pop_front();
            // An answered probe is gone already, and its address may be under another probe by now.
            if self.pending.get(&address).is_some_and(|pending| pending.until == until) {
                return self.take_pending(address).map(|pending| (address, pending));
            }
        }
        None
    }

    pub(super) fn take_pending(&mut self, address: Ipv4Addr) -> Option<Pending> {
        let pending = self.pending.remove(&address)?;
        self.pending_by_mac.remove(&pending.peer.mac);
        Some(pending)
    }

    /// Whether `address` is `mac`'s by reservation.
    pub(super) fn is_reservation(&self, address: Ipv4Addr, mac: [u8; 6]) -> bool {
        self.config.reservations.iter().any(|r| r.address == address && r.mac == mac)
    }

    /// Whether it matters who had a free address last.
    fn is_memorable(&self, address: Ipv4Addr, mac: [u8; 6]) -> bool {
        self.is_dynamic(address) || self.is_reservation(address, mac)
    }

    pub(super) fn may_adopt(&self, record: &Record) -> bool {
        let known = self.table.get(record.address).is_some_and(|entry| entry.hold != Hold::Free);
        let elsewhere = self.table.by_mac(record.mac).and_then(|address| self.table.get(address));
        let moved =
            record.state == RecordState::Leased && elsewhere.is_some_and(|entry| entry.hold == Hold::Leased);
        let useless = record.state == RecordState::Free && !self.is_memorable(record.address, record.mac);
        !known && !moved && !useless && self.is_host(record.address) && self.table.len() < MAX_ENTRIES
    }

    /// The record of an entry as it is now; offers have none.
    pub(super) fn record(&self, now: Now, address: Ipv4Addr, entry: &Entry) -> Option<Record> {
        let (state, remaining_s) = match entry.hold {
            Hold::Offered => return None,
            Hold::Leased => (RecordState::Leased, entry.until.since(now.at).as_secs()),
            Hold::Declined => (RecordState::Declined, entry.until.since(now.at).as_secs()),
            Hold::Free => (RecordState::Free, 0),
        };
        // The age of what is free is kept, so that the oldest is still reused first after a restart.
        let age = if entry.hold == Hold::Free { now.at.since(entry.until).as_secs() } else { 0 };
        Some(Record {
            network: self.config.name.clone(),
            address,
            state,
            mac: entry.mac,
            client_id: entry.client_id.clone(),
            name: entry.name.clone(),
            written_at: now.wall_s.saturating_sub(age),
            remaining_s,
        })
    }
}
