//! Messages passed on as they are: dynamic updates of a forward zone (RFC 2136), what is signed (RFC 8945), and what
//! negotiates keys for that (RFC 3645).
//!
//! A signature covers the whole message, so nothing of it changes, its id included: each goes to the zone's server over a
//! socket of its own, and what comes back goes to the client. Nothing of it is believed here, and nothing kept.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Forwarder, MAX_STRAYS};
use crate::name::Name;
use crate::response::{Transport, write_header};
use crate::traffic::{Client, Handled, Transmit};
use crate::wire::{Envelope, Rcode, UPDATE, rtype, u16_in};

/// Messages on their way at once: an office changes a few names a minute, and one over TCP may have 64 KiB.
const MAX_RELAYS: usize = 64;
/// Of one client: one PC gone wild must not keep the others from renewing their names.
const MAX_PER_CLIENT: usize = 8;
/// Whole time one may take: clients give up or repeat after 5 s, as with queries.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is on its way.
#[derive(Debug, Default)]
pub(super) struct Relays(HashMap<u64, Relay>);

#[derive(Debug)]
struct Relay {
    client: Client,
    envelope: Envelope,
    /// The forward zone, or a name in it, whose servers are meant.
    zone: Name,
    message: Box<[u8]>,
    tried: Vec<SocketAddr>,
    deadline: Instant,
    /// Datagrams that did not belong to it.
    strays: u32,
}

impl Relay {
    fn failure(&self) -> Transmit {
        let mut message = Vec::new();
        write_header(self.envelope.id, u16_in(&self.message, 2), Rcode::SERVFAIL, &mut message);
        Transmit::Answer { client: self.client, message }
    }
}

impl Relays {
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.0.values().map(|relay| relay.deadline).min()
    }

    fn has_room_for(&self, client: IpAddr) -> bool {
        let same_client = self.0.values().filter(|relay| relay.client.peer.ip() == client).count();
        self.0.len() < MAX_RELAYS && same_client < MAX_PER_CLIENT
    }
}

impl Forwarder {
    /// Passes `message` on if it is to be; `signed` when it is a query that carries a signature.
    pub(super) fn relay(
        &mut self,
        now: Instant,
        client: Client,
        message: &[u8],
        signed: bool,
        out: &mut Vec<u8>,
    ) -> Option<Handled> {
        let envelope = Envelope::read(message)?;
        let zone = self.relay_zone(&envelope, signed)?;
        if !self.relays.has_room_for(client.peer.ip()) {
            self.counters.shed += 1;
            write_header(envelope.id, u16_in(message, 2), Rcode::SERVFAIL, out);
            return Some(Handled::Answered);
        }
        let (message, deadline) = (message.into(), now + DEADLINE);
        self.pass_on(now, Relay { client, envelope, zone, message, tried: Vec::new(), deadline, strays: 0 });
        Some(Handled::Pending)
    }

    /// The name whose servers get it; `None`: it is not for passing on.
    fn relay_zone(&self, envelope: &Envelope, signed: bool) -> Option<Name> {
        let in_zone = Some(envelope.name).filter(|name| self.is_forwarded(name));
        match (envelope.opcode, envelope.rtype) {
            (UPDATE, _) => in_zone,
            // Windows calls its keys by names that are in no zone.
            (0, rtype::TKEY) => in_zone.or_else(|| self.routes.first_zone()),
            // A transfer is more than one message.
            (0, rtype::AXFR | rtype::IXFR) => None,
            (0, _) if signed => in_zone,
            _ => None,
        }
    }

    /// Sends it to the first server, in good health, that has not refused it. The health is what queries have found:
    /// how long a server takes to write says nothing about it.
    fn pass_on(&mut self, now: Instant, mut relay: Relay) {
        let Some(upstream) = self.relay_server(now, &relay) else {
            return self.transmits.push_back(relay.failure());
        };
        relay.tried.push(upstream);
        let (token, transport) = (self.number(), relay.client.transport);
        let message = relay.message.to_vec();
        self.transmits.push_back(Transmit::Ask { token, upstream, transport, message });
        self.relays.0.insert(token, relay);
    }

    fn relay_server(&mut self, now: Instant, relay: &Relay) -> Option<SocketAddr> {
        // The zone may have gone meanwhile; the general upstreams are none of its servers.
        self.routes.zone_of(&relay.zone)?;
        let server = self.routes.of(&relay.zone).choose(now, &relay.tried, 1);
        server.filter(|server| !relay.tried.contains(server))
    }

    /// Handles what came in on the socket of `token`, if that is one of a relayed message.
    pub(super) fn handle_relayed(&mut self, now: Instant, token: u64, message: &[u8]) {
        let Some(relay) = self.relays.0.get_mut(&token) else { return };
        if !relay.envelope.is_answered_by(message) {
            relay.strays += 1;
            if relay.client.transport == Transport::Tcp || relay.strays > MAX_STRAYS {
                self.relay_elsewhere(now, token);
            }
            return;
        }
        if let Some(Relay { client, .. }) = self.end_relay(token) {
            self.transmits.push_back(Transmit::Answer { client, message: message.to_vec() });
        }
    }

    /// The socket of `token` has failed: refused, unreachable, closed.
    pub(super) fn relay_elsewhere(&mut self, now: Instant, token: u64) {
        if let Some(relay) = self.end_relay(token) {
            self.pass_on(now, relay);
        }
    }

    pub(super) fn expire_relays(&mut self, now: Instant) {
        let due = self.relays.0.iter().filter(|(_, relay)| relay.deadline <= now).map(|(&token, _)| token);
        for token in due.collect::<Vec<_>>() {
            self.counters.upstream_timeouts += 1;
            let failure = self.end_relay(token).map(|relay| relay.failure());
            self.transmits.extend(failure);
        }
    }

    fn end_relay(&mut self, token: u64) -> Option<Relay> {
        let relay = self.relays.0.remove(&token)?;
        self.transmits.push_back(Transmit::Close { token });
        Some(relay)
    }
}
