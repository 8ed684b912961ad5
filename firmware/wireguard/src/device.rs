//! The device a tunnel of the site wants, and the fewest changes to the one the kernel has.
//!
//! **Invariant:** what already matches is not sent: the kernel ends no session of a peer that a new site file leaves as it is.
//! Where a peer sends from is not ours to correct while it is heard (paper, section 2.1, roaming): an endpoint is part of what is
//! wanted only when the caller says so, see [`crate::endpoint`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::Ipv4Net;
use kontor_config::site::Tunnel;

use crate::{PrivateKey, PublicKey};

/// A device as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// None while it has no key: it is mute then.
    pub private_key: Option<PrivateKey>,
    /// Worked out by the kernel.
    pub public_key: Option<PublicKey>,
    /// 0 while the link is down and no port was asked for.
    pub listen_port: u16,
    /// In no order that matters.
    pub peers: Vec<Peer>,
}

/// A peer as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub public_key: PublicKey,
    /// Where it was heard from last, or is tried at.
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 is never.
    pub persistent_keepalive: u16,
    /// What may come from it and is sent to it. IPv4: others are not built.
    pub allowed_ips: BTreeSet<Ipv4Net>,
    /// Since 1970, by the wall clock of that moment.
    pub latest_handshake: Option<Duration>,
    /// Octets.
    pub received: u64,
    /// Octets.
    pub sent: u64,
}

/// A device as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// None leaves the kernel's alone.
    pub private_key: Option<PrivateKey>,
    /// None lets the kernel choose.
    pub listen_port: Option<u16>,
    /// Ports of other tunnels, which the kernel may have chosen for this one before they were asked for.
    pub foreign_ports: Vec<u16>,
    /// By key.
    pub peers: Vec<DesiredPeer>,
}

/// A peer as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPeer {
    /// Who it is.
    pub public_key: PublicKey,
    /// None leaves the kernel's alone.
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 is never.
    pub persistent_keepalive: u16,
    /// Its networks.
    pub allowed_ips: BTreeSet<Ipv4Net>,
}

impl Peer {
    /// One of which nothing is known.
    #[must_use]
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            endpoint: None,
            persistent_keepalive: 0,
            allowed_ips: BTreeSet::new(),
            latest_handshake: None,
            received: 0,
            sent: 0,
        }
    }
}

impl Desired {
    /// What `tunnel`, one of `all`, wants; `endpoint` says where a peer shall be tried now, if it is to be told.
    #[must_use]
    pub fn new(
        tunnel: &Tunnel,
        all: &[Tunnel],
        private_key: Option<PrivateKey>,
        endpoint: impl Fn(PublicKey) -> Option<SocketAddr>,
    ) -> Self {
        let peer = |peer: &kontor_config::site::TunnelPeer| {
            let public_key = PublicKey(peer.public_key);
            DesiredPeer {
                public_key,
                endpoint: endpoint(public_key),
                persistent_keepalive: peer.persistent_keepalive_s.unwrap_or(0),
                allowed_ips: peer.allowed_ips.iter().copied().collect(),
            }
        };
        let others = all.iter().filter(|other| other.name != tunnel.name);
        Self {
            private_key,
            listen_port: tunnel.listen_port,
            foreign_ports: others.filter_map(|other| other.listen_port).collect(),
            peers: tunnel.peers.iter().map(peer).collect(),
        }
    }
}

/// What has to be told to the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// A new key; every session begins anew.
    pub private_key: Option<PrivateKey>,
    /// A new port; 0 has the kernel choose one.
    pub listen_port: Option<u16>,
    /// In this order: those that go first.
    pub peers: Vec<PeerChange>,
}

impl Change {
    /// Whether there is nothing to be told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What has to be told about one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    /// It goes (`WGPEER_F_REMOVE_ME`).
    Remove(PublicKey),
    /// It comes, or changes in what is named.
    Set {
        /// Who.
        public_key: PublicKey,
        /// Where to.
        endpoint: Option<SocketAddr>,
        /// How often.
        persistent_keepalive: Option<u16>,
        /// Instead of what it had (`WGPEER_F_REPLACE_ALLOWEDIPS`).
        allowed_ips: Option<BTreeSet<Ipv4Net>>,
    },
}

/// The fewest changes that make `device` what is `desired`.
#[must_use]
pub fn plan(desired: &Desired, device: &Device) -> Change {
    let wanted = |key| desired.peers.iter().any(|peer| peer.public_key == key);
    let goes = device.peers.iter().filter(|peer| !wanted(peer.public_key));
    let mut peers: Vec<PeerChange> = goes.map(|peer| PeerChange::Remove(peer.public_key)).collect();
    peers.extend(desired.peers.iter().filter_map(|want| {
        // The kernel takes no peer with the device's own key, and says nothing.
        if device.public_key == Some(want.public_key) {
            return None;
        }
        change(want, device.peers.iter().find(|have| have.public_key == want.public_key))
    }));
    let private_key = desired.private_key.clone().filter(|key| device.private_key.as_ref() != Some(key));
    Change { private_key, listen_port: listen_port(desired, device), peers }
}

fn listen_port(desired: &Desired, device: &Device) -> Option<u16> {
    match desired.listen_port {
        Some(port) => (port != device.listen_port).then_some(port),
        None => desired.foreign_ports.contains(&device.listen_port).then_some(0),
    }
}

fn change(want: &DesiredPeer, have: Option<&Peer>) -> Option<PeerChange> {
    let endpoint = want.endpoint.filter(|endpoint| have.and_then(|have| have.endpoint) != Some(*endpoint));
    let keepalive = have.map_or(0, |have| have.persistent_keepalive);
    let persistent_keepalive = Some(want.persistent_keepalive).filter(|wanted| *wanted != keepalive);
    let same_ips = have.is_some_and(|have| have.allowed_ips == want.allowed_ips);
    let allowed_ips = (!same_ips).then(|| want.allowed_ips.clone());
    let same = endpoint.is_none() && persistent_keepalive.is_none() && allowed_ips.is_none();
    (!same).then_some(PeerChange::Set {
        public_key: want.public_key,
        endpoint,
        persistent_keepalive,
        allowed_ips,
    })
}

#[cfg(test)]
mod tests;
