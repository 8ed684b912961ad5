//! What netd says about itself: the status file and the line for the supervisor.

use ipnet::Ipv4Net;
use kontor_config::Site;
use kontor_config::site::{Address, Zone};
use kontor_network::{Assignment, Collision, Desired, Observed};
use kontor_status::{LinkStatus, NetStatus, WanLease, WanState};

use super::wan::Wan;

/// Every port and bridge, by name.
pub(crate) fn links(site: &Site, assignment: &Assignment, observed: &Observed) -> Vec<LinkStatus> {
    let mut links = Vec::new();
    for network in &site.networks {
        let interface = network.interface();
        for name in network.ports.iter().chain((network.ports.len() > 1).then_some(&interface)) {
            links.push(link(name, Some(network.name.clone()), assignment, observed));
        }
    }
    for port in assignment.ports.keys() {
        if !links.iter().any(|link: &LinkStatus| link.name == *port) {
            links.push(link(port, None, assignment, observed));
        }
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links
}

/// The external network as others may use it: up only when it has its address and somebody is there.
pub(crate) fn wan_state(
    site: &Site,
    desired: &Desired,
    observed: &Observed,
    wan: &Wan,
    problems: &mut Vec<String>,
) -> WanState {
    let Some(network) = site.networks_in(Zone::External).next() else { return WanState::Down };
    let interface = network.interface();
    let link = observed.link(&interface);
    if link.is_some_and(|link| link.up && !link.carrier) {
        return WanState::Unplugged { interface };
    }
    if let Some(Collision { external, network, .. }) = &desired.collision {
        return WanState::Colliding { external: *external, network: network.clone() };
    }
    let has =
        |address: Ipv4Net| link.is_some_and(|link| observed.addresses_of(link.index).any(|a| a == address));
    let installed = desired.addresses.iter().find(|(name, address)| *name == interface && has(*address));
    match (&network.address, installed) {
        (Address::Dhcp, Some(_)) => wan.lease_status(site, problems).map_or(WanState::Down, WanState::Up),
        (Address::Dhcp, None) => {
            let state = |client: &str| WanState::Acquiring { client: client.to_owned() };
            wan.client_state().map_or(WanState::Down, state)
        }
        (Address::Static { gateway, .. }, Some((_, address))) => WanState::Up(WanLease {
            interface,
            address: *address,
            gateway: *gateway,
            dns_servers: Vec::new(),
            ntp_servers: Vec::new(),
            lease_time_s: None,
        }),
        (Address::Static { .. }, None) => WanState::Down,
    }
}

fn link(name: &str, network: Option<String>, assignment: &Assignment, observed: &Observed) -> LinkStatus {
    let nic = assignment.ports.get(name);
    let found = observed.link(name);
    LinkStatus {
        name: name.to_owned(),
        network,
        present: found.is_some(),
        carrier: found.is_some_and(|link| link.carrier),
        mac: found.and_then(|link| link.mac).map(|mac| mac.to_string()),
        pci: nic.and_then(|nic| nic.pci.clone()),
        addresses: found.map(|link| observed.addresses_of(link.index).collect()).unwrap_or_default(),
    }
}

/// Whether every internal network has its address: the office can be served.
pub(crate) fn lan_configured(site: &Site, observed: &Observed) -> bool {
    site.networks_in(Zone::Internal).all(|network| {
        let link = observed.link(&network.interface()).filter(|link| link.up);
        let address = network.static_address();
        link.is_some_and(|link| observed.addresses_of(link.index).any(|a| Some(a) == address))
    })
}

/// One line: `LAN 192.168.77.1/24 on port2, WAN 10.0.2.15/24 on port1`.
pub(crate) fn line(site: &Site, status: &NetStatus) -> String {
    let lan = site.networks_in(Zone::Internal).map(|network| {
        let interface = network.interface();
        let link = status.links.iter().find(|link| link.name == interface);
        match link.and_then(|link| link.addresses.first()) {
            Some(address) => format!("{} {address} on {interface}", network.name.to_uppercase()),
            None => format!("{} waits for {interface}", network.name.to_uppercase()),
        }
    });
    let wan = match &status.wan {
        WanState::Up(lease) => format!("WAN {} on {}", lease.address, lease.interface),
        WanState::Acquiring { client } => format!("WAN {client}"),
        WanState::Unplugged { interface } => format!("WAN has no cable in {interface}"),
        WanState::Colliding { external, network } => format!("WAN off, {external} collides with {network}"),
        WanState::Down => "WAN down".to_owned(),
    };
    let parts: Vec<String> = lan.chain([wan]).collect();
    parts.join(", ")
}
