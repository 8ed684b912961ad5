//! The DHCPv4 server machine (RFC 2131 §4.3) for several networks, without sockets and clocks.
//!
//! Feed messages, probe results and the passing of time; drain [`Server::poll_action`] after each. The
//! actions are ordered: a [`Action::Persist`] must be durable before the [`Action::Name`] after it is
//! announced, and that before the [`Action::Send`] after it leaves. So a client never uses an address that
//! a power cut would make us forget, and its name resolves before it does.
//!
//! Memory is bounded: entries by the pools (and [`MAX_ENTRIES`]), probes by [`MAX_PROBES`].

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::lease::{Left, Record, RecordState};
use crate::time::Instant;
use crate::wire::{Message, MessageType, Op, code};

mod allocate;
mod claimant;
mod name;
mod network;
mod reply;
mod request;
mod runs;
mod table;

pub use name::sanitise;
use network::{Network, Pending};
use table::{Entry, Hold, Table};

/// An offer is kept this long; clients answer within seconds, and collect offers for at most 10.
const OFFER_HOLD: Duration = Duration::from_secs(60);
/// A declined address rests this long: long enough for the foreign host to show up in the status, short
/// enough that a small pool recovers.
const DECLINE_HOLD: Duration = Duration::from_secs(600);
/// Wait for an answer to an ARP probe. Hosts on a LAN answer within milliseconds, sleeping phones do not
/// answer at all, and the client's first retransmission comes after 3 s or more.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// A full pool is told this long: clients without an address ask about once a minute.
const EXHAUSTED_HOLD: Duration = Duration::from_secs(120);
/// Probes under way at once; more DISCOVERs wait for their own retransmission.
pub const MAX_PROBES: usize = 4096;
/// Longest client identifier: type, IAID and the longest DUID (RFC 4361 §6.1, RFC 8415 §11.1). Longer ones would
/// only serve to fill our memory; their clients are known by their hardware address.
const MAX_CLIENT_ID: usize = 1 + 4 + 130;
/// Addresses remembered per network.
pub const MAX_ENTRIES: usize = 65_536;

/// One network the server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name in the site file.
    pub name: String,
    /// The box's own address there: router, DNS server and server identifier.
    pub address: Ipv4Net,
    /// Inclusive ranges for dynamic leases.
    pub pools: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Lease time in seconds.
    pub lease_time_s: u32,
    /// Option 6.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Option 42.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Fixed addresses by MAC.
    pub reservations: Vec<Reservation>,
}

/// One fixed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Host name (one label).
    pub name: String,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Address.
    pub address: Ipv4Addr,
}

/// What the server serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerConfig {
    /// The office's DNS domain (option 15).
    pub domain: String,
    /// Names no client may take: the box's own and those fixed in the site file. Names of reservations
    /// are added by the server itself.
    pub fixed_names: Vec<String>,
    /// The networks.
    pub networks: Vec<NetworkConfig>,
}

/// The two clocks: the monotonic one rules, the wall clock is only written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic.
    pub at: Instant,
    /// Seconds since 1970.
    pub wall_s: u64,
}

/// Something the daemon must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send an ARP probe for `address`; report an answer with [`Server::probe_answered`] within
    /// [`PROBE_TIMEOUT`]. Silence needs no report.
    Probe {
        /// Index of the network in the configuration.
        network: usize,
        /// Address to probe.
        address: Ipv4Addr,
    },
    /// Make this record durable before doing anything that follows.
    Persist(Record),
    /// Announce a change of names before doing anything that follows.
    Name(NameChange),
    /// Send a message.
    Send(Reply),
}

/// A change of the names of dynamic leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameChange {
    /// One label.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Network of the site file.
    pub network: String,
    /// The name is new (or moved here); otherwise it is gone.
    pub set: bool,
}

/// A message to send from port 67 of `source`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Index of the network the request came in on.
    pub network: usize,
    /// The box's address there.
    pub source: Ipv4Addr,
    /// Where to.
    pub destination: Destination,
    /// The message.
    pub message: Message,
    /// Largest payload the client takes.
    pub limit: usize,
}

