//! Others on the wire of a served network who do what only this box may: use its address, or run a DHCP server.
//!
//! A machine without sockets. Both are told to people, as both make an office fail in ways nobody understands; our
//! own address is also defended (RFC 5227 §2.4). Memory is bounded, as anybody may claim anything.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::time::Instant;

/// Our address is announced at most this often against somebody who has it too (RFC 5227 §1.1, DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// One that has not been heard for so long is gone, or has been told what to do.
const FORGET: Duration = Duration::from_secs(600);
/// Remembered at most; more of them are an attack, and more names in the status help nobody.
const MAX: usize = 4;

/// The neighbours of one network.
#[derive(Debug, Default)]
pub struct Neighbours {
    impostors: BTreeMap<[u8; 6], Instant>,
    servers: BTreeMap<Ipv4Addr, Instant>,
    defended_at: Option<Instant>,
}

impl Neighbours {
    /// Another host claims our own address. True when it is time to announce that it is ours.
    pub fn handle_claim(&mut self, now: Instant, mac: [u8; 6]) -> bool {
        remember(&mut self.impostors, now, mac);
        if self.defended_at.is_some_and(|at| now.since(at) < DEFEND_INTERVAL) {
            return false;
        }
        self.defended_at = Some(now);
        true
    }

    /// Another DHCP server has answered somebody.
    pub fn handle_server(&mut self, now: Instant, server: Ipv4Addr) {
        remember(&mut self.servers, now, server);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.impostors.retain(|_, heard_at| now.since(*heard_at) < FORGET);
        self.servers.retain(|_, heard_at| now.since(*heard_at) < FORGET);
    }

    /// For people.
    pub fn problems(&self, interface: &str, own: Ipv4Addr) -> impl Iterator<Item = String> {
        let impostors = self.impostors.keys().map(move |[a, b, c, d, e, f]| {
            format!(
                "{interface}: {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} also has the address {own} of this gateway; \
                 give that device another one"
            )
        });
        let servers = self.servers.keys().map(move |server| {
            format!(
                "{interface}: another DHCP server, {server}, answers there, so devices may get wrong addresses; switch it \
                 off"
            )
        });
        impostors.chain(servers)
    }
}

fn remember<K: Ord>(known: &mut BTreeMap<K, Instant>, now: Instant, key: K) {
    if known.len() < MAX || known.contains_key(&key) {
        known.insert(key, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(1000 + seconds)
    }

    fn problems(neighbours: &Neighbours) -> Vec<String> {
        neighbours.problems("port2", OWN).collect()
    }

    #[test]
    fn our_address_is_defended_every_ten_seconds_and_the_impostor_named() {
        let mut neighbours = Neighbours::default();
        let mac = [2, 0, 0, 0, 0, 9];
        assert!(neighbours.handle_claim(at(0), mac));
        assert!(!neighbours.handle_claim(at(9), mac));
        assert!(neighbours.handle_claim(at(10), mac));
        let text = "port2: 02:00:00:00:00:09 also has the address 192.168.77.1 of this gateway; give that device \
                    another one";
        assert_eq!(problems(&neighbours), [text]);
        neighbours.handle_timeout(at(609));
        assert_eq!(problems(&neighbours).len(), 1);
        neighbours.handle_timeout(at(610));
        assert_eq!(problems(&neighbours), [""; 0]);
    }

    #[test]
    fn other_servers_are_named_and_a_flood_of_them_is_not_remembered() {
        let mut neighbours = Neighbours::default();
        for last in 2..200 {
            neighbours.handle_server(at(0), Ipv4Addr::new(192, 168, 77, last));
        }
        let problems = problems(&neighbours);
        assert_eq!(problems.len(), MAX);
        assert!(problems[0].contains("another DHCP server, 192.168.77.2,"), "{problems:?}");
    }
}
