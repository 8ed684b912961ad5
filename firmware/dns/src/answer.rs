//! Checking what an upstream sent before anybody sees it, and bringing it into stored form.
//!
//! Relation to the question first (cheap), then counts, then one walk over the records that finds TTLs, OPT
//! and SOA. Owner names, and names inside the data of the types of RFC 1035, which may be compressed
//! (RFC 3597 §4), are checked to expand; the number of records bounds the cost.

use crate::error::{AnswerError, WireError};
use crate::wire::{
    self, HEADER_LEN, OPCODE_MASK, QR, RCODE_MASK, Rcode, Record, TC, put_u16, rtype, skip_name, u16_in,
};

/// More records than any honest answer over UDP or TCP has; bounds the walk over a crafted 64 KiB message.
const MAX_RECORDS: u32 = 2048;

/// A length that no label has (RFC 1035 §4.1.4: the bits 10 are reserved).
const NO_LABEL: u8 = 0x80;

/// Bounds on how long an answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtlLimits {
    /// Longest life of a positive answer, in seconds. One day: RFC 8767 §4 asks for a cap, and Unbound's
    /// default is the same.
    pub max_s: u32,
    /// Longest life of a negative answer, in seconds. RFC 2308 §5 finds one to three hours sensible.
    pub max_negative_s: u32,
}

impl Default for TtlLimits {
    fn default() -> Self {
        Self { max_s: 86_400, max_negative_s: 3_600 }
    }
}

/// An upstream's answer, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Response code, extended bits included.
    pub rcode: u16,
    /// TC was set: ask again over TCP.
    pub truncated: bool,
    /// Whether it had an OPT record.
    pub edns: bool,
    /// Header, question and records without OPT; TTLs clamped.
    pub wire: Vec<u8>,
    /// Offsets of the TTLs in `wire`.
    pub ttl_at: Vec<u16>,
    /// How long it may be cached; `None`: not at all.
    pub lifetime_s: Option<u32>,
}

/// What was asked, for comparison.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Message id.
    pub id: u16,
    /// Question section as sent, name case included.
    pub question: &'a [u8],
    /// Whether the case of the name must come back as sent (0x20).
    pub exact_case: bool,
}

/// Checks `message` against the question and brings it into stored form.
///
/// # Errors
/// [`AnswerError::Unrelated`] when it does not belong to the question, [`AnswerError::Wire`] when it does but
/// cannot be trusted to be passed on.
pub fn check_answer(message: &[u8], asked: Asked<'_>, limits: TtlLimits) -> Result<Answer, AnswerError> {
    let flags = check_relation(message, asked)?;
    let rcode = flags & RCODE_MASK;
    if u16_in(message, 4) == 0 {
        return Ok(bare_error(rcode));
    }
    let mut walk = Walk::new(message, HEADER_LEN + asked.question.len(), limits);
    walk.sections(rcode)?;
    Ok(walk.into_answer(flags, asked))
}

fn check_relation(message: &[u8], asked: Asked<'_>) -> Result<u16, AnswerError> {
    let header = message.get(..HEADER_LEN).ok_or(AnswerError::Unrelated)?;
    let flags = u16_in(header, 2);
    if flags & QR == 0 || flags & OPCODE_MASK != 0 || u16_in(header, 0) != asked.id {
        return Err(AnswerError::Unrelated);
    }
    match u16_in(header, 4) {
        // RFC 6891 §7 and old servers: errors about the header may come without the question.
        0 if flags & RCODE_MASK != 0 && message.len() == HEADER_LEN => Ok(flags),
        1 => {
            let end = HEADER_LEN + asked.question.len();
            let question = message.get(HEADER_LEN..end).ok_or(AnswerError::Unrelated)?;
            if same_question(question, asked) { Ok(flags) } else { Err(AnswerError::Unrelated) }
        }
        _ => Err(AnswerError::Unrelated),
    }
}

fn same_question(question: &[u8], asked: Asked<'_>) -> bool {
    let name_len = question.len().saturating_sub(4);
    let same_name = if asked.exact_case {
        question[..name_len] == asked.question[..name_len]
    } else {
        question[..name_len].eq_ignore_ascii_case(&asked.question[..name_len])
    };
    same_name && question[name_len..] == asked.question[name_len..]
}

fn bare_error(rcode: u16) -> Answer {
    Answer { rcode, truncated: false, edns: false, wire: Vec::new(), ttl_at: Vec::new(), lifetime_s: None }
}

struct Walk {
    /// A copy, in which the TTLs that were read are no names any more ([`NO_LABEL`]).
    message: Vec<u8>,
    limits: TtlLimits,
    at: usize,
    /// End of what is kept: everything before OPT and TSIG.
    end: usize,
    ttls: Vec<(u16, u32)>,
    shortest_s: u32,
    negative: bool,
    soa: bool,
    additional_kept: u16,
    /// OPT or TSIG has come: nothing is kept from there on.
    kept_all: bool,
    opt_rcode: Option<u8>,
}

impl Walk {
    fn new(message: &[u8], at: usize, limits: TtlLimits) -> Self {
        Self {
            message: message.to_vec(),
            limits,
            at,
            end: at,
            ttls: Vec::new(),
            shortest_s: limits.max_s,
            negative: false,
            soa: false,
            additional_kept: 0,
            kept_all: false,
            opt_rcode: None,
        }
    }

