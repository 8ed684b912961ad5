//! Keys, types and formats of `[[tunnel]]`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::Ipv4Net;

use super::values;
use crate::document::{At, Shape, Table, Wrong};
use crate::name;
use crate::report::Findings;
use crate::site::{Endpoint, EndpointHost, Tunnel, TunnelPeer};

pub(super) const TUNNEL: Shape =
    Shape { title: "[[tunnel]]", required: &["name", "address", "peer"], optional: &["listen-port", "mtu"] };
const PEER: Shape = Shape {
    title: "[[tunnel.peer]]",
    required: &["name", "public-key", "allowed-ips"],
    optional: &["endpoint", "persistent-keepalive-s"],
};

/// Below are ports of services, the box's own among them.
const LISTEN_PORT: RangeInclusive<i64> = 1024..=65_535;
/// 16 bits, where zero would be never.
const KEEPALIVE: RangeInclusive<i64> = 1..=65_535;
/// Below, IPv6 would not go through (RFC 8200, section 5); above, no packet fits Ethernet.
const MTU: RangeInclusive<i64> = 1280..=1500;
/// Ethernet's 1500 without the most WireGuard adds: IPv6 and UDP headers, its own header and tag.
const DEFAULT_MTU: u16 = 1420;

#[derive(Debug)]
pub(crate) struct RawTunnel {
    pub(crate) name: At<String>,
    pub(crate) address: At<Ipv4Net>,
    pub(crate) listen_port: Option<At<u16>>,
    mtu: Option<At<u16>>,
    pub(crate) peers: Vec<RawPeer>,
}

#[derive(Debug)]
pub(crate) struct RawPeer {
    pub(crate) name: At<String>,
    pub(crate) public_key: At<[u8; 32]>,
    pub(crate) endpoint: Option<At<Endpoint>>,
    pub(crate) allowed_ips: At<Vec<At<Ipv4Net>>>,
    persistent_keepalive_s: Option<At<u16>>,
}

pub(super) fn read(table: &Table<'_>, findings: &mut Findings) -> Option<RawTunnel> {
    let name = table.parsed("name", findings, name::network);
    let address = table.parsed("address", findings, address);
    let listen_port = within(table, "listen-port", &LISTEN_PORT, findings);
    let mtu = within(table, "mtu", &MTU, findings);
    let tables = table.tables("peer", &PEER, findings);
    let peers = tables.iter().filter_map(|table| read_peer(table, findings)).collect();
    Some(RawTunnel { name: name?, address: address?, listen_port, mtu, peers })
}

fn read_peer(table: &Table<'_>, findings: &mut Findings) -> Option<RawPeer> {
    let name = table.parsed("name", findings, name::label);
    let public_key = table.parsed("public-key", findings, public_key);
    let endpoint = table.parsed("endpoint", findings, endpoint);
    let allowed_ips = table.parsed_list("allowed-ips", findings, network);
    let persistent_keepalive_s = within(table, "persistent-keepalive-s", &KEEPALIVE, findings);
    Some(RawPeer {
        name: name?,
        public_key: public_key?,
        endpoint,
        allowed_ips: allowed_ips?,
        persistent_keepalive_s,
    })
}

/// A whole number of 16 bits within limits.
fn within(
    table: &Table<'_>,
    key: &str,
    limits: &RangeInclusive<i64>,
    findings: &mut Findings,
) -> Option<At<u16>> {
    let number = table.integer(key, findings)?;
    if let Ok(value) = u16::try_from(number.value)
        && limits.contains(&number.value)
    {
        return Some(At { value, span: number.span });
    }
    let message = format!("`{key}` cannot be {}", number.value);
    findings.add(&number.span, message, format!("{} to {}", limits.start(), limits.end()));
    None
}

fn address(text: &str) -> Result<Ipv4Net, Wrong> {
    let help = "the box's own address inside the tunnel, for example \"10.255.0.2/32\"";
    let wrong = |_| Wrong::new(format!("`{text}` is not an address with prefix length"), help);
    text.parse().map_err(wrong)
}

fn network(text: &str) -> Result<Ipv4Net, Wrong> {
    let help = "a network behind the peer, for example \"10.10.0.0/16\"";
    let wrong = |_| Wrong::new(format!("`{text}` is not a network with prefix length"), help);
    text.parse().map_err(wrong)
}

/// As `wg pubkey` prints it: the base64 of 32 octets.
fn public_key(text: &str) -> Result<[u8; 32], Wrong> {
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    decoded.filter(|key| *key != [0; 32]).ok_or_else(|| {
        let help = "44 characters of base64, as the other end shows it (on a box: `ctl tunnels`)";
        Wrong::new(format!("`{text}` is not a WireGuard public key"), help)
    })
}

fn endpoint(text: &str) -> Result<Endpoint, Wrong> {
    let help = "name or IPv4 address, a colon and the UDP port, for example \"vpn.example.net:51820\"";
    let wrong = |what: String| Wrong::new(what, help);
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(wrong(format!("`{text}` names no port")));
    };
    if host.starts_with('[') || host.parse::<Ipv6Addr>().is_ok() {
        return Err(wrong(format!("`{text}`: tunnels go over IPv4 only")));
    }
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| wrong(format!("`{port}` is not a UDP port")))?;
    let host = match host.parse::<Ipv4Addr>() {
        Ok(address) => EndpointHost::Address(address),
        Err(_) => EndpointHost::Name(
            name::host(host).ok_or_else(|| wrong(format!("`{host}` is not a host's name or address")))?,
        ),
    };
    Ok(Endpoint { host, port })
}

impl RawTunnel {
    pub(super) fn into_tunnel(self) -> Tunnel {
        Tunnel {
            name: self.name.value,
            address: self.address.value,
            listen_port: self.listen_port.map(|port| port.value),
            mtu: self.mtu.map_or(DEFAULT_MTU, |mtu| mtu.value),
            peers: self.peers.into_iter().map(RawPeer::into_peer).collect(),
        }
    }
}

impl RawPeer {
    fn into_peer(self) -> TunnelPeer {
        TunnelPeer {
            name: self.name.value,
            public_key: self.public_key.value,
            endpoint: self.endpoint.map(|endpoint| endpoint.value),
            allowed_ips: values(self.allowed_ips.value),
            persistent_keepalive_s: self.persistent_keepalive_s.map(|seconds| seconds.value),
        }
    }
}
