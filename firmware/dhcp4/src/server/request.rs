//! What each message type does to the leases (RFC 2131 §4.3).

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::wire::{Message, MessageType, code};

use super::allocate::Verdict;
use super::table::{Entry, Hold};
use super::{
    Action, DECLINE_HOLD, EXHAUSTED_HOLD, MAX_PROBES, NameChange, Now, OFFER_HOLD, PROBE_TIMEOUT, Peer,
    Pending, Server, name,
};

impl Server {
    pub(super) fn discover(
        &mut self,
        now: Now,
        index: usize,
        arrived_on: usize,
        message: &Message,
        peer: &Peer,
        avoid: Option<Ipv4Addr>,
    ) {
        let network = &mut self.networks[index];
        let pending = Pending {
            arrived_on,
            message: message.clone(),
            peer: peer.clone(),
            until: now.at + PROBE_TIMEOUT,
        };
        if let Some(waiting) = network.pending_by_mac.get(&peer.mac).and_then(|a| network.pending.get_mut(a))
        {
            // A retransmission: answer the newest one when the probe is over.
            waiting.message = pending.message;
            return;
        }
        let requested = message.options.address(code::REQUESTED_ADDRESS);
        let Some(address) = network.choose(peer, requested, avoid) else {
            network.exhausted_until = Some(now.at + EXHAUSTED_HOLD);
            return;
        };
        if !network.wants_probe(now.at, peer, address) {
            return self.offer(now, index, (address, pending));
        }
        network.exhausted_until = None;
        if network.pending.len() >= MAX_PROBES || network.pending.contains_key(&address) {
            return;
        }
        network.probe_ends.push_back((pending.until, address));
        network.pending_by_mac.insert(peer.mac, address);
        network.pending.insert(address, pending);
        self.actions.push_back(Action::Probe { network: index, address });
    }

    /// Nobody answered for the address (or no question was needed): offer it.
    pub(super) fn offer(&mut self, now: Now, index: usize, (address, pending): (Ipv4Addr, Pending)) {
        let Pending { arrived_on, message, peer, .. } = pending;
        let held = self.networks[index].table.get(address).cloned();
        let running = held.as_ref().is_some_and(|entry| entry.hold == Hold::Leased);
        if !(running && held.as_ref().is_some_and(|entry| entry.mac == peer.mac)) {
            if running {
                // The holder is gone (it did not answer), and the same client identifier is back.
                self.free(now, index, address);
            }
            self.free_others(now, index, &peer, address);
            let leased_before = held.is_some_and(|entry| entry.leased_before && entry.mac == peer.mac);
            let (mac, client_id, until) = (peer.mac, peer.client_id, now.at + OFFER_HOLD);
            let entry = Entry { mac, client_id, name: None, hold: Hold::Offered, until, leased_before };
            self.networks[index].table.put(address, entry);
        }
        self.send_lease(index, arrived_on, &message, MessageType::Offer, address, None);
    }

    pub(super) fn request(
        &mut self,
        now: Now,
        index: usize,
        arrived_on: usize,
        message: &Message,
        peer: &Peer,
    ) {
        let requested = message.options.address(code::REQUESTED_ADDRESS).filter(|a| !a.is_unspecified());
        let ciaddr = Some(message.ciaddr).filter(|address| !address.is_unspecified());
        let server_id = message.options.address(code::SERVER_ID);
        let selecting = server_id.is_some();
        if server_id.is_some_and(|server| server != self.networks[index].config.address.addr()) {
            return self.withdraw_offer(index, peer);
        }
        // A renewing client fills ciaddr; some also send option 50, which then says the same.
        let asked = if selecting { requested.or(ciaddr) } else { ciaddr.or(requested) };
        let Some(address) = asked else { return };
        match self.networks[index].verdict(peer, address) {
            Verdict::Grant => self.grant(now, index, arrived_on, message, peer, address),
            // Our offer, or a lease that a restart without disk made us forget: the client is sure of it.
            Verdict::Unknown if selecting || ciaddr.is_some() => {
                self.grant(now, index, arrived_on, message, peer, address);
            }
            // INIT-REBOOT of a client we know nothing of: silence (RFC 2131 §4.3.2).
            Verdict::Unknown => {}
            Verdict::Refuse => self.send_nak(index, arrived_on, message),
        }
    }

    pub(super) fn decline(&mut self, now: Now, index: usize, message: &Message, peer: &Peer) {
        let network = &self.networks[index];
        let ours =
            message.options.address(code::SERVER_ID).is_none_or(|s| s == network.config.address.addr());
        let Some(address) = message.options.address(code::REQUESTED_ADDRESS).filter(|_| ours) else { return };
        let held = |e: &Entry| e.mac == peer.mac && matches!(e.hold, Hold::Leased | Hold::Offered);
        if !network.table.get(address).is_some_and(held) {
            return;
        }
        if network.decliner.is_disbelieved(peer.mac) {
            return self.expire(now, index, address);
        }
        let too_many = self.networks[index].decliner.claim(now.at, peer.mac, address);
        self.quarantine(now, index, address, peer.mac);
        for declined in too_many.into_iter().flatten() {
            self.acquit(now, index, declined, peer.mac);
        }
    }

    pub(super) fn release(&mut self, now: Now, index: usize, message: &Message, peer: &Peer) {
        let address = message.ciaddr;
        let held = |e: &Entry| e.mac == peer.mac && e.hold == Hold::Leased;
        if self.networks[index].table.get(address).is_some_and(held) {
            self.free(now, index, address);
        }
    }

