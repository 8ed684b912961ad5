//! The table `inet kontor` as text for `nft -f -`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::Ipv4Net;
use kontor_config::site::{Network, Tunnel};

use crate::{Site, Zone};

/// Family and name of the one table; nothing else in the kernel's ruleset is touched.
pub const TABLE: &str = "inet kontor";

/// Ports that components serve the internal networks on, beside the base's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Openings {
    /// Over TCP.
    pub tcp: BTreeSet<u16>,
    /// Over UDP.
    pub udp: BTreeSet<u16>,
}

/// The beginning of what does not depend on the site. The sets and maps it refers to come before it.
const INPUT: &str = r"
	# Before conntrack: a forged packet must not even create a connection.
	chain spoofed {
		type filter hook prerouting priority raw; policy accept;
		meta nfproto ipv4 iifname vmap @source_check
	}
	chain source_internal {
		iifname . ip saddr @internal_sources return
		# A client without an address asks for one (RFC 2131).
		ip saddr 0.0.0.0 udp sport 68 udp dport 67 return
		counter drop
	}
	# Every network behind a peer; WireGuard has checked which peer it was.
	chain source_tunnel {
		iifname . ip saddr @tunnel_sources return
		counter drop
	}
	chain source_external {
		ip saddr @internal_networks counter drop
		ip saddr @no_source counter drop
	}

	chain input {
		type filter hook input priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname vmap @input_from
	}
	chain input_external {
		# Answers to our own DHCP client that do not belong to a connection (broadcast, other server address).
		meta nfproto ipv4 udp sport 67 udp dport 68 accept
		udp dport @tunnel_ports accept
		jump icmpv6_link
		counter drop
	}
	chain input_internal {
		udp dport 67 accept
		goto input_office
	}
	# From the other end of a tunnel, too.
	chain input_office {
		icmp type echo-request accept
		icmpv6 type echo-request accept
		udp dport { 53, 123 } accept
		tcp dport 53 accept
";

/// The rest; between the two are the ports of components.
const AFTER_OPENINGS: &str = r"		jump icmpv6_link
		# The office's own people learn at once that there is nothing here.
		counter
		meta l4proto tcp reject with tcp reset
		reject with icmpx port-unreachable
	}
	# RFC 4890, section 4.4.1: a link without these does not work. Hop limit 255 proves that no router
	# has forwarded the packet (RFC 4861); listener discovery comes from link-local addresses (RFC 3810).
	chain icmpv6_link {
		icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept
		icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } ip6 saddr { ::, fe80::/10 } accept
		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
	}

	# Lines with a smaller MTU than the office's (PPPoE at the provider, a tunnel): no segment too big for the
	# way, in either direction. Before the filter, which ends at its first accept.
	chain segment_size {
		type filter hook forward priority mangle; policy accept;
		iifname @external tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		oifname @external tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		iifname @tunnels tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		oifname @tunnels tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname vmap @forward_from
		counter
	}
	chain forward_internal {
		oifname @tunnels accept
		# What belongs into a tunnel never leaves without it.
		ip daddr @tunnel_networks counter reject with icmpx admin-prohibited
		oifname @external accept
		oifname @internal accept
	}
	chain forward_tunnel {
		oifname @internal accept
	}

	chain translated {
		type nat hook postrouting priority srcnat; policy accept;
		oifname @external ip saddr @internal_networks masquerade
	}
}
";

