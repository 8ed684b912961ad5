//! The forwarder: local zones, then the cache, then the upstreams: those of the name's forward zone, else the general
//! ones.
//!
//! A sans-IO machine. Give it queries, upstream answers and the time; take answers and messages to send
//! from [`Forwarder::poll_transmit`]. It owns every decision (what is answered locally, whom to ask, how
//! long to wait, what to keep) and no socket. Each message upstream carries its own token: the caller opens
//! one socket per token, so that every question leaves from its own random port (RFC 5452 §9.2).

mod relay;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::answer::{Answer, Asked, check_answer};
use crate::cache::{Cache, Hit, Key};
use crate::error::{AnswerError, WireError};
use crate::exchange::{Attempt, Exchange, ExchangeKey, Joined, Question, Waiter};
use crate::local;
use crate::name::Name;
use crate::policy::{Verdict, refused, verdict, write_any};
use crate::response::{
    ExtendedError, Stored, Transport, limit, write_error, write_header, write_stale, write_stored,
};
use crate::route::{ForwardZone, Routes};
use crate::traffic::{Client, Counters, Entropy, Handled, Limits, Transmit};
use crate::wire::{Query, RD, Rcode, Reject, parse_query, rtype};
use crate::zone::{ZoneConfig, Zones};
use relay::Relays;

/// Whole time a query may take: stub resolvers give up or repeat after 5 s (resolv.conf(5), `timeout`).
const DEADLINE: Duration = Duration::from_secs(5);
/// Messages sent for one question, repeats over TCP or without EDNS not counted.
const MAX_TRIES: usize = 3;
/// The same when there is an answer past its time to fall back to (RFC 8767 §5: a client should not wait longer than
/// about 1.8 s for that), and when all servers of a forward zone have been silent of late: there is nobody else.
const LAST_TRIES: usize = 1;
/// How long a question waits for the first upstream while one is expected: about what netd needs from an offer to a
/// line, and no more than the other end's silence would cost.
const UPSTREAM_WAIT: Duration = Duration::from_secs(2);
/// The part of the bounds (one in this many) that such questions may take: the office's own names need the rest.
const UPSTREAM_WAIT_PART: usize = 4;
/// Wait for an answer over TCP: handshake, question and transfer.
const TCP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an upstream's error is remembered (RFC 9520 §3.2 recommends 5 s to start with).
const FAILURE_LIFETIME: Duration = Duration::from_secs(5);
/// How long silence is remembered: the least RFC 9520 §3.2 allows, because lines come back.
const SILENCE_LIFETIME: Duration = Duration::from_secs(1);
/// How long an answer of this machine's own server is given without asking again: what has changed there is seen at once, and
/// what was known still answers while that server is away.
const LIFETIME_OF_HERE: Duration = Duration::from_secs(1);
/// Datagrams that do not belong to the question before an attempt is given up as under attack (RFC 5452 §9.3).
const MAX_STRAYS: u32 = 8;

/// The forwarder.
#[derive(Debug)]
pub struct Forwarder {
    limits: Limits,
    entropy: Entropy,
    hasher: RandomState,
    zones: Zones,
    zone_serial: u32,
    cache: Cache,
    routes: Routes,
    /// Until when general upstreams may be known at any moment.
    expected_until: Option<Instant>,
    /// Counts how often others began to be asked for the same names.
    epoch: u32,
    relays: Relays,
    exchanges: HashMap<u64, Exchange>,
    by_question: HashMap<ExchangeKey, u64>,
    by_token: HashMap<u64, u64>,
    timers: BTreeSet<(Instant, u64)>,
    per_client: HashMap<IpAddr, usize>,
    transmits: VecDeque<Transmit>,
    next_number: u64,
    counters: Counters,
}

