//! Keeps WireGuard devices as the site wants them, and says which peers are up: `kontor_wireguard` with its socket, clock and
//! name look-ups. Links, addresses and routes of tunnels are those of every other interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};

use kontor_config::Site;
use kontor_config::site::{Tunnel, TunnelPeer};
use kontor_network::{LinkKind, Observed};
use kontor_status::paths::Paths;
use kontor_status::{TunnelPeerStatus, TunnelStatus};
use kontor_wireguard::handshake::{is_stale, is_up};
use kontor_wireguard::{Desired, Device, Endpoints, Handshakes, PublicKey, plan};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::keys::Keys;
use super::wireguard::WireGuard;
use crate::resolver;

/// The kernel announces no handshakes. What is up is known this exactly.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Counters alone are published no more often: each time wakes those who follow netd's status.
const COUNTERS_EVERY: Duration = Duration::from_secs(30);

/// A name's addresses; none when the name service does not know it.
type Answer = (String, Vec<Ipv4Addr>);

/// All tunnels of the site.
pub(super) struct Tunnels {
    keys: Keys,
    wireguard: Option<WireGuard>,
    endpoints: Endpoints,
    /// By interface.
    handshakes: BTreeMap<String, Handshakes>,
    /// Peers that are not heard, by interface.
    silent: BTreeSet<(String, PublicKey)>,
    asked: UnboundedSender<Answer>,
    answers: UnboundedReceiver<Answer>,
    look_at: Option<Instant>,
    counters_at: Instant,
    statuses: Vec<TunnelStatus>,
    problems: Vec<String>,
}

