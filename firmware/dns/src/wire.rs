//! The DNS wire format as far as a forwarder needs it: RFC 1035 §4, EDNS of RFC 6891.
//!
//! Reads one question and its OPT record without allocating, whatever the size of the message, and holds
//! the numbers of the registry. Every read is bounds-checked; pointers are followed backwards only.

use crate::error::WireError;
use crate::name::Name;

/// Length of the header.
pub const HEADER_LEN: usize = 12;
/// UDP payload that every client takes (RFC 1035 §2.3.4).
pub const CLASSIC_UDP_SIZE: usize = 512;
/// Largest UDP payload sent or asked for: fits any path unfragmented (DNS flag day 2020).
pub const EDNS_UDP_SIZE: u16 = 1232;

/// Header flag: response.
pub const QR: u16 = 0x8000;
/// Header flag: authoritative answer.
pub const AA: u16 = 0x0400;
/// Header flag: truncated.
pub const TC: u16 = 0x0200;
/// Header flag: recursion desired.
pub const RD: u16 = 0x0100;
/// Header flag: recursion available.
pub const RA: u16 = 0x0080;
/// Header flag: checking disabled (RFC 4035 §3.2.2).
pub const CD: u16 = 0x0010;
/// Header field: opcode.
pub const OPCODE_MASK: u16 = 0x7800;
/// Opcode UPDATE (RFC 2136 §2.2), as it stands in the field.
pub const UPDATE: u16 = 5 << 11;
/// Header field: response code.
pub const RCODE_MASK: u16 = 0x000f;
/// EDNS flag: DNSSEC records wanted (RFC 3225).
pub const EDNS_DO: u16 = 0x8000;

/// Class IN.
pub const CLASS_IN: u16 = 1;

/// Type numbers (IANA registry).
pub mod rtype {
    /// Host address.
    pub const A: u16 = 1;
    /// Name server.
    pub const NS: u16 = 2;
    /// Alias.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Pointer.
    pub const PTR: u16 = 12;
    /// Host information; carries the answer to ANY (RFC 8482).
    pub const HINFO: u16 = 13;
    /// Mail exchange.
    pub const MX: u16 = 15;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Service location.
    pub const SRV: u16 = 33;
    /// Subtree alias.
    pub const DNAME: u16 = 39;
    /// EDNS pseudo-record.
    pub const OPT: u16 = 41;
    /// Key exchange (RFC 2930).
    pub const TKEY: u16 = 249;
    /// Transaction signature (RFC 8945).
    pub const TSIG: u16 = 250;
    /// Incremental zone transfer.
    pub const IXFR: u16 = 251;
    /// Zone transfer.
    pub const AXFR: u16 = 252;
    /// All records.
    pub const ANY: u16 = 255;
}

/// Response codes (RFC 1035 §4.1.1, RFC 6895).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcode(pub u8);

impl Rcode {
    /// No error (with or without data).
    pub const NOERROR: Self = Self(0);
    /// The query is malformed.
    pub const FORMERR: Self = Self(1);
    /// The server failed.
    pub const SERVFAIL: Self = Self(2);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// Kind of query not implemented.
    pub const NOTIMP: Self = Self(4);
    /// Not answered by policy.
    pub const REFUSED: Self = Self(5);
    /// EDNS version not supported (extended: 16).
    pub const BADVERS: Self = Self(16);
}

/// EDNS fields of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// UDP payload size the sender takes.
    pub udp_size: u16,
    /// EDNS version.
    pub version: u8,
    /// DNSSEC records wanted.
    pub dnssec_ok: bool,
}

/// A query as received.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Message id.
    pub id: u16,
    /// Header flags.
    pub flags: u16,
    /// Question in the sender's own spelling: name, type and class.
    pub question: &'a [u8],
    /// Name asked for, lower case.
    pub qname: Name,
    /// Type asked for.
    pub qtype: u16,
    /// Class asked for.
    pub qclass: u16,
    /// EDNS, if the query has it.
    pub edns: Option<Edns>,
    /// Whether it carries a transaction signature (RFC 8945).
    pub signed: bool,
}

/// A query that is not processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// Too short, or itself a response: never answered, so that two servers cannot play ping-pong.
    Drop,
    /// Answered by a bare header.
    Header {
        /// Message id.
        id: u16,
        /// The query's flags.
        flags: u16,
        /// Why.
        rcode: Rcode,
    },
}