impl Forwarder {
    /// A forwarder without upstreams.
    ///
    /// # Errors
    /// [`WireError::Name`] when the site's names are not usable in DNS.
    pub fn new(zones: ZoneConfig, limits: Limits, entropy: Entropy) -> Result<Self, WireError> {
        Ok(Self {
            limits,
            entropy,
            hasher: RandomState::new(),
            zones: Zones::new(zones, 1)?,
            zone_serial: 1,
            cache: Cache::new(limits.cache_bytes),
            routes: Routes::default(),
            expected_until: None,
            epoch: 0,
            relays: Relays::default(),
            exchanges: HashMap::new(),
            by_question: HashMap::new(),
            by_token: HashMap::new(),
            timers: BTreeSet::new(),
            per_client: HashMap::new(),
            transmits: VecDeque::new(),
            next_number: 0,
            counters: Counters::default(),
        })
    }

    /// Replaces the site's names; leases' names and the cache stay.
    ///
    /// # Errors
    /// [`WireError::Name`] when the site's names are not usable in DNS; the old ones then stay in force.
    pub fn set_zones(&mut self, config: ZoneConfig) -> Result<(), WireError> {
        let serial = self.zone_serial.wrapping_add(1);
        self.zones = Zones::new(config, serial)?.with_leases_of(&self.zones);
        self.zone_serial = serial;
        Ok(())
    }

    /// The local zones, to announce and withdraw leases' names.
    pub fn zones_mut(&mut self) -> &mut Zones {
        &mut self.zones
    }

    /// Replaces the upstreams. Questions on their way stay with the old ones until their next try; those that waited
    /// for the first are asked now.
    pub fn set_upstreams(&mut self, now: Instant, addresses: &[SocketAddr]) {
        if self.routes.set_general(addresses) {
            self.cache.forget_failures();
            self.ask_waiting(now);
        }
    }

    /// Asks what has found no upstream so far, in the order in which it came.
    fn ask_waiting(&mut self, now: Instant) {
        let waits = |(&number, exchange): (&u64, &Exchange)| exchange.tried.is_empty().then_some(number);
        let mut waiting: Vec<u64> = self.exchanges.iter().filter_map(waits).collect();
        waiting.sort_unstable();
        for number in waiting {
            if let Some(mut exchange) = self.exchanges.remove(&number) {
                self.try_next(now, number, &mut exchange);
                self.put_back(number, exchange);
            }
        }
    }

    /// Until when upstreams may be known at any moment, where there are none: the line is coming up. A question then
    /// waits for them a little instead of failing at once.
    pub fn expect_upstreams(&mut self, until: Option<Instant>) {
        self.expected_until = until;
    }

    /// Replaces the forward zones. When that changes anything, what upstreams have said is forgotten; returns whether it
    /// did.
    pub fn set_forward_zones(&mut self, zones: &[ForwardZone]) -> bool {
        let changed = self.routes.set_zones(zones);
        if changed {
            self.clear_cache();
        }
        changed
    }

    /// Forgets what upstreams have said: others, who know other names, are asked from now on. That goes for answers on
    /// their way, too: who waits for them gets them, nobody else.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// The general upstreams in use.
    pub fn upstreams(&self) -> impl Iterator<Item = SocketAddr> {
        self.routes.general().addresses()
    }

    /// Counters since start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Entries in the cache.
    #[must_use]
    pub fn cache_entries(&self) -> usize {
        self.cache.len()
    }

    /// Names in the local zones.
    #[must_use]
    pub fn local_names(&self) -> usize {
        self.zones.len()
    }

