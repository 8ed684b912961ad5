//! Which queries are answered without looking anything up, and what an upstream's answer means.

use crate::answer::Answer;
use crate::response::{Synthesis, Transport};
use crate::wire::{CLASS_IN, Query, Rcode, rtype};

/// Life of the answer to ANY: a day would do (RFC 8482 §4.2), an hour shows changes sooner.
const ANY_TTL_S: u32 = 3_600;

/// What to do with an upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Deliver,
    AskOverTcp,
    AskWithoutEdns,
    Failed,
}

pub(crate) fn verdict(answer: &Answer, transport: Transport, asked_edns: bool) -> Verdict {
    const FORMERR: u16 = 1;
    const NOTIMP: u16 = 4;
    const BADVERS: u16 = 16;
    let no_edns = matches!(answer.rcode, FORMERR | NOTIMP) && !answer.edns || answer.rcode == BADVERS;
    match (answer.truncated, transport) {
        _ if asked_edns && no_edns => Verdict::AskWithoutEdns,
        (true, Transport::Udp) => Verdict::AskOverTcp,
        (true, Transport::Tcp) => Verdict::Failed,
        // NOERROR, NXDOMAIN, and YXDOMAIN (RFC 6672 §2.2: a substitution that became too long) are answers.
        (false, _) if matches!(answer.rcode, 0 | 3 | 6) && !answer.wire.is_empty() => Verdict::Deliver,
        (false, _) => Verdict::Failed,
    }
}

/// Queries that are answered without looking anything up.
pub(crate) fn refused(query: &Query<'_>) -> Option<Rcode> {
    match query.qtype {
        _ if query.edns.is_some_and(|edns| edns.version > 0) => Some(Rcode::BADVERS),
        // CHAOS and the rest tell strangers about the server, nothing else.
        _ if query.qclass != CLASS_IN => Some(Rcode::REFUSED),
        rtype::AXFR | rtype::IXFR => Some(Rcode::REFUSED),
        rtype::TKEY | rtype::TSIG => Some(Rcode::NOTIMP),
        rtype::OPT | 0 => Some(Rcode::FORMERR),
        _ => None,
    }
}

/// The minimal answer to ANY (RFC 8482 §4.2).
pub(crate) fn write_any(query: &Query<'_>, limit: usize, out: &mut Vec<u8>) {
    let mut message = Synthesis::synthetic(query, Rcode::NOERROR, out);
    message.answer(rtype::HINFO, ANY_TTL_S, b"\x07RFC8482\x00");
    message.finish(limit);
}
