//! Names in the office's domain, upstream resolvers and the operator's password hash.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use super::network::is_unicast;
use super::own_addresses;
use crate::document::At;
use crate::raw::RawSite;
use crate::report::Findings;

/// A hash that needs more memory than this would not fit beside a gateway's other work (64 MiB).
const MAX_HASH_MEMORY_KIB: u32 = 64 * 1024;
/// Passes over that memory; more would keep a slow box busy for a minute per attempt.
const MAX_HASH_PASSES: u32 = 16;

/// Host name, reservations and fixed names share one domain: each name once.
pub(super) fn host_names(site: &RawSite, findings: &mut Findings) {
    let reservations = site.networks.iter().filter_map(|n| n.dhcp.as_ref()).flat_map(|d| &d.reservations);
    let names = std::iter::once(&site.office.host_name)
        .chain(reservations.map(|reservation| &reservation.name))
        .chain(site.hosts.iter().map(|host| &host.name));
    let mut taken: HashMap<&str, &Range<usize>> = HashMap::new();
    for At { value, span } in names {
        if let Some(first) = taken.get(value.as_str()) {
            let line = findings.line(first.start);
            let help = format!("each name can be used once in {}", site.office.domain.value);
            findings.add(span, format!("the name `{value}` is taken already, in line {line}"), help);
        } else {
            taken.insert(value, span);
        }
    }
    for At { value, span } in site.hosts.iter().map(|host| &host.address) {
        if !is_unicast(*value) {
            findings.add(span, format!("{value} is not an address a host can have"), "");
        }
    }
}

pub(super) fn forwarders(site: &RawSite, findings: &mut Findings) {
    for (index, At { value, span }) in site.forwarders.iter().enumerate() {
        let own = own_addresses(site).any(|address| IpAddr::V4(address) == *value);
        let help = "addresses of other DNS servers; an empty list uses those of the WAN lease";
        if own || value.is_loopback() {
            findings.add(span, format!("{value} is the box itself: it cannot ask itself"), help);
        } else if !usable_server(*value) {
            findings.add(span, format!("{value} cannot be a DNS server"), help);
        } else if site.forwarders[..index].iter().any(|other| other.value == *value) {
            findings.add(span, format!("forwarder {value} is there already"), "");
        }
    }
}

fn usable_server(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_unicast(address),
        // Link-local needs an interface, which the file cannot name here.
        IpAddr::V6(address) => {
            !address.is_unspecified() && !address.is_multicast() && !address.is_unicast_link_local()
        }
    }
}

pub(super) fn password_hash(site: &RawSite, findings: &mut Findings) {
    let Some(At { value, span }) = &site.operator_password_hash else { return };
    if !is_argon2id(value) {
        let help = "a string $argon2id$v=19$…; `cargo xtask site hash-password` makes one";
        // Somebody may have put the password itself there.
        findings.conceal(span);
        findings.add(span, "`operator-password-hash` is not an argon2id hash", help);
    }
}

/// The PHC string format: `$argon2id$v=19$m=M,t=T,p=P$SALT$HASH`.
fn is_argon2id(text: &str) -> bool {
    let fields: Vec<&str> = text.split('$').collect();
    let ["", "argon2id", "v=19", parameters, salt, hash] = fields.as_slice() else { return false };
    let base64 = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
        lengths.contains(&text.len()) && text.len() % 4 != 1 && text.bytes().all(allowed)
    };
    // 8 to 48 bytes of salt, 16 to 64 of hash (RFC 9106, sections 3.1 and 4).
    are_parameters(parameters) && base64(salt, 11..=64) && base64(hash, 22..=86)
}

fn are_parameters(text: &str) -> bool {
    let fields: Vec<&str> = text.split(',').collect();
    let [m, t, p] = fields.as_slice() else { return false };
    let number = |field: &str, key: &str| field.strip_prefix(key)?.parse::<u32>().ok();
    let (memory, passes, lanes) = (number(m, "m="), number(t, "t="), number(p, "p="));
    memory.is_some_and(|m| (8..=MAX_HASH_MEMORY_KIB).contains(&m))
        && passes.is_some_and(|t| (1..=MAX_HASH_PASSES).contains(&t))
        && lanes.is_some_and(|p| (1..=16).contains(&p) && memory.is_some_and(|m| m >= 8 * p))
}