    fn sections(&mut self, rcode: u16) -> Result<(), WireError> {
        let [answers, authorities, additional] = [6, 8, 10].map(|at| u16_in(&self.message, at));
        if u32::from(answers) + u32::from(authorities) + u32::from(additional) > MAX_RECORDS {
            return Err(WireError::Counts);
        }
        let truncated = u16_in(&self.message, 2) & TC != 0;
        if truncated {
            // Counts and content of a truncated answer are not reliable, and it is not used.
            return Ok(());
        }
        let qtype = self.qtype();
        self.negative = answers == 0 || rcode == u16::from(Rcode::NXDOMAIN.0);
        let mut found = false;
        for _ in 0..answers {
            let record = self.record()?;
            found |= record.rtype == qtype;
        }
        // An alias chain that ends without data of the type asked for is NODATA at its end (RFC 2308 §2.2).
        self.negative |= !found;
        for _ in 0..authorities {
            self.record()?;
        }
        for _ in 0..additional {
            self.additional()?;
        }
        Ok(())
    }

    fn qtype(&self) -> u16 {
        u16_in(&self.message, self.at.saturating_sub(4))
    }

    fn record(&mut self) -> Result<Record, WireError> {
        let record = Record::read(&self.message, self.at)?;
        if record.rtype == rtype::OPT {
            return Err(WireError::Record);
        }
        // A name that leads through a TTL would be another one, or none, as the answer ages.
        self.message[record.ttl_at..record.ttl_at + 4].fill(NO_LABEL);
        check_rdata(&self.message, &record)?;
        // RFC 2181 §8: a TTL with the top bit set counts as zero.
        let mut ttl_s = if record.ttl > i32::MAX.unsigned_abs() { 0 } else { record.ttl };
        ttl_s = ttl_s.min(self.limits.max_s);
        if record.rtype == rtype::SOA && self.negative {
            // RFC 2308 §5: the lesser of the SOA's TTL and its MINIMUM field.
            let minimum_at = record.end - 4;
            let field = self.message.get(minimum_at..record.end).ok_or(WireError::Record)?;
            let minimum_s = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
            ttl_s = ttl_s.min(minimum_s).min(self.limits.max_negative_s);
            self.soa = true;
        }
        self.shortest_s = self.shortest_s.min(ttl_s);
        let ttl_at = u16::try_from(record.ttl_at).map_err(|_| WireError::Truncated)?;
        self.ttls.push((ttl_at, ttl_s));
        self.at = record.end;
        self.end = record.end;
        Ok(record)
    }

    /// OPT and TSIG are hop-by-hop and go; so does what follows them, because dropping them from the middle
    /// would break pointers. Additional records are optional everywhere.
    fn additional(&mut self) -> Result<(), WireError> {
        let record = Record::read(&self.message, self.at)?;
        if record.rtype == rtype::OPT {
            if self.opt_rcode.is_some() || record.owner_len != 1 {
                return Err(WireError::Record);
            }
            self.opt_rcode = Some(record.ttl.to_be_bytes()[0]);
        }
        self.kept_all |= matches!(record.rtype, rtype::OPT | rtype::TSIG);
        if self.kept_all {
            self.at = record.end;
            return Ok(());
        }
        self.record()?;
        self.additional_kept += 1;
        Ok(())
    }

    fn into_answer(self, flags: u16, asked: Asked<'_>) -> Answer {
        let truncated = flags & TC != 0;
        let rcode = flags & RCODE_MASK | u16::from(self.opt_rcode.unwrap_or(0)) << 4;
        let lifetime_s = if truncated { None } else { self.lifetime(rcode) };
        let mut stored = self.message;
        stored.truncate(self.end);
        put_u16(&mut stored, 10, self.additional_kept);
        stored[HEADER_LEN..HEADER_LEN + asked.question.len()].copy_from_slice(asked.question);
        for &(at, ttl_s) in &self.ttls {
            let at = usize::from(at);
            stored[at..at + 4].copy_from_slice(&ttl_s.to_be_bytes());
        }
        let ttl_at = self.ttls.iter().map(|&(at, _)| at).collect();
        Answer { rcode, truncated, edns: self.opt_rcode.is_some(), wire: stored, ttl_at, lifetime_s }
    }

    fn lifetime(&self, rcode: u16) -> Option<u32> {
        let cacheable = rcode == u16::from(Rcode::NOERROR.0) || rcode == u16::from(Rcode::NXDOMAIN.0);
        // RFC 2308 §5: negative answers without SOA are not cached. That covers referrals too.
        let known_lifetime = !self.negative || self.soa;
        (cacheable && known_lifetime && self.shortest_s > 0).then_some(self.shortest_s)
    }
}

/// Checks the data of the types whose names may be compressed, and of addresses.
fn check_rdata(message: &[u8], record: &Record) -> Result<(), WireError> {
    let names_end = match record.rtype {
        rtype::A => Some(record.rdata_at + 4),
        rtype::AAAA => Some(record.rdata_at + 16),
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME => Some(skip_name(message, record.rdata_at)?),
        rtype::MX => Some(skip_name(message, record.rdata_at + 2)?),
        rtype::SRV => Some(skip_name(message, record.rdata_at + 6)?),
        rtype::SOA => {
            let rname_at = skip_name(message, record.rdata_at)?;
            Some(skip_name(message, rname_at)? + 20)
        }
        _ => None,
    };
    let fits = names_end.is_none_or(|end| end == record.end);
    let internet = record.class == wire::CLASS_IN;
    if fits || !internet { Ok(()) } else { Err(WireError::Record) }
}
