//! The site file as links, addresses and routes. What is inside a tunnel's interface (keys, peers) is not decided here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kontor_config::Site;
use kontor_config::site::{Address, Network, Tunnel, Zone};

use crate::collision::{Collision, admit, overlap};
use crate::{Assignment, LinkKind, Mac, Nic, Route, RouteOrigin};

/// Metric of the default route. Not 0, so that a later second uplink or a tunnel can be preferred over it.
pub const DEFAULT_METRIC: u32 = 100;
/// Metric of routes a lease announces (option 121).
pub const LEASE_METRIC: u32 = 100;
/// Metric of routes into tunnels: the site file's word counts more than a lease's.
pub const TUNNEL_METRIC: u32 = 50;
/// Metric of what is left when a tunnel's route is not there: nothing may take another way. The provider's own network, which
/// is on the link, still wins.
pub const UNREACHABLE_METRIC: u32 = 4000;
/// Smallest MTU taken from a lease. RFC 2132 allows 68 and IPv4 asks for 576 (RFC 791), but below the 1280 of
/// RFC 8200 IPv6 would be switched off on the link: such an option is a mistake or an attack.
pub const MTU_MIN: u16 = 1280;
/// Largest MTU taken from a lease: Ethernet's. A larger one would need the whole segment to agree.
pub const MTU_MAX: u16 = 1500;

/// What the external network gave us, by lease or by the site file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Our address there.
    pub address: Ipv4Net,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Further routes (RFC 3442); no gateway means on the link.
    pub routes: Vec<(Ipv4Net, Option<Ipv4Addr>)>,
    /// Interface MTU (option 26), unchecked.
    pub mtu: Option<u16>,
    /// Who said so.
    pub origin: RouteOrigin,
}

/// Everything the desired state depends on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The office.
    pub site: &'a Site,
    /// Which card is which port.
    pub assignment: &'a Assignment,
    /// The lease of the external network, if it is configured by DHCP and has one.
    pub lease: Option<&'a Uplink>,
    /// Whether the firewall is loaded. Without it external links stay down: nothing is reachable.
    pub external_open: bool,
}

/// A link as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredLink {
    /// Name.
    pub name: String,
    /// Bridges and tunnels are made by us; a port is of any other kind.
    pub kind: LinkKind,
    /// Bridge this port belongs to.
    pub controller: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// MTU to set; none leaves it alone.
    pub mtu: Option<u32>,
    /// Hardware address of a bridge: fixed to its first port, so that it does not change with the ports.
    pub mac: Option<Mac>,
}

/// The whole desired state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Port name of each kernel interface that is a port.
    pub names: BTreeMap<u32, String>,
    /// Bridges first, then ports, then tunnels.
    pub links: Vec<DesiredLink>,
    /// Interface and address, internal networks first.
    pub addresses: Vec<(String, Ipv4Net)>,
    /// Routes we own.
    pub routes: Vec<Route>,
    /// Why the external network is not in use although it gave us an address.
    pub collision: Option<Collision>,
    /// What cannot be had, and what to do about it.
    pub problems: Vec<String>,
}

/// What the kernel should have for this site with these cards and this lease.
#[must_use]
pub fn desired(inputs: Inputs<'_>) -> Desired {
    let mut out = Desired::default();
    for (port, nic) in &inputs.assignment.ports {
        out.names.extend(nic.index.map(|index| (index, port.clone())));
    }
    let mut networks: Vec<&Network> = inputs.site.networks_in(Zone::Internal).collect();
    networks.extend(inputs.site.networks_in(Zone::External));
    for network in networks {
        add_network(&mut out, inputs, network);
    }
    for (_, name) in out.names.clone() {
        if !out.links.iter().any(|link| link.name == name) {
            out.links.push(DesiredLink::port(&name, None, false));
        }
    }
    out.links.sort_by_key(|link| link.kind != LinkKind::Bridge);
    let own = Own::of(&out, inputs.site);
    for tunnel in &inputs.site.tunnels {
        add_tunnel(&mut out, tunnel, &own, inputs.external_open);
    }
    out.problems.extend(inputs.assignment.unused.iter().map(unused_card));
    out
}

fn add_network(out: &mut Desired, inputs: Inputs<'_>, network: &Network) {
    let open = network.zone == Zone::Internal || inputs.external_open;
    let uplink = uplink_of(out, inputs, network).filter(|_| open);
    let mtu = uplink.as_ref().and_then(|uplink| checked_mtu(out, uplink.mtu?));
    if !add_links(out, inputs, network, open, mtu) {
        return;
    }
    match (&network.address, uplink) {
        (_, Some(uplink)) => add_uplink(out, network, &uplink),
        (Address::Static { address, .. }, None) if network.zone == Zone::Internal => {
            out.addresses.push((network.interface(), *address));
        }
        _ => {}
    }
}

/// The uplink of an external network that passed the collision check.
fn uplink_of(out: &mut Desired, inputs: Inputs<'_>, network: &Network) -> Option<Uplink> {
    let uplink = match (&network.zone, &network.address) {
        (Zone::Internal, _) => return None,
        (Zone::External, Address::Dhcp) => inputs.lease?.clone(),
        (Zone::External, Address::Static { address, gateway }) => Uplink {
            address: *address,
            gateway: *gateway,
            routes: Vec::new(),
            mtu: None,
            origin: RouteOrigin::Site,
        },
    };
    match admit(inputs.site, &uplink) {
        Ok((uplink, left_out)) => {
            out.problems.extend(left_out);
            Some(uplink)
        }
        Err(collision) => {
            out.problems.push(collision.to_string());
            out.collision = Some(collision);
            None
        }
    }
}

