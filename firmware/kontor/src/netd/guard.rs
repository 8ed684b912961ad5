//! Finds ports that are plugged into the same switch: `kontor_network::loops` with its sockets and clock.
//!
//! The sockets hear nothing but probes; what anybody else says under their Ethernet type is dropped there.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::time::Instant;

use kontor_config::Site;
use kontor_config::site::{Network, Zone};
use kontor_network::Observed;
use kontor_network::loops::{ETHER_TYPE, Findings, Loops, explain};
use kontor_sys::packet::{BROADCAST_MAC, Traffic};

use super::watched::Watched;

/// Frames read in a row from one interface; a flood must not keep us from everything else.
const BATCH: usize = 64;
/// Longer than any probe; the rest of a frame is of no interest.
const FRAME_MAX: usize = 128;

/// The watch over all ports.
pub(super) struct Guard {
    loops: Loops,
    /// By interface; one that cannot be opened is tried again at the next change of links.
    sockets: BTreeMap<String, Watched>,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self { loops: Loops::new(secret()), sockets: BTreeMap::new() }
    }

    /// Follows the carriers.
    pub(super) fn follow(&mut self, site: &Site, observed: &Observed) {
        let alive = |name: &String| observed.link(name).is_some_and(|link| link.up && link.carrier);
        let ears: BTreeSet<String> = site.networks.iter().map(Network::interface).filter(alive).collect();
        let internal = site.networks_in(Zone::Internal).flat_map(|network| network.ports.iter().cloned());
        let ports: BTreeSet<String> = internal.filter(alive).collect();
        let index = |name: &str| observed.link(name).map(|link| link.index);
        self.sockets.retain(|name, socket| {
            (ears.contains(name) || ports.contains(name)) && index(name) == Some(socket.socket().index())
        });
        for name in ears.union(&ports) {
            if !self.sockets.contains_key(name)
                && let Ok(socket) = Watched::open(name, Traffic::Ethernet(ETHER_TYPE))
            {
                self.sockets.insert(name.clone(), socket);
            }
        }
        self.loops.set_links(Instant::now(), ports, ears);
        self.turn();
    }

    /// Something points to a loop.
    pub(super) fn suspect(&mut self) {
        self.loops.suspect(Instant::now());
    }

    /// Receives, lets time act, sends. True when what is found has changed.
    pub(super) fn turn(&mut self) -> bool {
        let before: Vec<_> = self.loops.found().cloned().collect();
        for (interface, socket) in &self.sockets {
            let mut buffer = [0; FRAME_MAX];
            for _ in 0..BATCH {
                let Ok(frame) = socket.socket().receive(&mut buffer) else { break };
                self.loops.handle_frame(Instant::now(), interface, frame);
            }
        }
        self.loops.handle_timeout(Instant::now());
        while let Some((port, probe)) = self.loops.poll_transmit() {
            if let Some(socket) = self.sockets.get(&port) {
                // A lost probe is followed by the next one.
                let _ = socket.socket().send(BROADCAST_MAC, &probe);
            }
        }
        !self.loops.found().eq(&before)
    }

    pub(super) fn findings(&self, site: &Site) -> Findings {
        explain(site, self.loops.found())
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.loops.poll_timeout()
    }

    /// Waits until [`Self::turn`] may have something to read.
    pub(super) async fn readable(&self) {
        if self.sockets.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.sockets.values().map(|socket| Box::pin(socket.readable()));
        futures_util::future::select_all(waits).await;
    }
}

/// Drawn anew at each start. The standard library keys its hash tables with the kernel's random numbers; two
/// tables' worth of them cannot be guessed.
fn secret() -> [u8; 16] {
    let half = || std::collections::hash_map::RandomState::new().build_hasher().finish().to_be_bytes();
    let mut secret = [0; 16];
    let (first, second) = secret.split_at_mut(8);
    first.copy_from_slice(&half());
    second.copy_from_slice(&half());
    secret
}