impl Query<'_> {
    /// Whether DNSSEC records are wanted.
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Whether the client wants unchecked data.
    #[must_use]
    pub fn checking_disabled(&self) -> bool {
        self.flags & CD != 0
    }

    /// Largest answer the client takes over UDP.
    #[must_use]
    pub fn udp_limit(&self) -> usize {
        let asked = self.edns.map_or(CLASSIC_UDP_SIZE, |edns| usize::from(edns.udp_size));
        asked.clamp(CLASSIC_UDP_SIZE, usize::from(EDNS_UDP_SIZE))
    }
}

/// Reads a query.
///
/// # Errors
/// [`Reject`] says whether and how to answer what is not a plain query.
#[inline]
pub fn parse_query(message: &[u8]) -> Result<Query<'_>, Reject> {
    let header = message.get(..HEADER_LEN).ok_or(Reject::Drop)?;
    let (id, flags) = (u16_in(header, 0), u16_in(header, 2));
    if flags & QR != 0 {
        return Err(Reject::Drop);
    }
    if flags & OPCODE_MASK != 0 {
        return Err(Reject::Header { id, flags, rcode: Rcode::NOTIMP });
    }
    let formerr = |_| Reject::Header { id, flags, rcode: Rcode::FORMERR };
    parse_body(message, id, flags).map_err(formerr)
}

fn parse_body(message: &[u8], id: u16, flags: u16) -> Result<Query<'_>, WireError> {
    let counts = [4, 6, 8, 10].map(|at| u16_in(message, at));
    // One question, nothing else but OPT and a signature: no honest query has more, and a crafted one would
    // cost time to read.
    if counts[0] != 1 || counts[1] != 0 || counts[2] != 0 || counts[3] > 2 {
        return Err(WireError::Counts);
    }
    let (qname, name_end) = Name::read(message, HEADER_LEN)?;
    let end = name_end + 4;
    let question = message.get(HEADER_LEN..end).ok_or(WireError::Truncated)?;
    let (edns, signed) = parse_additional(message, end, counts[3])?;
    let (qtype, qclass) = (u16_in(message, name_end), u16_in(message, name_end + 2));
    Ok(Query { id, flags, question, qname, qtype, qclass, edns, signed })
}

fn parse_additional(message: &[u8], mut at: usize, count: u16) -> Result<(Option<Edns>, bool), WireError> {
    let (mut edns, mut signed) = (None, false);
    for _ in 0..count {
        let record = Record::read(message, at)?;
        at = record.end;
        signed |= record.rtype == rtype::TSIG;
        if record.rtype != rtype::OPT {
            continue;
        }
        // RFC 6891 §6.1.1: the owner is the root, and there is one OPT at most.
        if record.owner_len != 1 || edns.is_some() {
            return Err(WireError::Record);
        }
        edns = Some(Edns {
            udp_size: record.class,
            version: record.ttl.to_be_bytes()[1],
            dnssec_ok: u16_in(message, record.ttl_at + 2) & EDNS_DO != 0,
        });
    }
    Ok((edns, signed))
}

/// What decides whether a message is passed on as it is, and to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope {
    /// Message id.
    pub(crate) id: u16,
    /// Opcode, as it stands in the flags.
    pub(crate) opcode: u16,
    /// Of an update its zone, of a query the name asked for.
    pub(crate) name: Name,
    /// Type asked for; of an update SOA.
    pub(crate) rtype: u16,
}

impl Envelope {
    /// Reads header and first name of a request with one question (or zone, RFC 2136 §2.3); what follows is for
    /// whoever gets it.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let (id, flags) = (u16_in(message, 0), u16_in(message, 2));
        if flags & QR != 0 || u16_in(message, 4) != 1 {
            return None;
        }
        let (name, end) = Name::read(message, HEADER_LEN).ok()?;
        let fixed = message.get(end..end + 4)?;
        Some(Self { id, opcode: flags & OPCODE_MASK, name, rtype: u16_in(fixed, 0) })
    }

    /// Whether `message` answers it, as far as the header tells.
    pub(crate) fn is_answered_by(&self, message: &[u8]) -> bool {
        let flags = u16_in(message, 2);
        let header = message.len() >= HEADER_LEN && u16_in(message, 0) == self.id;
        header && flags & QR != 0 && flags & OPCODE_MASK == self.opcode
    }
}

/// Where a record's parts are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) owner_len: usize,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) ttl_at: usize,
    pub(crate) rdata_at: usize,
    pub(crate) end: usize,
}

