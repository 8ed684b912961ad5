//! What a DHCPACK grants, as a value that can be stored.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::wire::{Message, code};

/// Lease time taken when a server sends none (RFC 2131 §4.3.1 requires one; some provider routers forget it).
const ASSUMED_LEASE_S: u32 = 3600;
/// Shorter leases are treated as this long, so that a broken server cannot make us renew in a loop.
const MINIMUM_LEASE_S: u32 = 60;
/// Smallest MTU an IPv4 host must handle (RFC 791), and the floor of option 26's sane values.
const MINIMUM_MTU: u16 = 576;

/// A route to install with the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination; `0.0.0.0/0` is the default route.
    pub destination: Ipv4Net,
    /// Gateway; `0.0.0.0` means the destination is on the link (RFC 3442).
    pub gateway: Ipv4Addr,
}

/// A granted lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Our address with its prefix length.
    pub address: Ipv4Net,
    /// The server that granted it.
    pub server_id: Ipv4Addr,
    /// Routes: those of option 121 (or 249) alone if present, else one default route by option 3.
    pub routes: Vec<Route>,
    /// Option 6.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: Option<String>,
    /// Option 42.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Option 28.
    pub broadcast: Option<Ipv4Addr>,
    /// Option 26, when sane.
    pub mtu: Option<u16>,
    /// Whole lease time in seconds; `u32::MAX` is for ever.
    pub lease_time_s: u32,
    /// Renewing begins after this many seconds.
    pub t1_s: u32,
    /// Rebinding begins after this many seconds.
    pub t2_s: u32,
}

impl Lease {
    /// The default gateway, if there is one.
    #[must_use]
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        let default = self.routes.iter().find(|route| route.destination.prefix_len() == 0)?;
        (!default.gateway.is_unspecified()).then_some(default.gateway)
    }

    /// Whether the lease never ends.
    #[must_use]
    pub fn is_infinite(&self) -> bool {
        self.lease_time_s == u32::MAX
    }

    /// Reads an ACK; `server` is the server to assume when the ACK does not name itself.
    pub(super) fn from_ack(message: &Message, server: Option<Ipv4Addr>) -> Option<Self> {
        let options = &message.options;
        let address = message.yiaddr;
        if !is_host(address) {
            return None;
        }
        let prefix = options.address(code::SUBNET_MASK).and_then(prefix_len);
        let address = Ipv4Net::new(address, prefix.unwrap_or_else(|| classful_prefix(address))).ok()?;
        let lease_time_s = options.u32(code::LEASE_TIME).unwrap_or(ASSUMED_LEASE_S).max(MINIMUM_LEASE_S);
        let (t1_s, t2_s) =
            renewal_times(lease_time_s, options.u32(code::RENEWAL_TIME), options.u32(code::REBINDING_TIME));
        Some(Self {
            address,
            server_id: options.address(code::SERVER_ID).or(server)?,
            routes: routes(message),
            dns_servers: hosts(options.addresses(code::DOMAIN_NAME_SERVER)),
            domain: options.text(code::DOMAIN_NAME),
            ntp_servers: hosts(options.addresses(code::NTP_SERVERS)),
            broadcast: options.address(code::BROADCAST_ADDRESS),
            mtu: options.u16(code::INTERFACE_MTU).filter(|mtu| *mtu >= MINIMUM_MTU),
            lease_time_s,
            t1_s,
            t2_s,
        })
    }
}

/// T1 and T2: the server's if they make sense, else half and seven eighths (RFC 2131 §4.4.5).
fn renewal_times(lease_s: u32, t1: Option<u32>, t2: Option<u32>) -> (u32, u32) {
    let t2_s = t2.filter(|t2| *t2 > 1 && *t2 < lease_s).unwrap_or(lease_s - lease_s / 8);
    let t1_s = t1.filter(|t1| *t1 > 0 && *t1 < t2_s).unwrap_or((lease_s / 2).min(t2_s - 1));
    (t1_s, t2_s)
}

fn routes(message: &Message) -> Vec<Route> {
    let options = &message.options;
    let classless = options
        .get(code::CLASSLESS_ROUTES)
        .or_else(|| options.get(code::MS_CLASSLESS_ROUTES))
        .map(parse_routes);
    if let Some(routes) = classless.filter(|routes| !routes.is_empty()) {
        return routes;
    }
    let gateway = options.address(code::ROUTER).filter(|gateway| is_host(*gateway));
    gateway.map(|gateway| Route { destination: Ipv4Net::default(), gateway }).into_iter().collect()
}

/// Option 121, RFC 3442: prefix length, the significant octets of the destination, the gateway; again.
fn parse_routes(mut value: &[u8]) -> Vec<Route> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = value.split_first() {
        let significant = usize::from(prefix.div_ceil(8));
        let Some((octets, rest)) = rest.split_at_checked(significant) else { break };
        let Some((gateway, rest)) = rest.split_first_chunk::<4>() else { break };
        let mut destination = [0; 4];
        let Some(target) = destination.get_mut(..significant) else { break };
        target.copy_from_slice(octets);
        let Ok(net) = Ipv4Net::new(destination.into(), prefix) else { break };
        routes.push(Route { destination: net.trunc(), gateway: Ipv4Addr::from(*gateway) });
        value = rest;
    }
    routes
}

fn hosts(addresses: Vec<Ipv4Addr>) -> Vec<Ipv4Addr> {
    addresses.into_iter().filter(|address| is_host(*address)).collect()
}

/// Whether an address can belong to one host.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    !(address.octets()[0] == 0 || address.is_loopback() || address.octets()[0] >= 224)
}

fn prefix_len(mask: Ipv4Addr) -> Option<u8> {
    ipnet::ipv4_mask_to_prefix(mask).ok().filter(|prefix| *prefix > 0)
}

/// The mask of RFC 950's address classes, for a server that sends none.
fn classful_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}
