//! Tunnels: whose packets go where must have one answer, and somebody must call.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use ipnet::Ipv4Net;

use super::network::is_unicast;
use super::{overlap, own_addresses, unique};
use crate::document::At;
use crate::raw::{RawPeer, RawSite, RawTunnel};
use crate::report::Findings;
use crate::site::EndpointHost;

/// Larger networks than the largest private one are nobody's.
const SHORTEST_PREFIX: u8 = 8;
const NETWORKS_HELP: &str = "networks behind different peers, and the office's own, must not share addresses";

pub(super) fn tunnels(site: &RawSite, findings: &mut Findings) {
    let names = site.tunnels.iter().map(|tunnel| &tunnel.name);
    unique(names, |name| format!("tunnel `{name}`"), "each tunnel has a name of its own", findings);
    let ports = site.tunnels.iter().filter_map(|tunnel| tunnel.listen_port.as_ref());
    let help = "each tunnel that is called has a port of its own";
    unique(ports, |port| format!("listen-port {port}"), help, findings);
    addresses(site, findings);
    networks(site, findings);
    for tunnel in &site.tunnels {
        peers(tunnel, findings);
        tunnel.peers.iter().for_each(|peer| endpoint(site, peer, findings));
    }
}

/// The box's own addresses inside its tunnels.
fn addresses(site: &RawSite, findings: &mut Findings) {
    for (index, tunnel) in site.tunnels.iter().enumerate() {
        let At { value, span } = &tunnel.address;
        if value.prefix_len() < SHORTEST_PREFIX || !is_unicast(value.addr()) {
            let help = "a unicast address, for example \"10.255.0.2/32\"";
            findings.add(span, format!("{value} is not an address a host can have"), help);
            continue;
        }
        let networks = own_networks(site);
        let others =
            site.tunnels[..index].iter().map(|other| (&other.name.value, other.address.value.trunc()));
        if let Some((name, other)) = networks.chain(others).find(|(_, other)| overlap(*other, *value)) {
            let message = format!("{} overlaps {other} of `{name}`", value.trunc());
            findings.add(span, message, "inside a tunnel the box has an address of its own, often a /32");
        }
    }
}

/// Every network behind a peer.
fn networks(site: &RawSite, findings: &mut Findings) {
    let mut taken: Vec<(&String, Ipv4Net)> = own_networks(site).collect();
    for (tunnel, peer) in all_peers(site) {
        // The network of the tunnel's own address may be behind its peer; that of another may not.
        let others = site.tunnels.iter().filter(|other| other.name.value != tunnel.name.value);
        let others = others.map(|other| (&other.name.value, other.address.value.trunc()));
        let others: Vec<_> = others.collect();
        if peer.allowed_ips.value.is_empty() {
            let message = format!("peer `{}` has no network behind it", peer.name.value);
            findings.add(&peer.allowed_ips.span, message, "allowed-ips = [\"…\"]");
        }
        for At { value, span } in &peer.allowed_ips.value {
            if value.prefix_len() == 0 {
                let help = "the networks of the other office; the way to the Internet stays the provider's";
                findings.add(span, "not everything can go through a tunnel", help);
            } else if value.prefix_len() < SHORTEST_PREFIX || !is_unicast(value.addr()) {
                let help = format!("a network of hosts, at most a /{SHORTEST_PREFIX}");
                findings.add(span, format!("{value} cannot be behind a peer"), help);
            } else if *value != value.trunc() {
                findings.add(span, format!("{value} is a host in a network"), value.trunc().to_string());
            } else if let Some((name, other)) =
                taken.iter().chain(&others).find(|(_, other)| overlap(*other, *value))
            {
                findings.add(span, format!("network {value} overlaps {other} of `{name}`"), NETWORKS_HELP);
            } else if value.prefix_len() == 32 && value.addr() == tunnel.address.value.addr() {
                findings.add(span, format!("{} is the box itself", value.addr()), NETWORKS_HELP);
            } else {
                taken.push((&peer.name.value, *value));
            }
        }
    }
}

fn peers(tunnel: &RawTunnel, findings: &mut Findings) {
    if tunnel.peers.is_empty() {
        let message = format!("tunnel `{}` has no peer", tunnel.name.value);
        findings.add(&tunnel.name.span, message, "at least one [[tunnel.peer]]");
    }
    let names = tunnel.peers.iter().map(|peer| &peer.name);
    unique(names, |name| format!("peer `{name}`"), "each peer of a tunnel has a name of its own", findings);
    let keys = tunnel.peers.iter().map(|peer| &peer.public_key);
    unique(keys, |_| "a peer with this key".to_owned(), "each peer has a key of its own", findings);
    for peer in tunnel.peers.iter().filter(|peer| peer.endpoint.is_none() && tunnel.listen_port.is_none()) {
        let message = format!("neither this box nor `{}` can call the other", peer.name.value);
        let help = "an `endpoint` of the peer, or a `listen-port` of the tunnel";
        findings.add(&peer.name.span, message, help);
    }
}

/// A peer that is called must be reached without the tunnel.
fn endpoint(site: &RawSite, peer: &RawPeer, findings: &mut Findings) {
    let Some(At { value, span }) = &peer.endpoint else { return };
    let address = match &value.host {
        EndpointHost::Address(address) => *address,
        EndpointHost::Name(name) => return endpoint_name(site, name, span, findings),
    };
    let inside = site.tunnels.iter().map(|tunnel| tunnel.address.value.addr());
    if !is_unicast(address) {
        findings.add(
            span,
            format!("{address} is not an address a host can have"),
            "the peer's public address",
        );
    } else if own_addresses(site).chain(inside).any(|own| own == address) {
        findings.add(span, format!("{address} is the box itself"), "the address of the other end");
    } else if let Some(tunnel) = tunnel_to(site, address) {
        let message = format!("{address} lies behind the tunnel `{}`", tunnel.name.value);
        findings.add(span, message, "an address that is reached without a tunnel");
    }
}

/// Its name must be found out without the tunnel, too.
fn endpoint_name(site: &RawSite, name: &str, span: &Range<usize>, findings: &mut Findings) {
    let behind = |server: &At<IpAddr>| match server.value {
        IpAddr::V4(server) => tunnel_to(site, server).is_some(),
        IpAddr::V6(_) => false,
    };
    if !site.forwarders.is_empty() && site.forwarders.iter().all(behind) {
        let message = format!("nobody can be asked for {name}: every forwarder lies behind a tunnel");
        findings.add(span, message, "an address here, or one forwarder that is reached without a tunnel");
    }
}

/// The tunnel behind which an address lies. "Everything" is refused by itself.
fn tunnel_to(site: &RawSite, address: Ipv4Addr) -> Option<&RawTunnel> {
    let has = |net: &At<Ipv4Net>| net.value.prefix_len() > 0 && net.value.contains(&address);
    let mut peers = all_peers(site);
    peers.find(|(_, peer)| peer.allowed_ips.value.iter().any(has)).map(|(tunnel, _)| tunnel)
}

fn all_peers(site: &RawSite) -> impl Iterator<Item = (&RawTunnel, &RawPeer)> {
    site.tunnels.iter().flat_map(|tunnel| tunnel.peers.iter().map(move |peer| (tunnel, peer)))
}

/// Fixed networks of the office, with their names.
fn own_networks(site: &RawSite) -> impl Iterator<Item = (&String, Ipv4Net)> {
    site.networks.iter().filter_map(|network| Some((&network.name.value, network.address.value?.trunc())))
}
