//! Writing answers: from stored wire form (copy and patch), from local data, and errors.
//!
//! All of it appends to a caller's buffer, so that a buffer reused for every answer allocates nothing. What
//! does not fit the client's UDP size leaves as an empty answer with TC=1 (RFC 2181 §9): the client asks
//! again over TCP.

use crate::wire::{self, AA, CD, HEADER_LEN, OPCODE_MASK, QR, Query, RA, RD, Rcode, TC, put_u16};

/// Extended DNS error codes (RFC 8914).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendedError {
    /// An answer past its time (RFC 8767).
    StaleAnswer = 3,
    /// The server has no upstream yet.
    NotReady = 14,
    /// A cached failure.
    CachedError = 13,
    /// No upstream answered in time.
    NoReachableAuthority = 22,
    /// Upstreams answered, but with errors or nonsense.
    NetworkError = 23,
}

/// A stored message: header, question and records, without OPT.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The message.
    pub wire: &'a [u8],
    /// Offsets of its records' TTLs.
    pub ttl_at: &'a [u16],
}

/// How the answer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram, limited by the client's EDNS size.
    Udp,
    /// A stream with two length octets.
    Tcp,
}

/// Largest answer for this query over this transport.
#[must_use]
pub fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match transport {
        Transport::Udp => query.udp_limit(),
        Transport::Tcp => usize::from(u16::MAX),
    }
}

/// TTL of records in a stale answer (RFC 8767 §4 recommends 30 s).
const STALE_TTL_S: u32 = 30;

/// Appends `stored` as the answer to `query`, its TTLs lowered by `age_s`.
#[inline]
pub fn write_stored(query: &Query<'_>, stored: Stored<'_>, age_s: u32, limit: usize, out: &mut Vec<u8>) {
    copy_stored(query, stored, limit, None, out, |message| {
        if age_s > 0 {
            set_ttls(message, stored.ttl_at, |ttl| ttl.saturating_sub(age_s));
        }
    });
}

/// Appends `stored`, which is past its time, as the answer to `query`.
pub fn write_stale(query: &Query<'_>, stored: Stored<'_>, limit: usize, out: &mut Vec<u8>) {
    let detail = Some(ExtendedError::StaleAnswer);
    copy_stored(query, stored, limit, detail, out, |message| {
        set_ttls(message, stored.ttl_at, |_| STALE_TTL_S);
    });
}

#[inline]
fn copy_stored(
    query: &Query<'_>,
    stored: Stored<'_>,
    limit: usize,
    detail: Option<ExtendedError>,
    out: &mut Vec<u8>,
    patch: impl Fn(&mut [u8]),
) {
    let start = out.len();
    let body_at = HEADER_LEN + query.question.len();
    let rcode = Rcode((wire::u16_in(stored.wire, 2) & wire::RCODE_MASK).to_be_bytes()[1]);
    let option_len = if detail.is_some() { EDE_LEN } else { 0 };
    let edns_len = if query.edns.is_some() { OPT_LEN + option_len } else { 0 };
    let (Some(counts), Some(body)) = (stored.wire.get(4..HEADER_LEN), stored.wire.get(body_at..)) else {
        return write_error(query, Rcode::SERVFAIL, None, out);
    };
    if stored.wire.len() + edns_len > limit {
        return write_truncated(query, rcode, out);
    }
    out.extend_from_slice(&query.id.to_be_bytes());
    out.extend_from_slice(&response_flags(query, rcode, 0).to_be_bytes());
    out.extend_from_slice(counts);
    out.extend_from_slice(query.question);
    out.extend_from_slice(body);
    patch(&mut out[start..]);
    finish(query, start, rcode, detail, out);
}

#[inline]
fn set_ttls(message: &mut [u8], ttl_at: &[u16], new: impl Fn(u32) -> u32) {
    for &at in ttl_at {
        if let Some(field) = message.get_mut(usize::from(at)..usize::from(at) + 4) {
            let ttl = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
            field.copy_from_slice(&new(ttl).to_be_bytes());
        }
    }
}

/// Appends an answer without records.
pub fn write_error(query: &Query<'_>, rcode: Rcode, detail: Option<ExtendedError>, out: &mut Vec<u8>) {
    let start = begin(query, rcode, 0, out);
    finish(query, start, rcode, detail, out);
}

/// Appends an empty answer that asks the client to come back over TCP.
pub fn write_truncated(query: &Query<'_>, rcode: Rcode, out: &mut Vec<u8>) {
    let start = begin(query, rcode, TC, out);
    finish(query, start, rcode, None, out);
}