impl Tunnels {
    pub(super) fn new(paths: &Paths) -> Self {
        let (asked, answers) = unbounded_channel();
        Self {
            keys: Keys::new(paths.tunnel_keys()),
            wireguard: None,
            endpoints: Endpoints::default(),
            handshakes: BTreeMap::new(),
            silent: BTreeSet::new(),
            asked,
            answers,
            look_at: None,
            counters_at: Instant::now(),
            statuses: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// When to look again; never without tunnels.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// The kernel could not be looked at.
    pub(super) fn look_later(&mut self) {
        self.look_at = Some(Instant::now() + LOOK_EVERY);
    }

    /// Waits for an answer of the name service, and takes it; look then.
    pub(super) async fn name_answered(&mut self) {
        match self.answers.recv().await {
            Some((name, addresses)) => self.endpoints.answered(Instant::now(), &name, addresses),
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    pub(super) fn statuses(&self) -> &[TunnelStatus] {
        &self.statuses
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Makes the devices what the site wants, and looks at them. True when what is to be published has changed.
    pub(super) fn turn(&mut self, site: &Site, observed: &Observed) -> bool {
        let now = Instant::now();
        self.look_at = (!site.tunnels.is_empty()).then(|| now + LOOK_EVERY);
        self.endpoints.follow(now, &site.tunnels);
        let interfaces: Vec<String> = site.tunnels.iter().map(Tunnel::interface).collect();
        self.handshakes.retain(|interface, _| interfaces.contains(interface));
        self.silent.retain(|(interface, _)| interfaces.contains(interface));
        let mut problems = Vec::new();
        let statuses: Vec<TunnelStatus> =
            site.tunnels.iter().map(|tunnel| self.tend(now, site, tunnel, observed, &mut problems)).collect();
        self.ask_names(now);
        for (interface, name) in self.endpoints.unknown(now) {
            problems.push(format!("{interface}: the name service does not know {name}"));
        }
        let news = problems != self.problems || !differs_in_counters_alone(&statuses, &self.statuses);
        if !news && now < self.counters_at {
            return false;
        }
        say_what_changed(&self.statuses, &statuses);
        self.counters_at = now + COUNTERS_EVERY;
        let changed = news || statuses != self.statuses;
        (self.statuses, self.problems) = (statuses, problems);
        changed
    }

    /// One tunnel. Without its link, which has its own problem then, there is nothing to be seen.
    fn tend(
        &mut self,
        now: Instant,
        site: &Site,
        tunnel: &Tunnel,
        observed: &Observed,
        problems: &mut Vec<String>,
    ) -> TunnelStatus {
        let interface = tunnel.interface();
        let is_there = observed.link(&interface).is_some_and(|link| link.kind == LinkKind::WireGuard);
        let device = if is_there {
            self.settle(now, site, tunnel, problems).unwrap_or_else(|error| {
                problems.push(format!("tunnel {}: {error}", tunnel.name));
                // Whatever is wrong with the socket goes with it.
                self.wireguard = None;
                Device::default()
            })
        } else {
            self.handshakes.remove(&interface);
            Device::default()
        };
        let status = self.status(now, tunnel, &device, problems);
        if status.peers.iter().any(|peer| peer.up) {
            self.keys.is_known(&tunnel.name);
        }
        if let (true, Some(key)) = (self.keys.is_renewed(&tunnel.name), &status.public_key) {
            let name = &tunnel.name;
            problems.push(format!(
                "the key of tunnel {name} was lost with its damaged file; it has a new one, which the other end has to be told: {key}"
            ));
        }
        status
    }

    /// Changes what differs, and returns the device as it is then.
    fn settle(
        &mut self,
        now: Instant,
        site: &Site,
        tunnel: &Tunnel,
        problems: &mut Vec<String>,
    ) -> std::io::Result<Device> {
        let interface = tunnel.interface();
        let wireguard = match &mut self.wireguard {
            Some(wireguard) => wireguard,
            none => none.insert(WireGuard::open()?),
        };
        let device = wireguard.device(&interface)?;
        let key = self.keys.get(&tunnel.name, device.private_key.as_ref());
        let key = key.map_err(|problem| problems.push(problem)).ok();
        self.listen(now, &interface, &device);
        let (endpoints, silent) = (&self.endpoints, &self.silent);
        let desired = Desired::new(tunnel, &site.tunnels, key, |peer| {
            let known =
                device.peers.iter().find(|known| known.public_key == peer).and_then(|known| known.endpoint);
            endpoints.endpoint(&interface, peer, known, silent.contains(&(interface.clone(), peer)))
        });
        let change = plan(&desired, &device);
        if change.is_empty() {
            self.tell(&interface, &desired);
            return Ok(device);
        }
        let Some(wireguard) = &mut self.wireguard else { return Ok(device) };
        match wireguard.apply(&interface, &change) {
            Ok(()) => eprintln!("tunnel {}: device {interface} set up", tunnel.name),
            // What it has goes on, and is shown.
            Err(error) => problems.push(format!("tunnel {}: {error}", tunnel.name)),
        }
        let device = wireguard.device(&interface)?;
        self.tell(&interface, &desired);
        Ok(device)
    }

    fn tell(&mut self, interface: &str, desired: &Desired) {
        for peer in desired.peers.iter().filter(|peer| peer.endpoint.is_some()) {
            self.endpoints.told(interface, peer.public_key);
        }
    }

    /// Takes the handshakes in, and who is silent. Who is heard when we begin to look may stay where it is heard.
    fn listen(&mut self, now: Instant, interface: &str, device: &Device) {
        let first = !self.handshakes.contains_key(interface);
        let handshakes = self.handshakes.entry(interface.to_owned()).or_default();
        handshakes.retain(|peer| device.peers.iter().any(|known| known.public_key == peer));
        self.silent.retain(|(of, _)| of != interface);
        for peer in &device.peers {
            let age = handshakes.see(now, wall(), peer.public_key, peer.latest_handshake);
            if is_stale(age) {
                self.silent.insert((interface.to_owned(), peer.public_key));
            } else if first {
                self.endpoints.told(interface, peer.public_key);
            }
        }
    }

    fn status(
        &mut self,
        now: Instant,
        tunnel: &Tunnel,
        device: &Device,
        problems: &mut Vec<String>,
    ) -> TunnelStatus {
        let interface = tunnel.interface();
        let mut peers = Vec::new();
        for peer in &tunnel.peers {
            if device.public_key == Some(PublicKey(peer.public_key)) {
                problems.push(format!(
                    "tunnel {}: the public key of peer {} is this box's own; the other end's is needed",
                    tunnel.name, peer.name
                ));
            }
            peers.push(self.peer_status(now, &interface, peer, device));
        }
        TunnelStatus {
            name: tunnel.name.clone(),
            interface,
            public_key: device.public_key.map(|key| key.to_string()),
            listen_port: Some(device.listen_port).filter(|port| *port != 0),
            peers,
        }
    }

    fn peer_status(
        &mut self,
        now: Instant,
        interface: &str,
        peer: &TunnelPeer,
        device: &Device,
    ) -> TunnelPeerStatus {
        let (name, key, kept) = (peer.name.clone(), PublicKey(peer.public_key), peer.is_kept());
        let Some(known) = device.peers.iter().find(|known| known.public_key == key) else {
            return TunnelPeerStatus { name, kept, ..TunnelPeerStatus::default() };
        };
        let handshakes = self.handshakes.entry(interface.to_owned()).or_default();
        let age = handshakes.see(now, wall(), key, known.latest_handshake);
        TunnelPeerStatus {
            name,
            endpoint: known.endpoint,
            up: is_up(age),
            kept,
            latest_handshake_s: known.latest_handshake.map(|at| at.as_secs()),
            received_bytes: known.received,
            sent_bytes: known.sent,
        }
    }

    /// A thread for each question: the name service may take seconds, and the next name need not wait for it.
    fn ask_names(&mut self, now: Instant) {
        let silent = &self.silent;
        let is_silent = |interface: &str, peer| silent.contains(&(interface.to_owned(), peer));
        for name in self.endpoints.due(now, is_silent) {
            let (sender, asked) = (self.asked.clone(), name.clone());
            let ask = move || {
                let addresses = resolver::resolve(&asked).unwrap_or_default();
                // Nobody listens any more when netd ends.
                let _ = sender.send((asked, addresses));
            };
            if std::thread::Builder::new().name("names".into()).spawn(ask).is_err() {
                self.endpoints.answered(now, &name, Vec::new());
            }
        }
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn differs_in_counters_alone(new: &[TunnelStatus], old: &[TunnelStatus]) -> bool {
    let without = |statuses: &[TunnelStatus]| {
        let mut statuses = statuses.to_vec();
        for peer in statuses.iter_mut().flat_map(|tunnel| &mut tunnel.peers) {
            (peer.received_bytes, peer.sent_bytes) = (0, 0);
        }
        statuses
    };
    without(new) == without(old)
}

/// For the log.
fn say_what_changed(old: &[TunnelStatus], new: &[TunnelStatus]) {
    let before = peers(old);
    for (name, up) in peers(new) {
        match (before.get(&name), up) {
            (Some(false) | None, true) => eprintln!("tunnel {name} is up"),
            (Some(true), false) => eprintln!("tunnel {name} is down: no handshake within 180 s"),
            _ => {}
        }
    }
}

fn peers(statuses: &[TunnelStatus]) -> BTreeMap<String, bool> {
    let named = |tunnel: &TunnelStatus| {
        let name = tunnel.name.clone();
        tunnel.peers.iter().map(move |peer| (format!("{name}/{}", peer.name), peer.up)).collect::<Vec<_>>()
    };
    statuses.iter().flat_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(up: bool, received_bytes: u64) -> TunnelStatus {
        let peer = TunnelPeerStatus { name: "hq".into(), up, received_bytes, ..TunnelPeerStatus::default() };
        TunnelStatus { name: "a".into(), peers: vec![peer], ..TunnelStatus::default() }
    }

    #[test]
    fn counters_alone_are_no_news() {
        assert!(differs_in_counters_alone(&[status(true, 1)], &[status(true, 2)]));
        assert!(!differs_in_counters_alone(&[status(true, 1)], &[status(false, 1)]));
        assert!(!differs_in_counters_alone(&[status(true, 1)], &[]));
    }
}