fn checked_mtu(out: &mut Desired, mtu: u16) -> Option<u32> {
    if (MTU_MIN..=MTU_MAX).contains(&mtu) {
        return Some(u32::from(mtu));
    }
    out.problems
        .push(format!("the lease's MTU {mtu} is ignored: it must lie between {MTU_MIN} and {MTU_MAX}"));
    None
}

/// Adds the links of one network; false when there is no hardware to carry it.
fn add_links(out: &mut Desired, inputs: Inputs<'_>, network: &Network, up: bool, mtu: Option<u32>) -> bool {
    let mut present = Vec::new();
    for port in &network.ports {
        match inputs.assignment.ports.get(port) {
            Some(nic) if nic.index.is_some() => present.push((port, nic)),
            nic => out.problems.push(absent(port, network, nic)),
        }
    }
    let interface = network.interface();
    let bridge = network.ports.len() > 1;
    if bridge {
        let mac = present.first().and_then(|(_, nic)| nic.mac);
        let (name, kind) = (interface.clone(), LinkKind::Bridge);
        out.links.push(DesiredLink { name, kind, controller: None, up, mtu, mac });
    }
    for (port, _) in &present {
        let controller = bridge.then(|| interface.clone());
        out.links.push(DesiredLink { mtu, ..DesiredLink::port(port, controller, up) });
    }
    bridge || !present.is_empty()
}

fn absent(port: &str, network: &Network, nic: Option<&Nic>) -> String {
    let name = &network.name;
    match nic.and_then(|nic| nic.pci.as_deref()) {
        None => format!("{port} (network {name}) has no hardware"),
        Some(pci) => format!("{port} (network {name}) has no driver for the card at PCI {pci}"),
    }
}

fn unused_card(nic: &Nic) -> String {
    let pci = nic.pci.as_deref().map_or_else(String::new, |pci| format!(" at PCI {pci}"));
    let mac = nic.mac.map_or_else(String::new, |mac| format!(" with MAC {mac}"));
    format!("the network card{pci}{mac} stays unused: the board has no port left for it")
}

fn add_uplink(out: &mut Desired, network: &Network, uplink: &Uplink) {
    let interface = network.interface();
    out.addresses.push((interface.clone(), uplink.address));
    let route = |destination, gateway, metric| Route {
        destination,
        gateway,
        interface: Some(interface.clone()),
        source: None,
        metric,
        origin: uplink.origin,
    };
    if uplink.gateway.is_some() {
        out.routes.push(route(Ipv4Net::default(), uplink.gateway, DEFAULT_METRIC));
    }
    for (destination, gateway) in &uplink.routes {
        if !out.routes.iter().any(|known| known.destination == *destination) {
            out.routes.push(route(*destination, *gateway, LEASE_METRIC));
        }
    }
}

/// A tunnel needs no port. Its interface stays down until the firewall is loaded, like external ones.
fn add_tunnel(out: &mut Desired, tunnel: &Tunnel, own: &Own, open: bool) {
    let (name, mtu) = (tunnel.interface(), Some(u32::from(tunnel.mtu)));
    let kind = LinkKind::WireGuard;
    out.links.push(DesiredLink { name: name.clone(), kind, controller: None, up: open, mtu, mac: None });
    if open {
        out.addresses.push((name.clone(), tunnel.address));
    }
    for (peer, destination) in
        tunnel.peers.iter().flat_map(|peer| peer.allowed_ips.iter().map(move |net| (peer, *net)))
    {
        let route = |interface, source, metric| Route {
            destination,
            gateway: None,
            interface,
            source,
            metric,
            origin: RouteOrigin::Site,
        };
        out.routes.push(route(None, None, UNREACHABLE_METRIC));
        if !open {
            continue;
        }
        if let Some(taken) = own.networks.iter().find(|taken| overlap(**taken, destination)) {
            out.problems.push(format!(
                "{} behind {} of the tunnel {} cannot be reached: the box itself is in {taken}; one of both networks needs \
                 another address",
                if taken.contains(&destination) { destination } else { *taken },
                peer.name,
                tunnel.name
            ));
            if taken.contains(&destination) {
                continue;
            }
        }
        out.routes.push(route(Some(name.clone()), own.source, TUNNEL_METRIC));
    }
}

/// What the box has without its tunnels.
struct Own {
    /// Its networks. The uplink's is on the link, and so without it there is no tunnel either.
    networks: Vec<Ipv4Net>,
    /// Its address in the first internal one: what it says into a tunnel comes from the office, which is what the other end knows.
    source: Option<Ipv4Addr>,
}

impl Own {
    fn of(out: &Desired, site: &Site) -> Self {
        let internal: Vec<String> = site.networks_in(Zone::Internal).map(Network::interface).collect();
        let source = out.addresses.iter().find(|(name, _)| internal.contains(name));
        Self {
            networks: out.addresses.iter().map(|(_, address)| address.trunc()).collect(),
            source: source.map(|(_, address)| address.addr()),
        }
    }
}

impl DesiredLink {
    fn port(name: &str, controller: Option<String>, up: bool) -> Self {
        let kind = LinkKind::Other;
        Self { name: name.to_owned(), kind, controller, up, mtu: None, mac: None }
    }
}

#[cfg(test)]
pub(crate) mod tests;