/// Where a reply goes (RFC 2131 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// A relay agent, port 67.
    Relay(Ipv4Addr),
    /// A configured client, port 68, through the kernel's ARP.
    Address(Ipv4Addr),
    /// A client that has no address yet: to its hardware address directly, port 68.
    Hardware {
        /// Destination MAC.
        mac: [u8; 6],
        /// Destination IP: the address on offer.
        address: Ipv4Addr,
    },
    /// 255.255.255.255, port 68.
    Broadcast,
}

/// A lease as shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// Network of the site file.
    pub network: String,
    /// The address.
    pub address: Ipv4Addr,
    /// Holder.
    pub mac: [u8; 6],
    /// Name in DNS.
    pub name: Option<String>,
    /// Whether a reservation made it.
    pub reserved: bool,
    /// Whether it is a declined address.
    pub declined: bool,
    /// Seconds left.
    pub remaining_s: u64,
}

/// A client as it shows itself in one message.
#[derive(Debug, Clone)]
struct Peer {
    mac: [u8; 6],
    /// Option 61; empty when absent.
    client_id: Vec<u8>,
}

/// The server of all internal networks.
#[derive(Debug, Default)]
pub struct Server {
    domain: String,
    names: name::Names,
    networks: Vec<Network>,
    surroundings: Surroundings,
    actions: VecDeque<Action>,
}

/// What the server must know of the cables around it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The box's own hardware addresses. With two of its ports in one switch its own DHCP client is heard here; it
    /// is never served.
    pub own_macs: Vec<[u8; 6]>,
    /// Networks whose wire also is somebody else's: no new client is answered there, as it may belong to the
    /// others. Those that have a lease of ours keep it.
    pub exposed: Vec<String>,
}

