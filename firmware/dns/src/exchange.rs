//! One question on its way: who waits for it, and what has been sent upstream so far.

use std::net::SocketAddr;
use std::time::Instant;

use crate::cache::Key;
use crate::name::Name;
use crate::response::Transport;
use crate::traffic::Client;
use crate::wire::{CD, EDNS_DO, EDNS_UDP_SIZE, Edns, HEADER_LEN, Query, RD};

/// Most clients that wait for one question.
const MAX_WAITERS: usize = 256;

/// What identifies a question on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ExchangeKey {
    qname: Box<[u8]>,
    kind: u64,
    epoch: u32,
}

impl ExchangeKey {
    pub(crate) fn new(key: Key<'_>, epoch: u32) -> Self {
        Self { qname: key.qname.into(), kind: key.kind(), epoch }
    }
}

/// A client's query, kept until there is an answer.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) client: Client,
    id: u16,
    flags: u16,
    question: Box<[u8]>,
    edns: Option<Edns>,
}

impl Waiter {
    fn new(client: Client, query: &Query<'_>) -> Self {
        Self { client, id: query.id, flags: query.flags, question: query.question.into(), edns: query.edns }
    }

    /// The query again, in the client's own spelling.
    pub(crate) fn query(&self, key: &Question) -> Query<'_> {
        Query {
            id: self.id,
            flags: self.flags,
            question: &self.question,
            qname: key.qname,
            qtype: key.qtype,
            qclass: key.qclass,
            edns: self.edns,
            // Signed queries are relayed, and wait for nothing here.
            signed: false,
        }
    }
}

/// A question as asked upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) qname: Name,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

impl Question {
    pub(crate) fn of(query: &Query<'_>) -> Self {
        Self {
            qname: query.qname,
            qtype: query.qtype,
            qclass: query.qclass,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.checking_disabled(),
        }
    }

    pub(crate) fn key(&self) -> Key<'_> {
        Key {
            qname: self.qname.wire(),
            qtype: self.qtype,
            qclass: self.qclass,
            dnssec_ok: self.dnssec_ok,
            checking_disabled: self.checking_disabled,
        }
    }

    /// Question section; with `mixed_case`, letters take their case from it bit by bit (0x20).
    pub(crate) fn section(&self, mixed_case: Option<u64>) -> Box<[u8]> {
        let mut section = self.qname.wire().to_vec();
        if let Some(mut bits) = mixed_case {
            for octet in section.iter_mut().filter(|octet| octet.is_ascii_lowercase()) {
                if bits & 1 == 1 {
                    *octet = octet.to_ascii_uppercase();
                }
                bits = bits.rotate_right(1);
            }
        }
        section.extend_from_slice(&self.qtype.to_be_bytes());
        section.extend_from_slice(&self.qclass.to_be_bytes());
        section.into()
    }

    /// The whole query for an upstream.
    pub(crate) fn message(&self, id: u16, section: &[u8], edns: bool) -> Vec<u8> {
        let flags = RD | if self.checking_disabled { CD } else { 0 };
        let mut message = Vec::with_capacity(HEADER_LEN + section.len() + 11);
        message.extend_from_slice(&id.to_be_bytes());
        message.extend_from_slice(&flags.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
        message.extend_from_slice(section);
        if edns {
            let dnssec_ok = if self.dnssec_ok { EDNS_DO } else { 0 };
            message.extend_from_slice(&[0, 0, 41]);
            message.extend_from_slice(&EDNS_UDP_SIZE.to_be_bytes());
            message.extend_from_slice(&[0, 0]);
            message.extend_from_slice(&dnssec_ok.to_be_bytes());
            message.extend_from_slice(&[0, 0]);
        }
        message
    }
}

/// One message sent to one upstream.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) token: u64,
    pub(crate) upstream: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) id: u16,
    pub(crate) section: Box<[u8]>,
    pub(crate) edns: bool,
    pub(crate) sent_at: Instant,
    /// Datagrams that did not belong to the question.
    pub(crate) strays: u32,
}

/// A question on its way.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) question: Question,
    pub(crate) hash: u64,
    /// Answers of an earlier epoch are passed on, and not kept: others are asked since.
    pub(crate) epoch: u32,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) tried: Vec<SocketAddr>,
    /// UDP until an upstream truncates.
    pub(crate) transport: Transport,
    pub(crate) deadline: Instant,
    pub(crate) retry_at: Instant,
    /// An upstream answered with an error.
    pub(crate) refused: bool,
}

/// What became of one more client asking the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It waits too.
    Waits,
    /// It is the same query, sent again: one answer is enough.
    Repeated,
    /// Too many wait already.
    Full,
}

impl Exchange {
    pub(crate) fn new(question: Question, hash: u64, epoch: u32, deadline: Instant) -> Self {
        Self {
            question,
            hash,
            epoch,
            waiters: Vec::new(),
            attempts: Vec::new(),
            tried: Vec::new(),
            transport: Transport::Udp,
            deadline,
            retry_at: deadline,
            refused: false,
        }
    }

    pub(crate) fn key(&self) -> ExchangeKey {
        ExchangeKey::new(self.question.key(), self.epoch)
    }

    pub(crate) fn join(&mut self, client: Client, query: &Query<'_>) -> Joined {
        if self.waiters.iter().any(|waiter| waiter.client == client && waiter.id == query.id) {
            return Joined::Repeated;
        }
        if self.waiters.len() >= MAX_WAITERS {
            return Joined::Full;
        }
        self.waiters.push(Waiter::new(client, query));
        Joined::Waits
    }

    pub(crate) fn attempt(&mut self, token: u64) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.token == token)
    }

    pub(crate) fn drop_attempt(&mut self, token: u64) {
        self.attempts.retain(|attempt| attempt.token != token);
    }
}
