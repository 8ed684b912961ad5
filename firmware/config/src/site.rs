//! The validated site: one office, as every daemon sees it.

mod samba;
mod tunnel;
mod update;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

pub(crate) use samba::FIRST_SITE;
pub use samba::{Branch, Samba, SambaRole, Share};
pub use tunnel::{Endpoint, EndpointHost, Tunnel, TunnelPeer};
pub use update::{Update, UpdatePolicy};

/// A validated site file, schema 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Names of the office.
    pub office: Office,
    /// Networks, in file order; exactly one is external.
    pub networks: Vec<Network>,
    /// Name service.
    pub dns: Dns,
    /// Clock.
    pub time: Time,
    /// Serial and VGA console.
    pub console: Console,
    /// Active Directory and file shares, if the box has a part in them.
    pub samba: Option<Samba>,
    /// Tunnels to other offices, in file order.
    pub tunnels: Vec<Tunnel>,
    /// Where releases come from; without it only an operator brings them.
    pub update: Option<Update>,
}

/// Names of the office.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Office {
    /// Free text for people.
    pub name: String,
    /// The box's own host name (one label).
    pub host_name: String,
    /// The office's DNS domain, without a trailing dot, lower case.
    pub domain: String,
}

/// A firewall zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// Towards the provider's router.
    External,
    /// The office network.
    Internal,
}

/// One network of the office.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Short name, unique (`wan`, `lan`).
    pub name: String,
    /// Zone the network belongs to.
    pub zone: Zone,
    /// Board ports; more than one are bridged.
    pub ports: Vec<String>,
    /// How the box gets its address there.
    pub address: Address,
    /// DHCP service of the box in this network (internal networks only).
    pub dhcp: Option<Dhcp>,
}

/// How the box gets its address in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// By DHCPv4 from the provider's router.
    Dhcp,
    /// Fixed.
    Static {
        /// Host address with prefix length.
        address: Ipv4Net,
        /// Default gateway (external networks only).
        gateway: Option<Ipv4Addr>,
    },
}

/// The DHCPv4 service in one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// Inclusive address ranges for dynamic leases.
    pub pools: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Lease time in seconds.
    pub lease_time_s: u32,
    /// NTP servers to announce; empty: the box itself.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Fixed addresses by MAC.
    pub reservations: Vec<Reservation>,
}

/// One fixed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Host name (one label).
    pub name: String,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Address inside the network.
    pub address: Ipv4Addr,
}

/// Name service of the box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Upstream resolvers; empty: those of the WAN lease.
    pub forwarders: Vec<IpAddr>,
    /// Extra names in the office's domain.
    pub hosts: Vec<Host>,
}

/// A fixed name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Host name (one label).
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// Clock settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Time {
    /// NTP servers of the box, names or addresses.
    pub servers: Vec<String>,
}

/// Serial and VGA console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// PHC string (argon2id) of the operator's password; without one nobody can log in.
    pub operator_password_hash: Option<String>,
    /// Whether the logged-in operator may open a root shell.
    pub root_shell: bool,
}

impl Network {
    /// Kernel name of the interface that carries this network: the port itself, or the bridge
    /// `br-NAME` over several ports.
    #[must_use]
    pub fn interface(&self) -> String {
        match self.ports.as_slice() {
            [port] => port.clone(),
            _ => format!("br-{}", self.name),
        }
    }

    /// The box's own static address here, if it has one.
    #[must_use]
    pub fn static_address(&self) -> Option<Ipv4Net> {
        match self.address {
            Address::Static { address, .. } => Some(address),
            Address::Dhcp => None,
        }
    }
}

impl Site {
    /// Networks of one zone, in file order.
    pub fn networks_in(&self, zone: Zone) -> impl Iterator<Item = &Network> {
        self.networks.iter().filter(move |n| n.zone == zone)
    }
}
