//! Plans against a model of the kernel's device.

use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;

use super::*;

/// What the kernel makes of a change (drivers/net/wireguard/netlink.c): an allowed network belongs to one peer, the last one it
/// was given to, and a device's own key is no peer's.
fn apply(device: &mut Device, change: &Change) {
    if let Some(key) = &change.private_key {
        device.private_key = Some(key.clone());
        device.public_key = Some(public(key.octets()[1]));
        device.peers.retain(|peer| Some(peer.public_key) != device.public_key);
    }
    device.listen_port =
        change.listen_port.map_or(device.listen_port, |port| if port == 0 { 40_000 } else { port });
    for peer in &change.peers {
        match peer {
            PeerChange::Remove(key) => device.peers.retain(|peer| peer.public_key != *key),
            PeerChange::Set { public_key, endpoint, persistent_keepalive, allowed_ips } => {
                if device.public_key == Some(*public_key) {
                    continue;
                }
                if !device.peers.iter().any(|peer| peer.public_key == *public_key) {
                    device.peers.push(Peer::new(*public_key));
                }
                for peer in &mut device.peers {
                    if peer.public_key == *public_key {
                        peer.endpoint = endpoint.or(peer.endpoint);
                        peer.persistent_keepalive = persistent_keepalive.unwrap_or(peer.persistent_keepalive);
                        peer.allowed_ips = allowed_ips.clone().unwrap_or_else(|| peer.allowed_ips.clone());
                    } else if let Some(moved) = allowed_ips {
                        peer.allowed_ips.retain(|network| !moved.contains(network));
                    }
                }
            }
        }
    }
}

fn public(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn private(number: u8) -> PrivateKey {
    PrivateKey::new([number; 32])
}

type Settings = (Option<SocketAddr>, u16, BTreeSet<Ipv4Net>);

/// Peers by key; a network is one peer's, as in a site that has been checked.
fn peers() -> impl Strategy<Value = Vec<(PublicKey, Settings)>> {
    let endpoint = option::of((1_u16..4).prop_map(|port| SocketAddr::from(([203, 0, 113, 1], port))));
    let networks = btree_set(0_u8..8, 0..4);
    btree_map(0_u8..5, (endpoint, 0_u16..3, networks), 0..5).prop_map(|peers| {
        let mut given = BTreeSet::new();
        let settings = |(endpoint, keepalive, networks): (Option<SocketAddr>, u16, BTreeSet<u8>)| {
            let own = networks.into_iter().filter(|network| given.insert(*network));
            let networks = own.map(|network| Ipv4Net::new([10, network, 0, 0].into(), 16).unwrap());
            (endpoint, keepalive, networks.collect())
        };
        let keys: Vec<PublicKey> = peers.keys().map(|number| public(*number)).collect();
        keys.into_iter().zip(peers.into_values().map(settings).collect::<Vec<_>>()).collect()
    })
}

fn devices() -> impl Strategy<Value = Device> {
    (option::of(0_u8..3), 0_u16..4, peers()).prop_map(|(key, listen_port, peers)| {
        let mut device = Device { listen_port, ..Device::default() };
        let set = peers.into_iter().map(|(public_key, (endpoint, keepalive, networks))| PeerChange::Set {
            public_key,
            endpoint,
            persistent_keepalive: Some(keepalive),
            allowed_ips: Some(networks),
        });
        let private_key = key.map(private);
        apply(&mut device, &Change { private_key, listen_port: None, peers: set.collect() });
        device
    })
}

fn wishes() -> impl Strategy<Value = Desired> {
    (option::of(0_u8..3), option::of(1_u16..4), peers()).prop_map(|(key, listen_port, peers)| Desired {
        private_key: key.map(private),
        listen_port,
        foreign_ports: vec![2],
        peers: peers
            .into_iter()
            .map(|(public_key, (endpoint, persistent_keepalive, allowed_ips))| DesiredPeer {
                public_key,
                endpoint,
                persistent_keepalive,
                allowed_ips,
            })
            .collect(),
    })
}

proptest! {
    #[test]
    fn a_plan_leads_to_what_is_desired_and_then_there_is_none(desired in wishes(), device in devices()) {
        let mut now = device.clone();
        // A new key may turn out to be a peer's, which only the next look sees.
        for _ in 0..2 {
            let change = plan(&desired, &now);
            apply(&mut now, &change);
        }
        prop_assert_eq!(plan(&desired, &now), Change::default());
        let own = now.public_key;
        let expected: Vec<&DesiredPeer> = desired.peers.iter().filter(|peer| Some(peer.public_key) != own).collect();
        prop_assert_eq!(now.peers.len(), expected.len());
        for want in expected {
            let have = now.peers.iter().find(|peer| peer.public_key == want.public_key).unwrap();
            prop_assert_eq!(have.persistent_keepalive, want.persistent_keepalive);
            prop_assert_eq!(&have.allowed_ips, &want.allowed_ips);
            prop_assert!(want.endpoint.is_none() || have.endpoint == want.endpoint);
        }
        prop_assert!(desired.private_key.is_none() || now.private_key == desired.private_key);
        prop_assert_eq!(now.listen_port, desired.listen_port.unwrap_or(match device.listen_port { 2 => 40_000, kept => kept }));
    }

    #[test]
    fn peers_that_stay_as_they_are_are_not_mentioned(device in devices(), number in 0_u8..5) {
        let mut desired = Desired {
            private_key: device.private_key.clone(),
            listen_port: Some(device.listen_port),
            foreign_ports: Vec::new(),
            peers: device.peers.iter().map(|peer| DesiredPeer {
                public_key: peer.public_key,
                endpoint: None,
                persistent_keepalive: peer.persistent_keepalive,
                allowed_ips: peer.allowed_ips.clone(),
            }).collect(),
        };
        prop_assert!(plan(&desired, &device).is_empty());
        let goes = public(number);
        desired.peers.retain(|peer| peer.public_key != goes);
        let gone: Vec<PeerChange> = device.peers.iter().filter(|peer| peer.public_key == goes)
            .map(|peer| PeerChange::Remove(peer.public_key)).collect();
        prop_assert_eq!(plan(&desired, &device).peers, gone);
    }
}

#[test]
fn a_roamed_peer_is_left_where_it_is_unless_it_is_told() {
    let elsewhere = SocketAddr::from(([198, 51, 100, 9], 7));
    let device = Device {
        peers: vec![Peer { endpoint: Some(elsewhere), ..Peer::new(public(1)) }],
        ..Device::default()
    };
    let wish = |endpoint| Desired {
        private_key: None,
        listen_port: None,
        foreign_ports: Vec::new(),
        peers: vec![DesiredPeer {
            public_key: public(1),
            endpoint,
            persistent_keepalive: 0,
            allowed_ips: BTreeSet::new(),
        }],
    };
    assert!(plan(&wish(None), &device).is_empty());
    let home = SocketAddr::from(([203, 0, 113, 1], 51_820));
    let told = PeerChange::Set {
        public_key: public(1),
        endpoint: Some(home),
        persistent_keepalive: None,
        allowed_ips: None,
    };
    assert_eq!(plan(&wish(Some(home)), &device).peers, [told]);
}
