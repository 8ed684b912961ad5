//! Zones, names, ports and addresses of the networks.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{host_range, not_a_host, overlap, unique};
use crate::board::Board;
use crate::document::At;
use crate::raw::{RawNetwork, RawSite};
use crate::report::Findings;
use crate::site::Zone;

/// Schema 1 knows one way to the Internet, and a gateway needs somebody behind it.
pub(super) fn zones(site: &RawSite, findings: &mut Findings) {
    let first_line = site.networks.first().map_or(0..0, |network| network.zone.span.clone());
    let mut externals = site.networks.iter().filter(|network| network.zone.value == Zone::External);
    match externals.next() {
        None => findings.add(&first_line, "no network is external", "exactly one network has zone external"),
        Some(first) => {
            for network in externals {
                let message = format!("network `{}` is external already", first.name.value);
                findings.add(&network.zone.span, message, "exactly one network has zone external");
            }
        }
    }
    if !site.networks.iter().any(|network| network.zone.value == Zone::Internal) {
        findings.add(&first_line, "no network is internal", "at least one network has zone internal");
    }
}

pub(super) fn names(site: &RawSite, findings: &mut Findings) {
    let names = site.networks.iter().map(|network| &network.name);
    unique(names, |name| format!("network `{name}`"), "each network has a name of its own", findings);
}

pub(super) fn ports(site: &RawSite, board: &Board, findings: &mut Findings) {
    let allowed = board.port_names().collect::<Vec<_>>().join(", ");
    let mut taken = HashMap::new();
    for network in &site.networks {
        if network.ports.value.is_empty() {
            let message = format!("network `{}` has no port", network.name.value);
            findings.add(&network.ports.span, message, format!("ports of this board: {allowed}"));
        }
        for At { value, span } in &network.ports.value {
            if !board.port_names().any(|port| port == value) {
                let message = format!("board {} has no port `{value}`", board.name);
                findings.add(span, message, format!("ports of this board: {allowed}"));
            } else if let Some(user) = taken.insert(value, &network.name.value) {
                let message = format!("port `{value}` belongs to network `{user}` already");
                findings.add(span, message, "each port can be used once");
            }
        }
    }
}

/// The box's address and its gateway.
pub(super) fn addressing(network: &RawNetwork, findings: &mut Findings) {
    let span = &network.address.span;
    match (network.zone.value, network.address.value) {
        (Zone::Internal, None) => {
            let help = "the box's address with prefix length, for example \"192.168.77.1/24\"";
            findings.add(span, "an internal network needs a fixed address", help);
        }
        (Zone::Internal, Some(net)) => fixed_address(span, net, 30, findings),
        (Zone::External, Some(net)) => fixed_address(span, net, 31, findings),
        (Zone::External, None) => {}
    }
    gateway(network, findings);
}

fn fixed_address(span: &std::ops::Range<usize>, net: Ipv4Net, longest: u8, findings: &mut Findings) {
    if !(8..=longest).contains(&net.prefix_len()) {
        let message = format!("a network of prefix length {} cannot be used here", net.prefix_len());
        return findings.add(span, message, format!("prefix length 8 to {longest}"));
    }
    let help = format!("addresses of hosts: {}", host_range(net));
    if !is_unicast(net.addr()) {
        let message = format!("{} is not an address a host can have", net.addr());
        findings.add(span, message, "a unicast address, for example \"192.168.77.1/24\"");
    } else if let Some(message) = not_a_host(net.addr(), net) {
        findings.add(span, message, help);
    }
}

fn gateway(network: &RawNetwork, findings: &mut Findings) {
    match (network.zone.value, network.address.value, &network.gateway) {
        (Zone::External, Some(net), None) => {
            let help = format!("gateway = \"…\", one of {}", host_range(net));
            findings.add(&network.address.span, "a fixed external address needs a `gateway`", help);
        }
        (Zone::External, Some(net), Some(gateway)) => {
            let own = (gateway.value == net.addr()).then(|| format!("{} is the box itself", gateway.value));
            if let Some(message) = not_a_host(gateway.value, net).or(own) {
                let help = format!("the provider's router, one of {}", host_range(net));
                findings.add(&gateway.span, format!("gateway {message}"), help);
            }
        }
        (Zone::External, None, Some(gateway)) => {
            let help = "leave it out: DHCP brings the gateway";
            findings.add(&gateway.span, "`gateway` does not go with address \"dhcp\"", help);
        }
        (Zone::Internal, _, Some(gateway)) => {
            let help = "leave it out: the box is the gateway of its internal networks";
            findings.add(&gateway.span, "an internal network has no `gateway`", help);
        }
        _ => {}
    }
}

/// No two networks may share addresses: the box could not tell where a packet belongs.
pub(super) fn overlaps(site: &RawSite, findings: &mut Findings) {
    let fixed = |network: &'_ RawNetwork| network.address.value.map(|net| net.trunc());
    for (index, network) in site.networks.iter().enumerate() {
        let Some(net) = fixed(network) else { continue };
        let earlier = site.networks[..index].iter().find_map(|other| {
            let other_net = fixed(other)?;
            overlap(net, other_net).then_some((&other.name.value, other_net))
        });
        if let Some((name, other)) = earlier {
            let message = format!("network {net} overlaps {other} of network `{name}`");
            findings.add(&network.address.span, message, "networks must not share addresses");
        }
    }
}

/// Whether a host can have this address (RFC 6890: not this-network, loopback, link-local, multicast, reserved).
pub(super) fn is_unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 224 && !address.is_loopback() && !address.is_link_local()
}