impl Record {
    pub(crate) fn read(message: &[u8], at: usize) -> Result<Self, WireError> {
        let owner_end = skip_name(message, at)?;
        let rdata_at = owner_end + 10;
        let fixed = message.get(owner_end..rdata_at).ok_or(WireError::Truncated)?;
        let end = rdata_at + usize::from(u16_in(fixed, 8));
        if end > message.len() {
            return Err(WireError::Truncated);
        }
        let ttl = u32::from(u16_in(fixed, 4)) << 16 | u32::from(u16_in(fixed, 6));
        Ok(Self {
            owner_len: owner_end - at,
            rtype: u16_in(fixed, 0),
            class: u16_in(fixed, 2),
            ttl,
            ttl_at: owner_end + 4,
            rdata_at,
            end,
        })
    }
}

/// Where the name at `at` ends, after checking that it can be expanded: each pointer leads to before the
/// part it was found in, so following them terminates, and the whole name fits 255 octets.
pub(crate) fn skip_name(message: &[u8], at: usize) -> Result<usize, WireError> {
    let (mut here, mut part_at, mut expanded, mut end) = (at, at, 1, None);
    loop {
        let length = usize::from(*message.get(here).ok_or(WireError::Truncated)?);
        match length {
            0 => return Ok(end.unwrap_or(here + 1)),
            1..=63 => {
                here += 1 + length;
                expanded += 1 + length;
            }
            0xc0.. => {
                let low = usize::from(*message.get(here + 1).ok_or(WireError::Truncated)?);
                let target = (length & 0x3f) << 8 | low;
                if !(HEADER_LEN..part_at).contains(&target) {
                    return Err(WireError::Name);
                }
                end = end.or(Some(here + 2));
                (here, part_at) = (target, target);
            }
            _ => return Err(WireError::Name),
        }
        if expanded > crate::name::MAX_NAME {
            return Err(WireError::Name);
        }
    }
}

/// Big-endian 16 bits at `at`; 0 past the end (callers have checked the length).
#[inline]
pub(crate) fn u16_in(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(pair) => u16::from_be_bytes([pair[0], pair[1]]),
        None => 0,
    }
}

/// Overwrites 16 bits at `at`, if they exist.
#[inline]
pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(pair) = bytes.get_mut(at..at + 2) {
        pair.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\x01\x03WwW\x07example\x02de\0\0\x01\0\x01\
        \0\0\x29\x10\x00\0\0\x80\0\0\0";

    fn header_rcode(message: &[u8]) -> Rcode {
        match parse_query(message) {
            Err(Reject::Header { rcode, .. }) => rcode,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_query_with_edns() {
        let query = parse_query(QUERY).unwrap();
        assert_eq!((query.id, query.qtype, query.qclass), (0x1234, 1, 1));
        assert_eq!(query.qname.to_string(), "www.example.de.");
        assert_eq!(&query.question[..4], b"\x03WwW");
        assert_eq!(query.edns, Some(Edns { udp_size: 4096, version: 0, dnssec_ok: true }));
        assert_eq!(query.udp_limit(), 1232);
    }

    #[test]
    fn every_truncation_is_refused() {
        for end in 0..QUERY.len() {
            assert!(parse_query(&QUERY[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn responses_are_dropped_and_other_opcodes_not_implemented() {
        let mut message = QUERY.to_vec();
        message[2] |= 0x80;
        assert_eq!(parse_query(&message).unwrap_err(), Reject::Drop);
        for opcode in [1u8, 2, 4, 5, 6, 15] {
            let mut message = QUERY.to_vec();
            message[2] = opcode << 3;
            assert_eq!(header_rcode(&message), Rcode::NOTIMP);
        }
    }

    #[test]
    fn counts_other_than_one_question_are_malformed() {
        for (at, value) in [(5, 0), (5, 2), (7, 1), (9, 1), (11, 3)] {
            let mut message = QUERY.to_vec();
            message[at] = value;
            assert_eq!(header_rcode(&message), Rcode::FORMERR, "{at}");
        }
    }

    #[test]
    fn two_opt_records_are_malformed() {
        let mut message = QUERY.to_vec();
        message[11] = 2;
        message.extend_from_slice(&QUERY[QUERY.len() - 11..]);
        assert_eq!(header_rcode(&message), Rcode::FORMERR);
    }

    #[test]
    fn pointers_lead_backwards() {
        let mut message = vec![0; 14];
        message.extend_from_slice(&[0xc0, 12]);
        assert_eq!(skip_name(&message, 14), Ok(16));
        for target in [14, 15, 0, 11] {
            message[15] = target;
            assert_eq!(skip_name(&message, 14), Err(WireError::Name), "{target}");
        }
    }
}
