//! Where a peer of the site is tried: at an address, or at those that a name has just now.
//!
//! A name is asked for until it is known, and again while the peer is not heard: the other end's provider may have given it
//! another address (dynamic DNS). Of several addresses each has its turn.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use kontor_config::site::{Endpoint, EndpointHost, Tunnel};

use crate::PublicKey;

/// How soon an unknown name is asked for again: the line may have just come up.
pub const UNKNOWN_AGAIN: Duration = Duration::from_secs(5);
/// How soon the name of a peer that is not heard is asked for again, and its next address tried: three tries of the kernel's
/// handshake (`REKEY_TIMEOUT`, 5 s) at each.
pub const SILENT_AGAIN: Duration = Duration::from_secs(15);
/// While a box boots its line is not up yet, which is no problem of the name's.
pub const UNKNOWN_IS_LATE: Duration = Duration::from_secs(60);

/// Peers of all tunnels, by interface and key.
#[derive(Debug, Default)]
pub struct Endpoints {
    peers: BTreeMap<(String, PublicKey), Tried>,
}

#[derive(Debug)]
struct Tried {
    endpoint: Endpoint,
    /// Of a name, as it was last answered; an address is its own.
    addresses: Vec<Ipv4Addr>,
    /// Which of them has its turn.
    turn: usize,
    /// When the name is to be asked for again.
    due_at: Instant,
    /// When the site began to name it.
    since: Instant,
    /// An answer is awaited.
    asked: bool,
    /// Whether the kernel has been told of an endpoint of this entry.
    told: bool,
}

impl Endpoints {
    /// Follows the site. A peer whose endpoint has changed is told of it, whether it is heard or not.
    pub fn follow(&mut self, now: Instant, tunnels: &[Tunnel]) {
        let mut before = std::mem::take(&mut self.peers);
        for tunnel in tunnels {
            for peer in &tunnel.peers {
                let (key, Some(endpoint)) =
                    ((tunnel.interface(), PublicKey(peer.public_key)), &peer.endpoint)
                else {
                    continue;
                };
                let kept = before.remove(&key).filter(|tried| tried.endpoint == *endpoint);
                self.peers.insert(key, kept.unwrap_or_else(|| Tried::new(now, endpoint.clone())));
            }
        }
    }