/// Renders the whole firewall of a site whose components are reached on the ports of `openings`.
///
/// The text is one transaction for `nft -f -`: it makes sure that the table exists, deletes it, and
/// builds it anew. Names in it come from the validated site (ports and network names), so nothing needs
/// to be quoted beyond the quotation marks.
#[must_use]
pub fn render(site: &Site, openings: &Openings) -> String {
    let mut text = format!("table {TABLE} {{}}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    interface_set(&mut text, "external", site, Zone::External);
    interface_set(&mut text, "internal", site, Zone::Internal);
    internal_networks(&mut text, site);
    tunnels(&mut text, site);
    text.push_str(
        "\t# Addresses no packet can come from: this-network, loopback, multicast, reserved (RFC 6890).\n",
    );
    let no_source = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"].map(str::to_owned);
    block(&mut text, "set no_source", "ipv4_addr", true, &no_source);
    zone_map(&mut text, "source_check", site, (None, "tunnel"), "jump source");
    zone_map(&mut text, "input_from", site, (Some("accept"), "office"), "goto input");
    forward_map(&mut text, site);
    let open: Vec<_> = [("tcp", &openings.tcp), ("udp", &openings.udp)]
        .into_iter()
        .filter(|(_, ports)| !ports.is_empty())
        .collect();
    for (protocol, ports) in &open {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        block(&mut text, &format!("set component_{protocol}"), "inet_service", false, &ports);
    }
    text.push_str(INPUT);
    for (protocol, _) in &open {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\t\t{protocol} dport @component_{protocol} accept");
    }
    text.push_str(AFTER_OPENINGS);
    text
}

fn interface_set(text: &mut String, name: &str, site: &Site, zone: Zone) {
    let interfaces: Vec<_> = site.networks_in(zone).map(quoted).collect();
    block(text, &format!("set {name}"), "ifname", false, &interfaces);
}

fn internal_networks(text: &mut String, site: &Site) {
    let fixed =
        || site.networks_in(Zone::Internal).filter_map(|n| Some((quoted(n), n.static_address()?.trunc())));
    let networks: Vec<_> = fixed().map(|(_, net)| net.to_string()).collect();
    block(text, "set internal_networks", "ipv4_addr", true, &networks);
    let sources: Vec<_> = fixed().map(|(interface, net)| format!("{interface} . {net}")).collect();
    block(text, "set internal_sources", "ifname . ipv4_addr", true, &sources);
}

fn tunnels(text: &mut String, site: &Site) {
    let interfaces: Vec<_> = site.tunnels.iter().map(tunnel_interface).collect();
    block(text, "set tunnels", "ifname", false, &interfaces);
    let networks: Vec<_> = site.tunnels.iter().flat_map(Tunnel::networks).collect();
    let all: Vec<_> = Ipv4Net::aggregate(&networks).iter().map(Ipv4Net::to_string).collect();
    block(text, "set tunnel_networks", "ipv4_addr", true, &all);
    let sources = |tunnel: &Tunnel| -> Vec<String> {
        let networks = Ipv4Net::aggregate(&tunnel.networks().collect());
        networks.iter().map(|net| format!("{} . {net}", tunnel_interface(tunnel))).collect()
    };
    let sources: Vec<_> = site.tunnels.iter().flat_map(sources).collect();
    block(text, "set tunnel_sources", "ifname . ipv4_addr", true, &sources);
    let ports: Vec<_> =
        site.tunnels.iter().filter_map(|tunnel| tunnel.listen_port).map(|port| port.to_string()).collect();
    block(text, "set tunnel_ports", "inet_service", false, &ports);
}

/// A verdict map that sends each interface to the chain of its zone, and tunnels to theirs.
fn zone_map(
    text: &mut String,
    name: &str,
    site: &Site,
    (loopback, tunnel): (Option<&str>, &str),
    verdict: &str,
) {
    let mut elements: Vec<_> = loopback.iter().map(|verdict| format!("\"lo\" : {verdict}")).collect();
    for network in &site.networks {
        elements.push(format!("{} : {verdict}_{}", quoted(network), zone_name(network.zone)));
    }
    elements.extend(site.tunnels.iter().map(|t| format!("{} : {verdict}_{tunnel}", tunnel_interface(t))));
    block(text, &format!("map {name}"), "ifname : verdict", false, &elements);
}

/// Only internal networks, and tunnels to them, begin connections through the box.
fn forward_map(text: &mut String, site: &Site) {
    let internal = site.networks_in(Zone::Internal);
    let mut elements: Vec<_> = internal.map(|n| format!("{} : goto forward_internal", quoted(n))).collect();
    elements.extend(
        site.tunnels.iter().map(|tunnel| format!("{} : goto forward_tunnel", tunnel_interface(tunnel))),
    );
    block(text, "map forward_from", "ifname : verdict", false, &elements);
}

fn block(text: &mut String, head: &str, kind: &str, interval: bool, elements: &[String]) {
    let flags = if interval { " flags interval;" } else { "" };
    // nft refuses an empty list of elements.
    let elements = match elements {
        [] => String::new(),
        some => format!("\n\t\telements = {{ {} }}", some.join(", ")),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\t{head} {{\n\t\ttype {kind};{flags}{elements}\n\t}}");
}

fn quoted(network: &Network) -> String {
    format!("\"{}\"", network.interface())
}

fn tunnel_interface(tunnel: &Tunnel) -> String {
    format!("\"{}\"", tunnel.interface())
}

fn zone_name(zone: Zone) -> &'static str {
    match zone {
        Zone::External => "external",
        Zone::Internal => "internal",
    }
}
