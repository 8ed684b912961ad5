//! Links and the way to the Internet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// What netd knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStatus {
    /// Ports and bridges, in board order.
    pub links: Vec<LinkStatus>,
    /// State of the external network.
    pub wan: WanState,
    /// Internal networks that are plugged into the same switch as the external one: nothing may be offered there.
    #[serde(default)]
    pub exposed: Vec<String>,
    /// Tunnels of the site file, in its order.
    #[serde(default)]
    pub tunnels: Vec<TunnelStatus>,
    /// What is wrong, for people; empty when all is well.
    pub problems: Vec<String>,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Interface name (`port1`, `br-lan`).
    pub name: String,
    /// Network of the site file it carries, if any.
    pub network: Option<String>,
    /// Whether the hardware is present.
    pub present: bool,
    /// Whether there is a carrier.
    pub carrier: bool,
    /// Hardware address, colon-separated.
    pub mac: Option<String>,
    /// PCI path.
    pub pci: Option<String>,
    /// IPv4 addresses in force.
    pub addresses: Vec<Ipv4Net>,
}

/// State of the external network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum WanState {
    /// No address, and nobody asks for one: not yet, or as there is no card or no firewall.
    #[default]
    Down,
    /// Asking for an address.
    Acquiring {
        /// RFC 2131 state name.
        client: String,
    },
    /// Nothing is plugged in, or the other end is off. What was leased stays until it ends.
    Unplugged {
        /// Interface.
        interface: String,
    },
    /// There is an address, but it cannot be used: it collides with an internal network.
    Colliding {
        /// The external network.
        external: Ipv4Net,
        /// Name of the internal network.
        network: String,
    },
    /// Up.
    Up(WanLease),
}

/// What the external network gave us (or the site file fixed).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanLease {
    /// Interface.
    pub interface: String,
    /// Address and prefix length.
    pub address: Ipv4Net,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers, in order.
    pub dns_servers: Vec<IpAddr>,
    /// NTP servers, in order.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Whole lease time in seconds; `None` when static.
    pub lease_time_s: Option<u32>,
}

/// One WireGuard tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// Name in the site file.
    pub name: String,
    /// Interface (`wg-hq`).
    pub interface: String,
    /// The box's own key, for the other end: base64. None while the box has none.
    pub public_key: Option<String>,
    /// Where it is heard, once the kernel has chosen or been told.
    pub listen_port: Option<u16>,
    /// In the order of the site file.
    pub peers: Vec<TunnelPeerStatus>,
}

/// One end of a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelPeerStatus {
    /// Name in the site file.
    pub name: String,
    /// Where it was heard from last, or is tried at.
    pub endpoint: Option<SocketAddr>,
    /// Whether there was a handshake within the last 180 s.
    pub up: bool,
    /// Whether it comes up by itself: this box calls it, and keeps it alive.
    #[serde(default)]
    pub kept: bool,
    /// When the latest handshake was: Unix time, by the wall clock of that moment.
    pub latest_handshake_s: Option<u64>,
    /// Octets. Brought up to date twice a minute.
    pub received_bytes: u64,
    /// Octets.
    pub sent_bytes: u64,
}