/// Appends a bare header, for queries whose question could not be read.
pub fn write_header(id: u16, flags: u16, rcode: Rcode, out: &mut Vec<u8>) {
    let flags = QR | flags & (OPCODE_MASK | RD) | RA | u16::from(rcode.0 & 0x0f);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
}

/// An answer made here, under construction.
#[derive(Debug)]
pub struct Synthesis<'o, 'q> {
    query: &'q Query<'q>,
    out: &'o mut Vec<u8>,
    start: usize,
    rcode: Rcode,
    answers: u16,
    authorities: u16,
}

impl<'o, 'q> Synthesis<'o, 'q> {
    /// Starts an authoritative answer at the end of `out`.
    pub fn authoritative(query: &'q Query<'q>, rcode: Rcode, out: &'o mut Vec<u8>) -> Self {
        let start = begin(query, rcode, AA, out);
        Self { query, out, start, rcode, answers: 0, authorities: 0 }
    }

    /// Starts an answer that claims no authority.
    pub fn synthetic(query: &'q Query<'q>, rcode: Rcode, out: &'o mut Vec<u8>) -> Self {
        let start = begin(query, rcode, 0, out);
        Self { query, out, start, rcode, answers: 0, authorities: 0 }
    }

    /// Adds an answer owned by the name asked for.
    pub fn answer(&mut self, rtype: u16, ttl_s: u32, rdata: &[u8]) {
        self.record(0, rtype, ttl_s, rdata);
        self.answers += 1;
    }

    /// Adds an authority record owned by the ancestor that begins at `offset` in the name asked for.
    pub fn authority(&mut self, offset: usize, rtype: u16, ttl_s: u32, rdata: &[u8]) {
        self.record(offset, rtype, ttl_s, rdata);
        self.authorities += 1;
    }

    fn record(&mut self, offset: usize, rtype: u16, ttl_s: u32, rdata: &[u8]) {
        // The owner is always a suffix of the question, which starts right after the header.
        let pointer = 0xc000 | u16::try_from(HEADER_LEN + offset).unwrap_or(0);
        self.out.extend_from_slice(&pointer.to_be_bytes());
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&wire::CLASS_IN.to_be_bytes());
        self.out.extend_from_slice(&ttl_s.to_be_bytes());
        self.out.extend_from_slice(&u16::try_from(rdata.len()).unwrap_or(0).to_be_bytes());
        self.out.extend_from_slice(rdata);
    }

    /// Completes the answer; truncates it when it is over `limit`.
    pub fn finish(self, limit: usize) {
        let edns_len = if self.query.edns.is_some() { OPT_LEN } else { 0 };
        if self.out.len() - self.start + edns_len > limit {
            self.out.truncate(self.start);
            return write_truncated(self.query, self.rcode, self.out);
        }
        put_u16(&mut self.out[self.start..], 6, self.answers);
        put_u16(&mut self.out[self.start..], 8, self.authorities);
        finish(self.query, self.start, self.rcode, None, self.out);
    }
}

/// Length of an OPT record without options.
const OPT_LEN: usize = 11;
/// Length of an extended error in it.
const EDE_LEN: usize = 6;

fn response_flags(query: &Query<'_>, rcode: Rcode, extra: u16) -> u16 {
    QR | RA | query.flags & (RD | CD) | extra | u16::from(rcode.0 & 0x0f)
}

fn begin(query: &Query<'_>, rcode: Rcode, extra: u16, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&query.id.to_be_bytes());
    out.extend_from_slice(&response_flags(query, rcode, extra).to_be_bytes());
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(query.question);
    start
}

/// Adds OPT when the query had one (RFC 6891 §7), with the upper bits of the response code.
#[inline]
fn finish(query: &Query<'_>, start: usize, rcode: Rcode, detail: Option<ExtendedError>, out: &mut Vec<u8>) {
    let Some(edns) = query.edns else { return };
    let additional = wire::u16_in(&out[start..], 10).saturating_add(1);
    put_u16(&mut out[start..], 10, additional);
    let [size_high, size_low] = wire::EDNS_UDP_SIZE.to_be_bytes();
    let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
    let option_len = if detail.is_some() { 6 } else { 0 };
    out.extend_from_slice(&[0, 0, 41, size_high, size_low, rcode.0 >> 4, 0, dnssec_ok, 0, 0, option_len]);
    if let Some(detail) = detail {
        // RFC 8914 §2: option 15, two octets of info code, no text.
        out.extend_from_slice(&[0, 15, 0, 2, 0, detail as u8]);
    }
}