    /// The names to ask for now, each once; their answers go to [`Self::answered`].
    pub fn due(&mut self, now: Instant, is_silent: impl Fn(&str, PublicKey) -> bool) -> Vec<String> {
        let mut names = Vec::new();
        for ((interface, key), tried) in &mut self.peers {
            let EndpointHost::Name(name) = &tried.endpoint.host else { continue };
            let wanted = tried.addresses.is_empty() || is_silent(interface, *key);
            if wanted && !tried.asked && now >= tried.due_at {
                tried.asked = true;
                names.push(name.clone());
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What the name service says; nothing when it does not answer, or the name has no address. What was known stays then.
    pub fn answered(&mut self, now: Instant, name: &str, mut addresses: Vec<Ipv4Addr>) {
        // Name services change the order with each answer, which must not keep an address from its turn.
        addresses.sort_unstable();
        addresses.dedup();
        for tried in self.peers.values_mut().filter(|tried| tried.asked && tried.is_at(name)) {
            tried.asked = false;
            tried.answered(now, &addresses);
        }
    }

    /// What the kernel is to be told of a peer for which it has `known`: that is left alone while the peer is heard, wherever it
    /// has moved to.
    #[must_use]
    pub fn endpoint(
        &self,
        interface: &str,
        peer: PublicKey,
        known: Option<SocketAddr>,
        is_silent: bool,
    ) -> Option<SocketAddr> {
        let tried = self.peers.get(&(interface.to_owned(), peer))?;
        (known.is_none() || is_silent || !tried.told).then(|| tried.address()).flatten()
    }

    /// The kernel has an endpoint of this peer that is as good as what we would tell: it was told, or it is heard by a box that has
    /// just begun to look.
    pub fn told(&mut self, interface: &str, peer: PublicKey) {
        if let Some(tried) = self.peers.get_mut(&(interface.to_owned(), peer)) {
            tried.told = true;
        }
    }

    /// Names that are not known although there was time for it, for people.
    pub fn unknown(&self, now: Instant) -> impl Iterator<Item = (&str, &str)> {
        let is_late = move |tried: &Tried| tried.addresses.is_empty() && now >= tried.since + UNKNOWN_IS_LATE;
        self.peers.iter().filter(move |(_, tried)| is_late(tried)).filter_map(|((interface, _), tried)| {
            match &tried.endpoint.host {
                EndpointHost::Name(name) => Some((interface.as_str(), name.as_str())),
                EndpointHost::Address(_) => None,
            }
        })
    }
}

impl Tried {
    fn new(now: Instant, endpoint: Endpoint) -> Self {
        let addresses = match endpoint.host {
            EndpointHost::Address(address) => vec![address],
            EndpointHost::Name(_) => Vec::new(),
        };
        Self { endpoint, addresses, turn: 0, due_at: now, since: now, asked: false, told: false }
    }

    fn is_at(&self, name: &str) -> bool {
        matches!(&self.endpoint.host, EndpointHost::Name(own) if own == name)
    }

    fn answered(&mut self, now: Instant, addresses: &[Ipv4Addr]) {
        let current = self.addresses.get(self.turn).copied();
        if !addresses.is_empty() {
            addresses.clone_into(&mut self.addresses);
            // The one after that which did not answer.
            let next = current.and_then(|current| addresses.iter().position(|address| *address > current));
            self.turn = next.unwrap_or(0);
        }
        let pause = if self.addresses.is_empty() { UNKNOWN_AGAIN } else { SILENT_AGAIN };
        self.due_at = now + pause;
    }

    fn address(&self) -> Option<SocketAddr> {
        self.addresses.get(self.turn).map(|address| SocketAddr::from((*address, self.endpoint.port)))
    }
}

#[cfg(test)]
mod tests {
    use kontor_config::site::TunnelPeer;

    use super::*;

    const PEER: PublicKey = PublicKey([1; 32]);
    const WG: &str = "wg-hq";

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn tunnels(host: EndpointHost) -> Vec<Tunnel> {
        vec![Tunnel {
            name: "hq".into(),
            address: "10.255.0.2/32".parse().unwrap(),
            listen_port: None,
            mtu: 1420,
            peers: vec![TunnelPeer {
                name: "headquarters".into(),
                public_key: PEER.0,
                endpoint: Some(Endpoint { host, port: 7 }),
                allowed_ips: vec!["10.10.0.0/16".parse().unwrap()],
                persistent_keepalive_s: None,
            }],
        }]
    }

    fn named(name: &str) -> Vec<Tunnel> {
        tunnels(EndpointHost::Name(name.into()))
    }

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, last)
    }

    fn to(last: u8) -> Option<SocketAddr> {
        Some(SocketAddr::from((at(last), 7)))
    }

    #[test]
    fn a_name_is_asked_for_until_it_is_known_and_again_while_the_peer_is_silent() {
        let (start, mut endpoints) = (Instant::now(), Endpoints::default());
        endpoints.follow(start, &named("vpn.example.net"));
        assert_eq!(endpoints.due(start, |_, _| false), ["vpn.example.net"]);
        assert!(endpoints.due(start + s(60), |_, _| true).is_empty(), "one question at a time");
        endpoints.answered(start, "vpn.example.net", Vec::new());
        assert_eq!(endpoints.unknown(start + s(59)).count(), 0);
        assert_eq!(endpoints.unknown(start + s(60)).collect::<Vec<_>>(), [(WG, "vpn.example.net")]);
        assert_eq!(endpoints.endpoint(WG, PEER, None, true), None);
        assert!(endpoints.due(start + s(4), |_, _| true).is_empty());
        assert_eq!(endpoints.due(start + s(5), |_, _| true).len(), 1);
        endpoints.answered(start + s(5), "vpn.example.net", vec![at(1)]);
        assert_eq!(endpoints.unknown(start + s(60)).count(), 0);
        assert_eq!(endpoints.endpoint(WG, PEER, None, true), to(1));
        assert!(endpoints.due(start + s(19), |_, _| true).is_empty());
        assert!(endpoints.due(start + s(500), |_, _| false).is_empty(), "it is heard");
        assert_eq!(endpoints.due(start + s(500), |_, _| true).len(), 1);
        // The name service is gone: what was known is still tried.
        endpoints.answered(start + s(500), "vpn.example.net", Vec::new());
        assert_eq!(endpoints.endpoint(WG, PEER, None, true), to(1));
        // The other end has another address.
        endpoints.due(start + s(515), |_, _| true);
        endpoints.answered(start + s(515), "vpn.example.net", vec![at(9)]);
        assert_eq!(endpoints.endpoint(WG, PEER, to(1), true), to(9));
    }

    #[test]
    fn each_address_has_its_turn_whatever_the_order_of_answers() {
        let (start, mut endpoints) = (Instant::now(), Endpoints::default());
        endpoints.follow(start, &named("vpn.example.net"));
        let mut tried = Vec::new();
        for (round, answer) in [[3, 1, 2], [2, 3, 1], [1, 2, 3], [3, 2, 1]].into_iter().enumerate() {
            let now = start + s(100 * round as u64);
            assert_eq!(endpoints.due(now, |_, _| true).len(), 1);
            endpoints.answered(now, "vpn.example.net", answer.map(at).to_vec());
            tried.push(endpoints.endpoint(WG, PEER, None, true));
        }
        assert_eq!(tried, [to(1), to(2), to(3), to(1)]);
    }

    #[test]
    fn a_peer_that_is_heard_is_left_where_it_is_until_the_site_says_otherwise() {
        let (start, mut endpoints) = (Instant::now(), Endpoints::default());
        let site = tunnels(EndpointHost::Address(at(1)));
        endpoints.follow(start, &site);
        assert!(endpoints.due(start, |_, _| true).is_empty(), "an address needs no name service");
        assert_eq!(endpoints.endpoint(WG, PEER, to(5), false), to(1), "not told yet");
        endpoints.told(WG, PEER);
        assert_eq!(endpoints.endpoint(WG, PEER, to(5), false), None, "roamed");
        assert_eq!(endpoints.endpoint(WG, PEER, to(5), true), to(1), "lost");
        assert_eq!(endpoints.endpoint(WG, PEER, None, false), to(1), "made anew");
        endpoints.follow(start, &site);
        assert_eq!(endpoints.endpoint(WG, PEER, to(5), false), None, "a reload changes nothing");
        endpoints.follow(start, &tunnels(EndpointHost::Address(at(2))));
        assert_eq!(endpoints.endpoint(WG, PEER, to(1), false), to(2), "the site has changed");
        endpoints.follow(start, &[]);
        assert_eq!(endpoints.endpoint(WG, PEER, None, true), None);
    }
}
