//! Answers from the local zones.

use std::net::Ipv4Addr;

use crate::response::Synthesis;
use crate::wire::{Query, Rcode, rtype};
use crate::zone::{Data, Found, NEGATIVE_TTL_S, Zones};

/// TTL of local data: short, because a lease may move its name, and asking again costs one packet on the LAN.
const LOCAL_TTL_S: u32 = 60;

/// Writes the answer of the local zones, if the name is theirs.
#[inline]
pub(crate) fn answer(zones: &Zones, query: &Query<'_>, limit: usize, out: &mut Vec<u8>) -> bool {
    let (rcode, data, apex) = match zones.find(&query.qname) {
        Found::Outside if is_bare_host(query) => (Rcode::NXDOMAIN, Data::None, None),
        Found::Outside => return false,
        Found::Exists { data, apex } => (Rcode::NOERROR, data, apex),
        Found::Absent { apex } => (Rcode::NXDOMAIN, Data::None, apex),
    };
    let mut message = match (rcode, apex) {
        (Rcode::NXDOMAIN, None) => Synthesis::synthetic(query, rcode, out),
        _ => Synthesis::authoritative(query, rcode, out),
    };
    let mut found = write_data(&mut message, query.qtype, data);
    if apex == Some(0) {
        found |= write_apex(&mut message, zones, query.qtype);
    }
    if let Some(apex) = apex.filter(|_| !found) {
        // RFC 2308 §3: the SOA tells how long this may be believed.
        message.authority(apex, rtype::SOA, NEGATIVE_TTL_S, zones.soa());
    }
    message.finish(limit);
    true
}

/// Addresses of a name without a dot are never asked for upstream: it would leak the office's host names to
/// the root servers. Other types are (`de. NS` is an honest question).
fn is_bare_host(query: &Query<'_>) -> bool {
    let wire = query.qname.wire();
    let single = wire.first().is_some_and(|&length| length > 0 && usize::from(length) + 2 == wire.len());
    single && matches!(query.qtype, rtype::A | rtype::AAAA)
}

fn write_data(message: &mut Synthesis<'_, '_>, qtype: u16, data: Data<'_>) -> bool {
    match (data, qtype) {
        (Data::Addresses(addresses), rtype::A | rtype::ANY) => {
            for address in addresses {
                message.answer(rtype::A, LOCAL_TTL_S, &address.octets());
            }
            true
        }
        (Data::Pointer(target), rtype::PTR | rtype::ANY) => {
            message.answer(rtype::PTR, LOCAL_TTL_S, target);
            true
        }
        (Data::Loopback, rtype::A | rtype::ANY) => {
            message.answer(rtype::A, LOCAL_TTL_S, &Ipv4Addr::LOCALHOST.octets());
            true
        }
        (Data::Loopback, rtype::AAAA) => {
            message.answer(rtype::AAAA, LOCAL_TTL_S, &std::net::Ipv6Addr::LOCALHOST.octets());
            true
        }
        _ => false,
    }
}

fn write_apex(message: &mut Synthesis<'_, '_>, zones: &Zones, qtype: u16) -> bool {
    match qtype {
        rtype::SOA | rtype::ANY => message.answer(rtype::SOA, LOCAL_TTL_S, zones.soa()),
        rtype::NS => message.answer(rtype::NS, LOCAL_TTL_S, zones.ns().wire()),
        _ => return false,
    }
    true
}
