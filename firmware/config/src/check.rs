//! What the values of a site file mean together: every rule that needs more than one value.
//!
//! All rules run, whatever the others found; each reports at the value that is wrong. Parts: `network`
//! (ports, zones, addresses), `dhcp` (pools, reservations), `office` (names, DNS, time, console),
//! `samba` (Active Directory, shares), `branch` (the domain's other sites) and `tunnel`.

mod branch;
mod dhcp;
mod network;
mod office;
mod samba;
mod tunnel;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::board::Board;
use crate::document::At;
use crate::raw::RawSite;
use crate::report::Findings;

/// Reports every mistake in the meaning of the site.
pub(crate) fn site(site: &RawSite, board: &Board, findings: &mut Findings) {
    network::zones(site, findings);
    network::names(site, findings);
    network::ports(site, board, findings);
    for network in &site.networks {
        network::addressing(network, findings);
        dhcp::service(network, findings);
    }
    network::overlaps(site, findings);
    office::host_names(site, findings);
    office::forwarders(site, findings);
    office::password_hash(site, findings);
    samba::service(site, findings);
    branch::sites(site, findings);
    tunnel::tunnels(site, findings);
}

/// The box's own fixed addresses.
fn own_addresses(site: &RawSite) -> impl Iterator<Item = Ipv4Addr> {
    site.networks.iter().filter_map(|network| network.address.value).map(|net| net.addr())
}

/// Each value once; `what` says which value is there already.
fn unique<'a, T: Eq + Hash + 'a>(
    values: impl Iterator<Item = &'a At<T>>,
    what: impl Fn(&T) -> String,
    help: &str,
    findings: &mut Findings,
) {
    let mut taken = HashMap::new();
    for At { value, span } in values {
        if let Some(start) = taken.insert(value, span.start) {
            let line = findings.line(start);
            findings.add(span, format!("{} is there already, in line {line}", what(value)), help);
        }
    }
}

/// Whether both have an address in common.
fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Why `address` cannot belong to a host of `net`, if so.
fn not_a_host(address: Ipv4Addr, net: Ipv4Net) -> Option<String> {
    if !net.contains(&address) {
        return Some(format!("{address} is outside the network {}", net.trunc()));
    }
    // RFC 3021: a /31 has two hosts and nothing else.
    let reserved = net.prefix_len() < 31;
    if reserved && address == net.network() {
        return Some(format!("{address} is the address of the network {} itself", net.trunc()));
    }
    if reserved && address == net.broadcast() {
        return Some(format!("{address} is the broadcast address of {}", net.trunc()));
    }
    None
}

/// The addresses hosts of `net` can have, for people.
fn host_range(net: Ipv4Net) -> String {
    if net.prefix_len() >= 31 {
        return format!("{} to {}", net.network(), net.broadcast());
    }
    let (network, broadcast) = (net.network().to_bits(), net.broadcast().to_bits());
    format!("{} to {}", Ipv4Addr::from_bits(network + 1), Ipv4Addr::from_bits(broadcast - 1))
}
