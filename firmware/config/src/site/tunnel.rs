//! WireGuard tunnels to other offices.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// A peer to which something is sent this often is not taken for lost between two handshakes.
const OFTEN_S: u16 = 60;

/// One tunnel: an interface with its own key, and the offices at its other ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Short name, unique.
    pub name: String,
    /// The box's own address inside the tunnel.
    pub address: Ipv4Net,
    /// UDP port that peers without an endpoint call; without one the kernel takes any, and nothing is opened.
    pub listen_port: Option<u16>,
    /// Largest packet inside the tunnel, in bytes.
    pub mtu: u16,
    /// The other ends; at least one.
    pub peers: Vec<TunnelPeer>,
}

/// The other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Short name, unique in its tunnel.
    pub name: String,
    /// Curve25519 point.
    pub public_key: [u8; 32],
    /// Where it is called; without one it calls.
    pub endpoint: Option<Endpoint>,
    /// The networks behind it: their packets are taken from this peer, and sent to it.
    pub allowed_ips: Vec<Ipv4Net>,
    /// How often something is sent, so that a router that translates addresses in between does not forget the peer.
    pub persistent_keepalive_s: Option<u16>,
}

/// Where a peer is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address.
    pub host: EndpointHost,
    /// UDP port.
    pub port: u16,
}

/// A host by name or by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointHost {
    /// By address.
    Address(Ipv4Addr),
    /// By DNS name, in lower case; asked for again when the peer is silent.
    Name(String),
}

impl Tunnel {
    /// Kernel name of its interface.
    #[must_use]
    pub fn interface(&self) -> String {
        format!("wg-{}", self.name)
    }

    /// Everything that is behind it.
    pub fn networks(&self) -> impl Iterator<Item = Ipv4Net> {
        self.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied())
    }
}

impl TunnelPeer {
    /// Whether this box brings it up by itself, and keeps it: it has something to call and something to say. Any other peer is up
    /// when somebody sends something.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.endpoint.is_some() && self.persistent_keepalive_s.is_some_and(|seconds| seconds <= OFTEN_S)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            EndpointHost::Address(address) => write!(f, "{address}:{}", self.port),
            EndpointHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}
