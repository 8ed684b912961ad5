//! Pools, lease times and reservations of one network.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::Ipv4Net;

use super::network::is_unicast;
use super::{host_range, not_a_host};
use crate::document::At;
use crate::raw::{RawDhcp, RawNetwork};
use crate::report::Findings;
use crate::site::Zone;

/// Below two minutes clients would renew every minute and a reboot of the box would outlast the leases.
const MIN_LEASE_TIME_S: i64 = 120;
/// Beyond a month a changed option would never reach some clients.
const MAX_LEASE_TIME_S: i64 = 30 * 24 * 3600;

pub(super) fn service(network: &RawNetwork, findings: &mut Findings) {
    let Some(dhcp) = &network.dhcp else { return };
    if network.zone.value == Zone::External {
        let help = "the provider's router serves the external network; leave [network.dhcp] out";
        findings.add(&dhcp.span, "DHCP is not served to an external network", help);
        return;
    }
    lease_time(dhcp, findings);
    ntp_servers(dhcp, findings);
    duplicates(dhcp, findings);
    if dhcp.pools.value.is_empty() && dhcp.reservations.is_empty() {
        let help = "a range in `pools`, or a [[network.dhcp.reservation]]";
        findings.add(&dhcp.pools.span, "DHCP has no address to give", help);
    }
    // Without the box's own address there is no network to compare with; that has been reported.
    if let Some(net) = network.address.value {
        pools(dhcp, net, findings);
        reservations(dhcp, net, findings);
    }
}

fn lease_time(dhcp: &RawDhcp, findings: &mut Findings) {
    let At { value, span } = &dhcp.lease_time_s;
    if !(MIN_LEASE_TIME_S..=MAX_LEASE_TIME_S).contains(value) {
        let help = format!("{MIN_LEASE_TIME_S} (two minutes) to {MAX_LEASE_TIME_S} (30 days) seconds");
        findings.add(span, format!("a lease time of {value} s is not possible"), help);
    }
}

fn ntp_servers(dhcp: &RawDhcp, findings: &mut Findings) {
    for At { value, span } in dhcp.ntp_servers.iter().filter(|server| !is_unicast(server.value)) {
        let help = "addresses of NTP servers; an empty list announces the box itself";
        findings.add(span, format!("{value} cannot be an NTP server"), help);
    }
}

fn pools(dhcp: &RawDhcp, net: Ipv4Net, findings: &mut Findings) {
    for (index, At { value, span }) in dhcp.pools.value.iter().enumerate() {
        let (first, last) = *value;
        let allowed = format!("addresses of hosts: {}", host_range(net));
        if first > last {
            let help = format!("the lower address first: \"{last}-{first}\"");
            findings.add(span, format!("the pool is reversed: {first} is behind {last}"), help);
        } else if let Some(why) = not_a_host(first, net).or_else(|| not_a_host(last, net)) {
            findings.add(span, format!("the pool does not fit: {why}"), allowed);
        } else if (first..=last).contains(&net.addr()) {
            let message = format!("the pool contains {}, the box's own address", net.addr());
            findings.add(span, message, "end the pool before it, or begin behind it");
        } else if let Some((from, to)) = overlapping(&dhcp.pools.value[..index], first, last) {
            findings.add(span, format!("the pool overlaps the pool {from}-{to}"), "each address in one pool");
        }
    }
}

fn overlapping(
    earlier: &[At<(Ipv4Addr, Ipv4Addr)>],
    first: Ipv4Addr,
    last: Ipv4Addr,
) -> Option<(Ipv4Addr, Ipv4Addr)> {
    earlier.iter().map(|pool| pool.value).find(|(from, to)| first <= *to && *from <= last)
}

fn reservations(dhcp: &RawDhcp, net: Ipv4Net, findings: &mut Findings) {
    for At { value, span } in dhcp.reservations.iter().map(|reservation| &reservation.address) {
        let own = (*value == net.addr()).then(|| format!("{value} is the box itself"));
        if let Some(why) = not_a_host(*value, net).or(own) {
            let help = format!("addresses of hosts: {}", host_range(net));
            findings.add(span, format!("the reservation does not fit: {why}"), help);
        }
    }
    for At { value, span } in dhcp.reservations.iter().map(|reservation| &reservation.mac) {
        if *value == [0; 6] || value[0] & 1 == 1 {
            let message = "a multicast or zero hardware address belongs to no device";
            findings.add(span, message, "the address printed on the device, for example 52:54:00:12:34:56");
        }
    }
}

fn duplicates(dhcp: &RawDhcp, findings: &mut Findings) {
    let macs = dhcp.reservations.iter().map(|r| (r.mac.value, &r.mac.span));
    unique(macs, "hardware address", findings);
    let addresses = dhcp.reservations.iter().map(|r| (r.address.value, &r.address.span));
    unique(addresses, "address", findings);
}

fn unique<'a, T: Hash + Eq>(
    values: impl Iterator<Item = (T, &'a Range<usize>)>,
    what: &str,
    findings: &mut Findings,
) {
    let mut taken = HashMap::new();
    for (value, span) in values {
        if let Some(start) = taken.insert(value, span.start) {
            let line = findings.line(start);
            let message = format!("this {what} is reserved already, in line {line}");
            findings.add(span, message, format!("each {what} can be reserved once in a network"));
        }
    }
}
