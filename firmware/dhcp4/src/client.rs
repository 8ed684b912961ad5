//! The DHCPv4 client machine (RFC 2131 §4.4), without sockets and clocks.
//!
//! Drive it like this: feed link changes, received messages and the passing of time
//! ([`Client::link_up`], [`Client::handle_message`], [`Client::handle_timeout`] at
//! [`Client::poll_timeout`]); after each, drain [`Client::poll_transmit`] and [`Client::poll_event`].
//! The lease a [`Event::Configured`] carries is what to store for INIT-REBOOT ([`Client::restore`]).

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::time::Instant;
use crate::wire::{Message, MessageType, Op, code};

mod lease;
mod types;

pub use lease::{Lease, Route};
pub use types::{ClientConfig, Destination, Event, State, Transmit};

/// First retransmission interval; it doubles up to [`BACKOFF_MAX_S`] (RFC 2131 §4.1).
const BACKOFF_FIRST_S: u64 = 4;
const BACKOFF_MAX_S: u64 = 64;
/// Each retransmission is moved by up to this much either way (RFC 2131 §4.1).
const JITTER_MS: u64 = 1000;
/// Retransmission interval in Renewing and Rebinding is never shorter (RFC 2131 §4.4.5).
const RENEW_INTERVAL_MIN: Duration = Duration::from_secs(60);
/// REQUESTs sent after an OFFER before starting over: 4 + 8 + 16 + 32 s, "a total delay of 60 seconds" (RFC 2131 §3.1.5).
const REQUEST_TRIES: u32 = 4;
/// REQUESTs sent in Rebooting before starting over: 12 s. A provider that has forgotten us is silent, and
/// the office should not wait a minute for that.
const REBOOT_TRIES: u32 = 2;
/// Wait after a DECLINE (RFC 2131 §3.1.5).
const DECLINE_WAIT: Duration = Duration::from_secs(10);
/// Largest wait after repeated NAKs; the first restart is immediate.
const NAK_WAIT_MAX_S: u64 = 64;
/// What we ask for. 121 overrides 3 (RFC 3442); 249 is its older twin of some provider routers.
const REQUESTED_OPTIONS: [u8; 12] = [
    code::SUBNET_MASK,
    code::CLASSLESS_ROUTES,
    code::ROUTER,
    code::DOMAIN_NAME_SERVER,
    code::DOMAIN_NAME,
    code::INTERFACE_MTU,
    code::BROADCAST_ADDRESS,
    code::NTP_SERVERS,
    code::LEASE_TIME,
    code::RENEWAL_TIME,
    code::REBINDING_TIME,
    code::MS_CLASSLESS_ROUTES,
];

/// A lease on the monotonic clock.
#[derive(Debug, Clone)]
struct Held {
    lease: Lease,
    /// `None`: for ever.
    times: Option<Times>,
    /// Whether the caller was told to use it.
    configured: bool,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    t1_at: Instant,
    t2_at: Instant,
    expires_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
}

