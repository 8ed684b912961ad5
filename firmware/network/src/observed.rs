//! What the kernel has right now, as far as netd decides about it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::Mac;

/// One look at the kernel: links, IPv4 addresses and routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every link but the loopback.
    pub links: Vec<Link>,
    /// IPv4 addresses: interface index and address with prefix length.
    pub addresses: Vec<(u32, Ipv4Net)>,
    /// IPv4 routes of the main table that netd may own (protocol `static` or `dhcp`).
    pub routes: Vec<Route>,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Kernel index, stable for the link's life.
    pub index: u32,
    /// Name at this moment.
    pub name: String,
    /// Hardware or virtual.
    pub kind: LinkKind,
    /// Permanent hardware address where the driver tells it, else the current one.
    pub mac: Option<Mac>,
    /// Administratively up.
    pub up: bool,
    /// Whether there is a carrier.
    pub carrier: bool,
    /// Index of the bridge this link is a port of.
    pub controller: Option<u32>,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// What kind of link it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A WireGuard interface.
    WireGuard,
    /// Anything else: hardware, or something we did not make.
    Other,
}

/// One IPv4 route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to; `0.0.0.0/0` is the default route.
    pub destination: Ipv4Net,
    /// Next hop; none when the destination is on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Interface by name; none for a destination that is unreachable (`RTN_UNREACHABLE`).
    pub interface: Option<String>,
    /// The box's own address that packets of its own have there, where it is not the interface's.
    pub source: Option<Ipv4Addr>,
    /// Lower wins.
    pub metric: u32,
    /// Who asked for it.
    pub origin: RouteOrigin,
}

/// Who asked for a route; stored in the kernel as the route's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteOrigin {
    /// The site file (`RTPROT_STATIC`).
    Site,
    /// A DHCP lease (`RTPROT_DHCP`).
    Dhcp,
}

impl Observed {
    /// The link with this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// IPv4 addresses of one link.
    pub fn addresses_of(&self, index: u32) -> impl Iterator<Item = Ipv4Net> + '_ {
        self.addresses.iter().filter(move |(i, _)| *i == index).map(|(_, address)| *address)
    }
}