impl Server {
    /// A server with no leases.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        let mut server = Self::default();
        server.configure(Now { at: Instant::default(), wall_s: 0 }, config);
        server
    }

    /// Puts another configuration in force; leases of networks that keep name and subnet stay.
    pub fn configure(&mut self, now: Now, config: ServerConfig) {
        self.domain = config.domain;
        let reserved = config.networks.iter().flat_map(|n| n.reservations.iter().map(|r| r.name.clone()));
        self.names.fix(config.fixed_names.into_iter().chain(reserved.collect::<Vec<_>>()));
        let mut old = std::mem::take(&mut self.networks);
        for config in config.networks {
            let same = |n: &Network| {
                n.config.name == config.name && n.config.address.trunc() == config.address.trunc()
            };
            let table = match old.iter().position(same) {
                Some(index) => old.swap_remove(index).table,
                None => Table::default(),
            };
            self.networks.push(Network::new(config, table));
        }
        for network in &old {
            self.forget_network(now, network);
        }
        let names = self.names();
        self.names.hold(names.into_iter().map(|change| (change.name, change.address)));
    }

    /// Says which cables are where.
    pub fn set_surroundings(&mut self, surroundings: Surroundings) {
        self.surroundings = surroundings;
    }

    /// Takes over what a journal held, e.g. when the disk appears. What has been leased in the meantime wins.
    pub fn adopt(&mut self, now: Now, records: Vec<Record>) {
        for record in records {
            let Some(index) = self.networks.iter().position(|n| n.config.name == record.network) else {
                continue;
            };
            if self.networks[index].may_adopt(&record) {
                self.adopt_one(now, index, record);
            }
        }
    }

    /// Everything worth keeping, for a fresh journal.
    #[must_use]
    pub fn records(&self, now: Now) -> Vec<Record> {
        let all = self
            .networks
            .iter()
            .flat_map(|n| n.table.iter().map(move |(address, entry)| (n, address, entry)));
        all.filter_map(|(network, address, entry)| network.record(now, address, entry)).collect()
    }

    /// How many addresses something is known of; [`Server::records`] has no more.
    #[must_use]
    pub fn known(&self) -> usize {
        self.networks.iter().map(|network| network.table.len()).sum()
    }

    /// Names of all dynamic leases, for a fresh connection to the name server.
    #[must_use]
    pub fn names(&self) -> Vec<NameChange> {
        let mut names = Vec::new();
        for network in &self.networks {
            for (address, entry) in network.table.iter() {
                let dynamic = entry.hold == Hold::Leased && !network.is_reservation(address, entry.mac);
                if let Some(name) = entry.name.clone().filter(|_| dynamic) {
                    names.push(NameChange { name, address, network: network.config.name.clone(), set: true });
                }
            }
        }
        names
    }

    /// Leases and declined addresses, by network and address.
    #[must_use]
    pub fn leases(&self, now: Instant) -> Vec<LeaseView> {
        let all = self
            .networks
            .iter()
            .flat_map(|n| n.table.iter().map(move |(address, entry)| (n, address, entry)));
        let held = all.filter(|(_, _, entry)| matches!(entry.hold, Hold::Leased | Hold::Declined));
        held.map(|(network, address, entry)| LeaseView {
            network: network.config.name.clone(),
            address,
            mac: entry.mac,
            name: entry.name.clone(),
            reserved: network.is_reservation(address, entry.mac),
            declined: entry.hold == Hold::Declined,
            remaining_s: entry.until.since(now).as_secs(),
        })
        .collect()
    }

    /// What an administrator should know, in words.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let full = self.networks.iter().filter(|network| network.exhausted_until.is_some());
        // No counts: every new text is a line on the serial console.
        let full = full.map(|network| {
            let name = &network.config.name;
            format!("network {name}: no free address for a client; the pools are too small")
        });
        let liars = self.networks.iter().flat_map(|n| {
            let name = &n.config.name;
            [n.claimant.problem(name, "answers ARP for"), n.decliner.problem(name, "declines")]
        });
        let liars = liars.flatten();
        full.chain(liars).collect()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Server::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.networks.iter().filter_map(Network::next_deadline).min()
    }

    /// Time has passed. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        for index in 0..self.networks.len() {
            while let Some(address) = self.networks[index].table.next_expired(now.at) {
                self.expire(now, index, address);
            }
            let network = &mut self.networks[index];
            network.claimant.handle_timeout(now.at);
            network.decliner.handle_timeout(now.at);
            network.exhausted_until = network.exhausted_until.filter(|until| now.at < *until);
            while let Some(pending) = self.networks[index].take_finished_probe(now.at) {
                self.networks[index].claimant.handle_silence();
                if !self.is_exposed(index) {
                    self.offer(now, index, pending);
                }
            }
        }
    }

    /// Somebody with hardware address `mac` answered a probe (or simply uses the address).
    pub fn probe_answered(&mut self, now: Now, network: usize, address: Ipv4Addr, mac: [u8; 6]) {
        let Some(state) = self.networks.get_mut(network) else { return };
        let probed_for_another = state.pending.get(&address).is_some_and(|pending| pending.peer.mac != mac);
        if !probed_for_another || state.claimant.is_disbelieved(mac) {
            return;
        }
        let Some(pending) = state.take_pending(address) else { return };
        // The known holder of a running lease answers: two clients with one client identifier (cloned
        // machines). The address is rightly in use; the other one gets a different one.
        let rightful = state.table.get(address).is_some_and(|e| e.hold == Hold::Leased && e.mac == mac);
        if !rightful {
            let too_many = state.claimant.claim(now.at, mac, address);
            self.quarantine(now, network, address, mac);
            for claimed in too_many.into_iter().flatten() {
                self.acquit(now, network, claimed, mac);
            }
        }
        self.discover(now, network, pending.arrived_on, &pending.message, &pending.peer, Some(address));
    }

    /// A message that arrived on the interface of network `arrived_on`.
    pub fn handle_message(&mut self, now: Now, arrived_on: usize, message: &Message) {
        let Some(index) = self.network_of(arrived_on, message) else { return };
        let Some(peer) = Peer::of(message) else { return };
        if message.op != Op::Request || self.surroundings.own_macs.contains(&peer.mac) {
            return;
        }
        if self.is_exposed(index) && !self.extends(index, message, &peer) {
            return;
        }
        // No message type: plain BOOTP, which has no leases. Not served.
        match message.message_type() {
            Some(MessageType::Discover) => self.discover(now, index, arrived_on, message, &peer, None),
            Some(MessageType::Request) => self.request(now, index, arrived_on, message, &peer),
            Some(MessageType::Decline) => self.decline(now, index, message, &peer),
            Some(MessageType::Release) => self.release(now, index, message, &peer),
            Some(MessageType::Inform) => self.inform(index, arrived_on, message),
            _ => {}
        }
    }

    fn is_exposed(&self, index: usize) -> bool {
        self.surroundings.exposed.contains(&self.networks[index].config.name)
    }

    /// Whether a message only concerns a lease of ours that runs: RENEWING, REBINDING, and the end of it.
    fn extends(&self, index: usize, message: &Message, peer: &Peer) -> bool {
        let held = |entry: &Entry| entry.mac == peer.mac && entry.hold == Hold::Leased;
        let known = self.networks[index].table.get(message.ciaddr).is_some_and(held);
        let others = message.options.address(code::SERVER_ID).is_some();
        match message.message_type() {
            Some(MessageType::Request) => known && !others,
            Some(MessageType::Release) => known,
            Some(MessageType::Decline) => true,
            _ => false,
        }
    }

    /// The network a message is about: that of the relay agent (or its link selection, RFC 3527), if it is
    /// one of ours, else that of the interface.
    fn network_of(&self, arrived_on: usize, message: &Message) -> Option<usize> {
        if message.giaddr.is_unspecified() {
            return (arrived_on < self.networks.len()).then_some(arrived_on);
        }
        let link = reply::link_selection(message).unwrap_or(message.giaddr);
        let contains = |address| move |n: &Network| n.config.address.contains(address);
        self.networks.iter().position(contains(&message.giaddr))?;
        self.networks.iter().position(contains(&link))
    }

    fn adopt_one(&mut self, now: Now, index: usize, record: Record) {
        let address = record.address;
        let left = record.left(now.wall_s);
        let (hold, until) = match (record.state, left) {
            (RecordState::Leased, Left::Seconds(left)) => (Hold::Leased, now.at + Duration::from_secs(left)),
            (RecordState::Declined, Left::Seconds(left)) => {
                (Hold::Declined, now.at + Duration::from_secs(left))
            }
            (_, Left::OverSince(over)) => (Hold::Free, now.at - Duration::from_secs(over)),
            (RecordState::Free, Left::Seconds(_)) => (Hold::Free, now.at),
        };
        let mut entry = Entry {
            mac: record.mac,
            client_id: record.client_id,
            name: None,
            hold,
            until,
            leased_before: true,
        };
        if hold == Hold::Leased {
            entry.name = self.claim_name(index, address, entry.mac, record.name.as_deref(), None);
        }
        self.networks[index].table.put(address, entry);
    }

    /// A network is no longer served: its names go, its records are closed.
    fn forget_network(&mut self, now: Now, network: &Network) {
        for (address, entry) in network.table.iter() {
            if let Some(name) = &entry.name {
                self.names.release(name, address);
            }
            let free = Entry { hold: Hold::Free, name: None, ..entry.clone() };
            self.actions.extend(network.record(now, address, &free).map(Action::Persist));
            if let Some(name) = entry.name.clone().filter(|_| !network.is_reservation(address, entry.mac)) {
                let network = network.config.name.clone();
                self.actions.push_back(Action::Name(NameChange { name, address, network, set: false }));
            }
        }
    }
}

impl Peer {
    /// The client of a message; `None` when it has no usable Ethernet address.
    fn of(message: &Message) -> Option<Self> {
        let mac = message.mac().filter(|mac| *mac != [0; 6] && mac[0] & 1 == 0)?;
        let client_id = message.options.get(code::CLIENT_ID);
        let client_id = client_id.filter(|id| id.len() <= MAX_CLIENT_ID).unwrap_or_default();
        Some(Self { mac, client_id: client_id.to_vec() })
    }
}

#[cfg(test)]
mod tests;