/// The client of one interface.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    random: u64,
    state: State,
    link: bool,
    xid: u32,
    /// Start of the present attempt, for `secs`.
    began_at: Instant,
    /// When the last REQUEST left: lease times count from there (RFC 2131 §4.4.1).
    sent_at: Instant,
    tries: u32,
    naks: u32,
    offer: Option<Offer>,
    held: Option<Held>,
    /// Next retransmission or change of state.
    timer: Option<Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Client {
    /// A client whose link is down. `seed` should differ from start to start.
    #[must_use]
    pub fn new(config: ClientConfig, seed: u64) -> Self {
        Self {
            config,
            random: seed,
            state: State::Init,
            link: false,
            xid: 0,
            began_at: Instant::default(),
            sent_at: Instant::default(),
            tries: 0,
            naks: 0,
            offer: None,
            held: None,
            timer: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Present state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The lease in use, if any.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.held.as_ref().filter(|held| held.configured).map(|held| &held.lease)
    }

    /// Time left of the lease in use; `None` without one or when it is for ever.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let held = self.held.as_ref().filter(|held| held.configured)?;
        held.times.map(|times| times.expires_at.since(now))
    }

    /// Takes over a lease stored before a restart, of which the caller knows that `remaining` is left
    /// (by the wall clock). The next [`Client::link_up`] asks for it by INIT-REBOOT. Call before `link_up`.
    pub fn restore(&mut self, now: Instant, lease: Lease, remaining: Duration) {
        if remaining.is_zero() || self.held.is_some() {
            return;
        }
        let times = (!lease.is_infinite()).then(|| Times {
            t1_at: now,
            t2_at: now,
            expires_at: now + remaining.min(Duration::from_secs(u64::from(lease.lease_time_s))),
        });
        self.held = Some(Held { lease, times, configured: false });
    }

    /// The link has a carrier: ask for an address (the old one, if its lease still runs).
    pub fn link_up(&mut self, now: Instant) {
        if self.link {
            return;
        }
        self.link = true;
        self.naks = 0;
        match self.held {
            Some(_) => self.reboot(now),
            None => self.discover(now),
        }
    }

    /// The carrier is gone. The lease stays in use until it expires: a pulled cable is no reason to drop
    /// connections; when the link returns, the lease is confirmed by INIT-REBOOT.
    pub fn link_down(&mut self) {
        self.link = false;
        self.state = if self.held.is_some() { State::InitReboot } else { State::Init };
        self.offer = None;
        self.timer = None;
        self.transmits.clear();
    }

    /// Makes sure of the lease by INIT-REBOOT, as after a cable was out; without a lease nothing changes.
    pub fn ask_again(&mut self, now: Instant) {
        if self.link && self.held.is_some() {
            self.link_down();
            self.link_up(now);
        }
    }

    /// Somebody else answers for our address (RFC 5227 probe by the caller): DECLINE it and start over.
    pub fn handle_conflict(&mut self, now: Instant) {
        let Some(held) = self.held.clone() else { return };
        self.new_xid();
        let mut message = self.message(now, MessageType::Decline);
        message.options.set_address(code::REQUESTED_ADDRESS, held.lease.address.addr());
        message.options.set_address(code::SERVER_ID, held.lease.server_id);
        self.drop_lease();
        self.broadcast(message, Ipv4Addr::UNSPECIFIED);
        self.wait(now, DECLINE_WAIT);
    }

    /// Gives the lease back (orderly end of the interface's use) and stops.
    pub fn release(&mut self, now: Instant) {
        if let Some(held) = self.held.clone().filter(|held| held.configured) {
            self.new_xid();
            let mut message = self.message(now, MessageType::Release);
            let source = held.lease.address.addr();
            message.ciaddr = source;
            message.options.set_address(code::SERVER_ID, held.lease.server_id);
            let destination = Destination::Unicast { source, server: held.lease.server_id };
            self.transmits.push_back(Transmit { message, destination });
        }
        self.drop_lease();
        self.state = State::Init;
        self.link = false;
        self.timer = None;
    }

    /// A message from the network.
    pub fn handle_message(&mut self, now: Instant, message: &Message) {
        let ours =
            message.op == Op::Reply && message.xid == self.xid && message.mac() == Some(self.config.mac);
        if !self.link || !ours {
            return;
        }
        match (self.state, message.message_type()) {
            (State::Selecting, Some(MessageType::Offer)) => self.accept_offer(now, message),
            (state, Some(MessageType::Ack)) if asks(state) => self.accept_ack(now, message),
            (state, Some(MessageType::Nak)) if asks(state) => self.accept_nak(now, message),
            _ => {}
        }
    }

    /// When [`Client::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.held.as_ref().and_then(|held| held.times).map(|times| times.expires_at);
        self.timer.into_iter().chain(expiry).min()
    }

    /// Time has passed. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let expiry = self.held.as_ref().and_then(|held| held.times).map(|times| times.expires_at);
        if expiry.is_some_and(|at| now >= at) {
            return self.expire(now);
        }
        if self.timer.is_none_or(|at| now < at) {
            return;
        }
        self.timer = None;
        match self.state {
            State::Init => self.discover(now),
            State::InitReboot => self.reboot(now),
            State::Selecting => self.send_discover(now),
            State::Requesting if self.tries < REQUEST_TRIES => self.send_request(now),
            State::Rebooting if self.tries < REBOOT_TRIES => self.send_reboot(now),
            State::Requesting | State::Rebooting => self.discover(now),
            State::Bound | State::Renewing | State::Rebinding => self.extend(now),
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next change to make real.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    // Deviation: RFC 2131 §4.4.1 wants a random wait of 1 to 10 s before the first DISCOVER, against many
    // hosts powering on at once. This is one router on a provider's line; the office waits for it.
    fn discover(&mut self, now: Instant) {
        self.state = State::Selecting;
        self.new_xid();
        self.began_at = now;
        self.tries = 0;
        self.offer = None;
        self.send_discover(now);
    }

    fn send_discover(&mut self, now: Instant) {
        let mut message = self.message(now, MessageType::Discover);
        if let Some(held) = &self.held {
            message.options.set_address(code::REQUESTED_ADDRESS, held.lease.address.addr());
        }
        self.broadcast(message, Ipv4Addr::UNSPECIFIED);
        self.back_off(now);
    }

    fn accept_offer(&mut self, now: Instant, message: &Message) {
        let Some(server) = message.options.address(code::SERVER_ID) else { return };
        if !lease::is_host(message.yiaddr) {
            return;
        }
        self.offer = Some(Offer { address: message.yiaddr, server });
        self.state = State::Requesting;
        self.tries = 0;
        self.send_request(now);
    }

    fn send_request(&mut self, now: Instant) {
        let Some(offer) = self.offer else { return self.discover(now) };
        let mut message = self.message(now, MessageType::Request);
        message.options.set_address(code::REQUESTED_ADDRESS, offer.address);
        message.options.set_address(code::SERVER_ID, offer.server);
        self.sent_at = now;
        self.broadcast(message, Ipv4Addr::UNSPECIFIED);
        self.back_off(now);
    }

    fn reboot(&mut self, now: Instant) {
        self.state = State::Rebooting;
        self.new_xid();
        self.began_at = now;
        self.tries = 0;
        self.send_reboot(now);
    }

    fn send_reboot(&mut self, now: Instant) {
        let Some(held) = &self.held else { return self.discover(now) };
        let address = held.lease.address.addr();
        let mut message = self.message(now, MessageType::Request);
        message.options.set_address(code::REQUESTED_ADDRESS, address);
        self.sent_at = now;
        self.broadcast(message, Ipv4Addr::UNSPECIFIED);
        self.back_off(now);
    }

    /// T1, T2, or a retransmission between them and expiry.
    fn extend(&mut self, now: Instant) {
        let Some((lease, times)) = self.held.as_ref().and_then(|h| Some((h.lease.clone(), h.times?))) else {
            return;
        };
        let next = if now >= times.t2_at { State::Rebinding } else { State::Renewing };
        if next != self.state {
            self.state = next;
            self.new_xid();
            self.began_at = now;
        }
        let source = lease.address.addr();
        let mut message = self.message(now, MessageType::Request);
        message.ciaddr = source;
        self.sent_at = now;
        let deadline = if next == State::Rebinding {
            self.broadcast(message, source);
            times.expires_at
        } else {
            let destination = Destination::Unicast { source, server: lease.server_id };
            self.transmits.push_back(Transmit { message, destination });
            times.t2_at
        };
        let pause = (deadline.since(now) / 2).max(RENEW_INTERVAL_MIN);
        self.timer = Some((now + pause).min(deadline));
    }

    fn accept_ack(&mut self, now: Instant, message: &Message) {
        let expected = match self.state {
            State::Requesting => self.offer.map(|offer| offer.address),
            _ => self.held.as_ref().map(|held| held.lease.address.addr()),
        };
        let chosen = self.offer.map(|offer| offer.server);
        if expected != Some(message.yiaddr) || !self.chosen_server_sent(message) {
            return;
        }
        let fallback = chosen.or_else(|| self.held.as_ref().map(|held| held.lease.server_id));
        let Some(lease) = Lease::from_ack(message, fallback) else { return };
        self.bind(now, lease);
    }

    fn bind(&mut self, now: Instant, lease: Lease) {
        let after = |seconds: u32| self.sent_at + Duration::from_secs(u64::from(seconds));
        let times = (!lease.is_infinite()).then(|| Times {
            t1_at: after(lease.t1_s),
            t2_at: after(lease.t2_s),
            expires_at: after(lease.lease_time_s),
        });
        if times.is_some_and(|times| now >= times.expires_at) {
            return;
        }
        self.timer = times.map(|times| times.t1_at);
        self.state = State::Bound;
        self.offer = None;
        self.naks = 0;
        self.held = Some(Held { lease: lease.clone(), times, configured: true });
        self.events.push_back(Event::Configured(lease));
    }

    fn accept_nak(&mut self, now: Instant, message: &Message) {
        if !self.chosen_server_sent(message) {
            return;
        }
        self.drop_lease();
        self.naks += 1;
        if self.naks == 1 {
            return self.discover(now);
        }
        // A server that NAKs what it offers must not be asked as fast as the line allows.
        let seconds = (1u64 << self.naks.min(6)).min(NAK_WAIT_MAX_S);
        self.wait(now, Duration::from_secs(seconds));
    }

    /// After an OFFER only its server decides; a server that leaves out option 54 gets the benefit of the doubt.
    fn chosen_server_sent(&self, message: &Message) -> bool {
        match (self.offer, message.options.address(code::SERVER_ID)) {
            (Some(offer), Some(server)) => offer.server == server,
            _ => true,
        }
    }

    fn expire(&mut self, now: Instant) {
        self.drop_lease();
        match (self.link, self.state) {
            (false, _) => self.state = State::Init,
            (true, State::Init | State::Selecting | State::Requesting) => {}
            (true, _) => self.discover(now),
        }
    }

    fn drop_lease(&mut self) {
        if self.held.take().is_some() {
            self.events.push_back(Event::Deconfigured);
        }
        self.offer = None;
    }

    fn wait(&mut self, now: Instant, pause: Duration) {
        self.state = State::Init;
        self.timer = Some(now + pause);
    }

    fn back_off(&mut self, now: Instant) {
        let seconds = (BACKOFF_FIRST_S << self.tries.min(4)).min(BACKOFF_MAX_S);
        self.tries = self.tries.saturating_add(1);
        let jitter = Duration::from_millis(self.next_random() % (2 * JITTER_MS + 1));
        self.timer = Some(now + Duration::from_secs(seconds) + jitter - Duration::from_millis(JITTER_MS));
    }

    fn message(&self, now: Instant, message_type: MessageType) -> Message {
        let mut message = Message::request(message_type, self.xid, self.config.mac);
        message.secs = u16::try_from(now.since(self.began_at).as_secs()).unwrap_or(u16::MAX);
        if !self.config.client_id.is_empty() {
            message.options.set(code::CLIENT_ID, self.config.client_id.clone());
        }
        if matches!(message_type, MessageType::Discover | MessageType::Request) {
            message.options.set(code::PARAMETER_REQUEST_LIST, REQUESTED_OPTIONS.to_vec());
            message.options.set(code::MAXIMUM_MESSAGE_SIZE, 1472u16.to_be_bytes().to_vec());
            if let Some(name) = &self.config.host_name {
                message.options.set(code::HOST_NAME, name.clone().into_bytes());
            }
        }
        message
    }

    fn broadcast(&mut self, message: Message, source: Ipv4Addr) {
        self.transmits.push_back(Transmit { message, destination: Destination::Broadcast { source } });
    }

    fn new_xid(&mut self) {
        let bytes = self.next_random().to_be_bytes();
        self.xid = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }

    /// SplitMix64: small, seedable, and good enough for transaction ids and jitter.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// States in which a REQUEST is out.
fn asks(state: State) -> bool {
    matches!(state, State::Requesting | State::Rebooting | State::Renewing | State::Rebinding)
}

#[cfg(test)]
mod tests;