    /// When [`Forwarder::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let exchange = self.timers.first().map(|&(at, _)| at);
        exchange.into_iter().chain(self.relays.next_at()).min()
    }

    /// The next thing to do.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Handles a client's message; an answer known now is appended to `out`.
    #[inline]
    pub fn handle_query(
        &mut self,
        now: Instant,
        client: Client,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Handled {
        self.counters.queries += 1;
        let query = match parse_query(message) {
            Ok(query) => query,
            Err(reject) => return self.handle_rejected(now, client, message, reject, out),
        };
        if (query.signed || query.qtype == rtype::TKEY)
            && let Some(handled) = self.relay(now, client, message, query.signed, out)
        {
            return handled;
        }
        if let Some(rcode) = refused(&query) {
            write_error(&query, rcode, None, out);
            return Handled::Answered;
        }
        let limit = limit(&query, client.transport);
        if !self.is_forwarded(&query.qname) && local::answer(&self.zones, &query, limit, out) {
            self.counters.local += 1;
            return Handled::Answered;
        }
        if query.qtype == rtype::ANY {
            write_any(&query, limit, out);
            return Handled::Answered;
        }
        let hash = self.hasher.hash_one((query.qname.wire(), query.qtype));
        if self.answer_from_cache(now, hash, &query, limit, out) {
            self.counters.cache_hits += 1;
            return Handled::Answered;
        }
        self.forward(now, client, &query, hash, out)
    }

    /// What is no plain query: passed on, refused or dropped.
    fn handle_rejected(
        &mut self,
        now: Instant,
        client: Client,
        message: &[u8],
        reject: Reject,
        out: &mut Vec<u8>,
    ) -> Handled {
        let Reject::Header { id, flags, rcode } = reject else { return Handled::Dropped };
        if let Some(handled) = self.relay(now, client, message, false, out) {
            return handled;
        }
        write_header(id, flags, rcode, out);
        Handled::Answered
    }

    /// Whether `name` is in a forward zone, and in no zone of the office that is more specific, or the same.
    #[inline]
    fn is_forwarded(&self, name: &Name) -> bool {
        self.routes.zone_of(name).is_some_and(|apex| !self.zones.has(name, apex))
    }

    #[inline]
    fn answer_from_cache(
        &mut self,
        now: Instant,
        hash: u64,
        query: &Query<'_>,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        match self.cache.find(now, hash, Key::of(query, &query.qname)) {
            Some(Hit::Answer { stored, age_s }) => write_stored(query, stored, age_s, limit, out),
            Some(Hit::Stale(stored)) => write_stale(query, stored, limit, out),
            Some(Hit::Failure) if self.zones.is_reverse(&query.qname) => {
                local::answer(&self.zones, query, limit, out);
            }
            Some(Hit::Failure) => {
                write_error(query, Rcode::SERVFAIL, Some(ExtendedError::CachedError), out);
            }
            None => return false,
        }
        true
    }

    fn forward(
        &mut self,
        now: Instant,
        client: Client,
        query: &Query<'_>,
        hash: u64,
        out: &mut Vec<u8>,
    ) -> Handled {
        if query.flags & RD == 0 && !self.routes.is_here(&query.qname) {
            // Not asked to find out, and not known; what this machine's own server has is as good as known.
            write_error(query, Rcode::REFUSED, None, out);
            return Handled::Answered;
        }
        if self.routes.of(&query.qname).is_empty() {
            if let Some(stored) = self.cache.find_stale(now, hash, Key::of(query, &query.qname)) {
                write_stale(query, stored, limit(query, client.transport), out);
                return Handled::Answered;
            }
            if !self.may_wait(now, client) {
                write_error(query, Rcode::SERVFAIL, Some(ExtendedError::NotReady), out);
                return Handled::Answered;
            }
        }
        let question = Question::of(query);
        let key = ExchangeKey::new(question.key(), self.epoch);
        let known = self.by_question.get(&key).copied();
        let waiting = self.waiting(client);
        let full = known.is_none() && self.exchanges.len() >= self.limits.in_flight;
        if waiting >= self.limits.per_client || full {
            self.counters.shed += 1;
            write_error(query, Rcode::SERVFAIL, None, out);
            return Handled::Answered;
        }
        let number = known.unwrap_or_else(|| self.start(now, question, hash, key));
        self.join(number, client, query)
    }

    /// Whether a question may wait for the first upstream. One by this machine's own server may not: dnsd itself may
    /// wait for what becomes of it.
    fn may_wait(&self, now: Instant, client: Client) -> bool {
        let few = self.exchanges.len() < self.limits.in_flight / UPSTREAM_WAIT_PART
            && self.waiting(client) < self.limits.per_client / UPSTREAM_WAIT_PART;
        let expected = self.expected_until.is_some_and(|until| now < until);
        expected && few && !(client.peer.ip().is_loopback() && self.routes.has_zone_here())
    }

    /// How many queries of this client wait.
    fn waiting(&self, client: Client) -> usize {
        self.per_client.get(&client.peer.ip()).copied().unwrap_or(0)
    }

    fn join(&mut self, number: u64, client: Client, query: &Query<'_>) -> Handled {
        let joined = self.exchanges.get_mut(&number).map(|exchange| exchange.join(client, query));
        match joined {
            Some(Joined::Waits) => {
                *self.per_client.entry(client.peer.ip()).or_default() += 1;
                Handled::Pending
            }
            Some(Joined::Repeated) => Handled::Dropped,
            Some(Joined::Full) | None => {
                self.counters.shed += 1;
                Handled::Dropped
            }
        }
    }

    fn start(&mut self, now: Instant, question: Question, hash: u64, key: ExchangeKey) -> u64 {
        let number = self.number();
        let mut exchange = Exchange::new(question, hash, self.epoch, now + DEADLINE);
        self.try_next(now, number, &mut exchange);
        if exchange.tried.is_empty() {
            self.schedule(now + UPSTREAM_WAIT, number, &mut exchange);
        }
        self.exchanges.insert(number, exchange);
        self.by_question.insert(key, number);
        number
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Asks the next upstream.
    fn try_next(&mut self, now: Instant, number: u64, exchange: &mut Exchange) {
        let random = self.entropy.next();
        let upstreams = self.routes.of(&exchange.question.qname);
        let Some(upstream) = upstreams.choose(now, &exchange.tried, random) else { return };
        let attempt = u32::try_from(exchange.tried.len()).unwrap_or(u32::MAX);
        exchange.tried.push(upstream);
        let wait = match exchange.transport {
            Transport::Udp => upstreams.timeout(upstream, attempt),
            Transport::Tcp => TCP_TIMEOUT,
        };
        let edns = upstreams.speaks_edns(now, upstream);
        self.ask(now, number, exchange, upstream, edns, wait);
    }

    fn ask(
        &mut self,
        now: Instant,
        number: u64,
        exchange: &mut Exchange,
        upstream: SocketAddr,
        edns: bool,
        wait: Duration,
    ) {
        let (token, id) = (self.number(), self.entropy.id());
        let mixed_case = self.limits.mixed_case.then(|| self.entropy.next());
        let section = exchange.question.section(mixed_case);
        let message = exchange.question.message(id, &section, edns);
        let transport = exchange.transport;
        exchange.attempts.push(Attempt {
            token,
            upstream,
            transport,
            id,
            section,
            edns,
            sent_at: now,
            strays: 0,
        });
        self.by_token.insert(token, number);
        self.transmits.push_back(Transmit::Ask { token, upstream, transport, message });
        self.schedule(now + wait, number, exchange);
    }

    /// Sets when `exchange` is looked at again.
    fn schedule(&mut self, at: Instant, number: u64, exchange: &mut Exchange) {
        self.timers.remove(&(exchange.retry_at, number));
        exchange.retry_at = at.min(exchange.deadline);
        self.timers.insert((exchange.retry_at, number));
    }

    /// Handles what came in on the socket of `token`.
    pub fn handle_upstream(&mut self, now: Instant, token: u64, message: &[u8]) {
        let Some((number, mut exchange)) = self.take(token) else {
            return self.handle_relayed(now, token, message);
        };
        let Some(attempt) = exchange.attempt(token) else { return self.put_back(number, exchange) };
        let (upstream, took) = (attempt.upstream, now.saturating_duration_since(attempt.sent_at));
        let asked = Asked { id: attempt.id, question: &attempt.section, exact_case: self.limits.mixed_case };
        match check_answer(message, asked, self.limits.ttl) {
            Ok(answer) => {
                self.routes.of(&exchange.question.qname).answered(upstream, took);
                self.use_answer(now, number, exchange, token, &answer);
            }
            Err(AnswerError::Unrelated)
                if attempt.transport == Transport::Udp && attempt.strays < MAX_STRAYS =>
            {
                attempt.strays += 1;
                self.put_back(number, exchange);
            }
            Err(_) => {
                exchange.refused = true;
                self.give_up_attempt(now, number, exchange, token);
            }
        }
    }

    /// Handles the end of the socket of `token`: refused, unreachable, closed.
    pub fn handle_upstream_error(&mut self, now: Instant, token: u64) {
        let Some((number, mut exchange)) = self.take(token) else {
            return self.relay_elsewhere(now, token);
        };
        if let Some(attempt) = exchange.attempt(token) {
            let upstream = attempt.upstream;
            self.routes.of(&exchange.question.qname).failed(now, upstream);
        }
        self.give_up_attempt(now, number, exchange, token);
    }

    fn use_answer(&mut self, now: Instant, number: u64, mut exchange: Exchange, token: u64, answer: &Answer) {
        let Some(attempt) = exchange.attempt(token) else { return self.put_back(number, exchange) };
        let (upstream, transport, asked_edns) = (attempt.upstream, attempt.transport, attempt.edns);
        match verdict(answer, transport, asked_edns) {
            Verdict::Deliver => self.deliver(now, number, exchange, answer),
            Verdict::AskOverTcp => {
                self.close(&mut exchange, token);
                exchange.transport = Transport::Tcp;
                self.ask(now, number, &mut exchange, upstream, asked_edns, TCP_TIMEOUT);
                self.put_back(number, exchange);
            }
            Verdict::AskWithoutEdns => {
                self.close(&mut exchange, token);
                let upstreams = self.routes.of(&exchange.question.qname);
                upstreams.lacks_edns(now, upstream);
                let wait = upstreams.timeout(upstream, 0);
                self.ask(now, number, &mut exchange, upstream, false, wait);
                self.put_back(number, exchange);
            }
            Verdict::Failed => {
                exchange.refused = true;
                self.give_up_attempt(now, number, exchange, token);
            }
        }
    }

    /// An attempt came to nothing: ask somebody else, or wait for the others, or give up.
    fn give_up_attempt(&mut self, now: Instant, number: u64, mut exchange: Exchange, token: u64) {
        self.close(&mut exchange, token);
        let upstreams = self.routes.of(&exchange.question.qname);
        let somebody_else = upstreams.addresses().any(|address| !exchange.tried.contains(&address));
        if somebody_else && exchange.tried.len() < MAX_TRIES && now < exchange.deadline {
            self.try_next(now, number, &mut exchange);
        } else if exchange.attempts.is_empty() {
            return self.fail(now, number, exchange);
        }
        self.put_back(number, exchange);
    }

    /// Handles everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, number)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(exchange) = self.exchanges.remove(&number) {
                self.retry(now, number, exchange);
            }
        }
        self.expire_relays(now);
    }

    fn retry(&mut self, now: Instant, number: u64, mut exchange: Exchange) {
        self.counters.upstream_timeouts += u64::from(!exchange.tried.is_empty());
        let qname = exchange.question.qname;
        // Whether it was hopeless before this silence: a first one deserves its repeats.
        let hopeless = self.routes.is_silent(now, &qname);
        if let Some(silent) = exchange.attempts.last() {
            self.routes.of(&qname).failed(now, silent.upstream);
        }
        let tries = if hopeless || self.has_stale(now, &exchange) { LAST_TRIES } else { MAX_TRIES };
        if now >= exchange.deadline || exchange.tried.len() >= tries || self.routes.of(&qname).is_empty() {
            return self.fail(now, number, exchange);
        }
        // What was asked before stays open: a late answer is an answer.
        self.try_next(now, number, &mut exchange);
        self.put_back(number, exchange);
    }

    fn deliver(&mut self, now: Instant, number: u64, exchange: Exchange, answer: &Answer) {
        let key = exchange.question.key();
        if let Some(lifetime_s) = answer.lifetime_s.filter(|_| exchange.epoch == self.epoch) {
            let mut lifetime = Duration::from_secs(u64::from(lifetime_s));
            if self.routes.is_here(&exchange.question.qname) {
                lifetime = lifetime.min(LIFETIME_OF_HERE);
            }
            self.cache.insert(now, exchange.hash, key, &answer.wire, &answer.ttl_at, lifetime);
        }
        let stored = Stored { wire: &answer.wire, ttl_at: &answer.ttl_at };
        self.finish(number, exchange, |query, limit, out| write_stored(query, stored, 0, limit, out));
    }

    fn fail(&mut self, now: Instant, number: u64, exchange: Exchange) {
        let (lifetime, detail) = if exchange.refused {
            (FAILURE_LIFETIME, ExtendedError::NetworkError)
        } else if exchange.tried.is_empty() {
            (SILENCE_LIFETIME, ExtendedError::NotReady)
        } else {
            (SILENCE_LIFETIME, ExtendedError::NoReachableAuthority)
        };
        let key = exchange.question.key();
        // Where nobody was asked there is nothing to remember: the next moment may bring somebody.
        if exchange.epoch == self.epoch && !exchange.tried.is_empty() {
            self.cache.insert_failure(now, exchange.hash, key, lifetime);
        }
        if let Some(stale) = self.cache.find_stale(now, exchange.hash, key) {
            let (wire, ttl_at) = (stale.wire.to_vec(), stale.ttl_at.to_vec());
            let stored = Stored { wire: &wire, ttl_at: &ttl_at };
            return self.finish(number, exchange, |query, limit, out| write_stale(query, stored, limit, out));
        }
        if self.zones.is_reverse(&exchange.question.qname) {
            // The office does not know it, and whoever might is away: so nobody does, as without them.
            let answers = answers(&exchange, |query, limit, out| {
                local::answer(&self.zones, query, limit, out);
            });
            return self.end(number, exchange, answers);
        }
        self.finish(number, exchange, |query, _, out| {
            write_error(query, Rcode::SERVFAIL, Some(detail), out);
        });
    }

    fn has_stale(&mut self, now: Instant, exchange: &Exchange) -> bool {
        self.cache.find_stale(now, exchange.hash, exchange.question.key()).is_some()
    }

    fn finish(&mut self, number: u64, exchange: Exchange, write: impl Fn(&Query<'_>, usize, &mut Vec<u8>)) {
        let answers = answers(&exchange, write);
        self.end(number, exchange, answers);
    }

    fn end(&mut self, number: u64, mut exchange: Exchange, answers: Vec<Transmit>) {
        self.by_question.remove(&exchange.key());
        self.timers.remove(&(exchange.retry_at, number));
        for attempt in std::mem::take(&mut exchange.attempts) {
            self.by_token.remove(&attempt.token);
            self.transmits.push_back(Transmit::Close { token: attempt.token });
        }
        self.transmits.extend(answers);
        for waiter in &exchange.waiters {
            self.release(waiter.client.peer.ip());
        }
    }

    fn release(&mut self, client: IpAddr) {
        if let Some(waiting) = self.per_client.get_mut(&client) {
            *waiting -= 1;
            if *waiting == 0 {
                self.per_client.remove(&client);
            }
        }
    }

    fn take(&mut self, token: u64) -> Option<(u64, Exchange)> {
        let number = *self.by_token.get(&token)?;
        Some((number, self.exchanges.remove(&number)?))
    }

    fn put_back(&mut self, number: u64, exchange: Exchange) {
        self.exchanges.insert(number, exchange);
    }

    fn close(&mut self, exchange: &mut Exchange, token: u64) {
        exchange.drop_attempt(token);
        self.by_token.remove(&token);
        self.transmits.push_back(Transmit::Close { token });
    }
}

/// What each client that waits for it gets.
fn answers(exchange: &Exchange, write: impl Fn(&Query<'_>, usize, &mut Vec<u8>)) -> Vec<Transmit> {
    let answer = |waiter: &Waiter| {
        let client = waiter.client;
        let query = waiter.query(&exchange.question);
        let mut message = Vec::new();
        write(&query, limit(&query, client.transport), &mut message);
        Transmit::Answer { client, message }
    };
    exchange.waiters.iter().map(answer).collect()
}