    /// The end of an offer, a lease or a quarantine.
    pub(super) fn expire(&mut self, now: Now, index: usize, address: Ipv4Addr) {
        match self.networks[index].table.get(address).map(|entry| (entry.hold, entry.leased_before)) {
            Some((Hold::Offered, true)) | Some((Hold::Leased | Hold::Declined, _)) => {
                self.free(now, index, address)
            }
            _ => drop(self.networks[index].table.remove(address)),
        }
    }

    /// Nobody may have the address for a while.
    pub(super) fn quarantine(&mut self, now: Now, index: usize, address: Ipv4Addr, mac: [u8; 6]) {
        self.take_name(index, address);
        let until = now.at + DECLINE_HOLD;
        let entry = Entry {
            mac,
            client_id: Vec::new(),
            name: None,
            hold: Hold::Declined,
            until,
            leased_before: false,
        };
        self.store(now, index, address, entry);
    }

    /// The one who claimed a quarantined address is not believed any more.
    pub(super) fn acquit(&mut self, now: Now, index: usize, address: Ipv4Addr, mac: [u8; 6]) {
        let resting = |entry: &Entry| entry.hold == Hold::Declined && entry.mac == mac;
        if self.networks[index].table.get(address).is_some_and(resting) {
            self.expire(now, index, address);
        }
    }

    /// The server chosen is another: our offer need not be kept.
    fn withdraw_offer(&mut self, index: usize, peer: &Peer) {
        let table = &mut self.networks[index].table;
        let offers = table.all_by_mac(peer.mac).filter(|(_, entry)| entry.hold == Hold::Offered);
        for (address, entry) in offers.map(|(a, entry)| (a, entry.clone())).collect::<Vec<_>>() {
            table.remove(address);
            if entry.leased_before {
                table.put(address, Entry { hold: Hold::Free, until: entry.until - OFFER_HOLD, ..entry });
            }
        }
    }

    fn grant(
        &mut self,
        now: Now,
        index: usize,
        arrived_on: usize,
        message: &Message,
        peer: &Peer,
        address: Ipv4Addr,
    ) {
        self.free_others(now, index, peer, address);
        // Whoever waited for a probe of this address must ask again.
        self.networks[index].take_pending(address);
        let old = self.networks[index]
            .table
            .get(address)
            .filter(|e| e.mac == peer.mac)
            .and_then(|e| e.name.clone());
        let wanted = name::wanted(message);
        let name = self.claim_name(index, address, peer.mac, wanted.as_deref(), old.as_deref());
        let lease_time = Duration::from_secs(u64::from(self.networks[index].config.lease_time_s));
        let entry = Entry {
            mac: peer.mac,
            client_id: peer.client_id.clone(),
            name: name.clone(),
            hold: Hold::Leased,
            until: now.at + lease_time,
            leased_before: true,
        };
        let reserved = self.networks[index].is_reservation(address, peer.mac);
        self.store(now, index, address, entry);
        if old != name && !reserved {
            self.announce(index, address, old, false);
            self.announce(index, address, name.clone(), true);
        }
        self.send_lease(index, arrived_on, message, MessageType::Ack, address, name.as_deref());
    }

    /// One client has one address in a network: what else it holds becomes free.
    fn free_others(&mut self, now: Now, index: usize, peer: &Peer, address: Ipv4Addr) {
        let all = self.networks[index].table.all_by_mac(peer.mac);
        let others: Vec<_> =
            all.filter(|(other, _)| *other != address).map(|(a, entry)| (a, entry.hold)).collect();
        for (other, hold) in others {
            match hold {
                Hold::Leased => self.free(now, index, other),
                Hold::Offered => self.expire(now, index, other),
                Hold::Free | Hold::Declined => {}
            }
        }
    }

    fn free(&mut self, now: Now, index: usize, address: Ipv4Addr) {
        let Some(entry) = self.networks[index].table.get(address).cloned() else { return };
        self.take_name(index, address);
        let entry = Entry { name: None, hold: Hold::Free, until: now.at, ..entry };
        self.store(now, index, address, entry);
    }

    /// Changes the table and has the change made durable.
    fn store(&mut self, now: Now, index: usize, address: Ipv4Addr, entry: Entry) {
        let network = &mut self.networks[index];
        let record = network.record(now, address, &entry);
        network.table.put(address, entry);
        self.actions.extend(record.map(Action::Persist));
    }

    /// Takes the name of an address out of use.
    fn take_name(&mut self, index: usize, address: Ipv4Addr) {
        let network = &self.networks[index];
        let Some(entry) = network.table.get(address) else { return };
        let reserved = network.is_reservation(address, entry.mac);
        let Some(name) = entry.name.clone().filter(|_| !reserved) else { return };
        self.names.release(&name, address);
        self.announce(index, address, Some(name), false);
    }

    fn announce(&mut self, index: usize, address: Ipv4Addr, name: Option<String>, set: bool) {
        let Some(name) = name else { return };
        let network = self.networks[index].config.name.clone();
        self.actions.push_back(Action::Name(NameChange { name, address, network, set }));
    }

    /// The name for a lease: the reservation's, or the wanted one made unique; without a wish the old one.
    pub(super) fn claim_name(
        &mut self,
        index: usize,
        address: Ipv4Addr,
        mac: [u8; 6],
        wanted: Option<&str>,
        old: Option<&str>,
    ) -> Option<String> {
        let reservations = &self.networks[index].config.reservations;
        if let Some(reservation) = reservations.iter().find(|r| r.mac == mac && r.address == address) {
            return Some(reservation.name.clone());
        }
        self.names.claim(address, wanted, old)
    }
}
