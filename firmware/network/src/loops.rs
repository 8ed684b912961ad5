//! Which ports are plugged into the same switch by mistake, as a machine without sockets.
//!
//! Every port of an internal network sends a probe now and then: a broadcast that nobody but us understands, and
//! that nobody outside can forge, as it carries a number drawn at each start. A probe that comes in on another
//! interface has found a way there outside the box. So the box knows, without waiting for traffic of others,
//! whether what it says to the office also reaches the provider.
//!
//! Give it the interfaces whose link is up, what was received and the time; take probes from
//! [`Loops::poll_transmit`], and what is wrong from [`Loops::found`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use kontor_config::Site;
use kontor_config::site::{Network, Zone};

/// Ethernet type of the probes: "Local Experimental 1" (IEEE 802, clause 9), which no other protocol may use.
pub const ETHER_TYPE: u16 = 0x88b5;
/// Time between two probes of a port. A cable changed behind a switch shows in no carrier; within this time no
/// more than a few clients ask for an address.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between two probes because of a suspicion.
const SUSPICION_PAUSE: Duration = Duration::from_secs(1);
/// More probes after a link came up: switches with spanning tree forward nothing for up to 30 s, all others at once.
const FIRST: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(1)];
/// A way that no probe took for this long is gone: three in a row may get lost by accident once in a blue moon.
pub const FORGET: Duration = Duration::from_secs(16);

const MAGIC: &[u8; 12] = b"kontor loop\n";

/// A probe's way: sent by one port, heard on another interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The port that sent the probe.
    pub port: String,
    /// The interface (port or bridge) on which it came back.
    pub heard_on: String,
}

/// The machine.
#[derive(Debug)]
pub struct Loops {
    secret: [u8; 16],
    /// Ports that probe, by name.
    ports: BTreeSet<String>,
    /// Interfaces that listen.
    ears: BTreeSet<String>,
    due: BTreeSet<Instant>,
    probed_at: Option<Instant>,
    heard: BTreeMap<Way, Instant>,
    transmits: VecDeque<(String, Vec<u8>)>,
}

impl Loops {
    /// `secret` must be drawn anew at each start, and be unknown to everybody else.
    #[must_use]
    pub fn new(secret: [u8; 16]) -> Self {
        Self {
            secret,
            ports: BTreeSet::new(),
            ears: BTreeSet::new(),
            due: BTreeSet::new(),
            probed_at: None,
            heard: BTreeMap::new(),
            transmits: VecDeque::new(),
        }
    }

    /// The ports of internal networks and the interfaces of all networks that have a carrier now. One more of
    /// either makes all probe at once; ways of those that are gone are gone too.
    pub fn set_links(&mut self, now: Instant, ports: BTreeSet<String>, ears: BTreeSet<String>) {
        let more = !ports.is_subset(&self.ports) || !ears.is_subset(&self.ears);
        (self.ports, self.ears) = (ports, ears);
        let (ports, ears) = (&self.ports, &self.ears);
        self.heard.retain(|way, _| ports.contains(&way.port) && ears.contains(&way.heard_on));
        if self.ports.is_empty() {
            self.due.clear();
        } else if more {
            self.due = FIRST.iter().map(|after| now + *after).collect();
        }
    }

    /// Something points to a loop (an answer of our own server came in): find out now, but not for each of a flood
    /// of forged answers.
    pub fn suspect(&mut self, now: Instant) {
        let earliest = self.probed_at.map_or(now, |at| now.max(at + SUSPICION_PAUSE));
        if !self.ports.is_empty() && self.due.first().is_none_or(|at| *at > earliest) {
            self.due.insert(earliest);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let forget = self.heard.values().min().map(|at| *at + FORGET);
        self.due.first().copied().into_iter().chain(forget).min()
    }

    /// Time has passed. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.heard.retain(|_, at| now < *at + FORGET);
        if self.due.first().is_none_or(|at| now < *at) {
            return;
        }
        self.due.retain(|at| *at > now);
        self.probed_at = Some(now);
        if self.due.is_empty() {
            self.due.insert(now + INTERVAL);
        }
        self.transmits = self.ports.iter().map(|port| (port.clone(), self.probe(port))).collect();
    }

    /// The next probe to broadcast: port and payload.
    pub fn poll_transmit(&mut self) -> Option<(String, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// Something of [`ETHER_TYPE`] came in on an interface.
    pub fn handle_frame(&mut self, now: Instant, heard_on: &str, payload: &[u8]) {
        let sent_by = self.ports.iter().find(|port| payload.starts_with(&self.probe(port)));
        if let Some(port) = sent_by.filter(|_| self.ears.contains(heard_on)).cloned() {
            self.heard.insert(Way { port, heard_on: heard_on.to_owned() }, now);
        }
    }

    /// The ways there are between our ports outside the box.
    pub fn found(&self) -> impl Iterator<Item = &Way> {
        self.heard.keys()
    }

    fn probe(&self, port: &str) -> Vec<u8> {
        // The end of the name is marked: `port1` is no beginning of `port10`. Padding may follow.
        [&MAGIC[..], &self.secret, port.as_bytes(), b"\n"].concat()
    }
}

/// What the ways mean for the office.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// For people: which cables are wrong, and what follows.
    pub problems: Vec<String>,
    /// Internal networks that are connected with an external one: whatever is offered there is offered to the
    /// provider's network too.
    pub exposed: Vec<String>,
}

/// Says what the ways found mean.
pub fn explain<'a>(site: &Site, ways: impl Iterator<Item = &'a Way>) -> Findings {
    let mut findings = Findings::default();
    for way in ways {
        let from = site.networks.iter().find(|network| network.ports.contains(&way.port));
        let to = site.networks.iter().find(|network| network.interface() == way.heard_on);
        let (Some(from), Some(to)) = (from, to) else { continue };
        let problem = describe(way, from, to);
        if !findings.problems.contains(&problem) {
            findings.problems.push(problem);
        }
        if to.zone == Zone::External && !findings.exposed.contains(&from.name) {
            findings.exposed.push(from.name.clone());
        }
    }
    findings
}

fn describe(way: &Way, from: &Network, to: &Network) -> String {
    let (port, lan, other) = (&way.port, &from.name, &to.name);
    let there = to.ports.join(" or ");
    if to.zone == Zone::External {
        format!(
            "{port} ({lan}) and {there} ({other}) are plugged into the same switch: {lan} gives out no new addresses \
             until the cables are right; only the provider's line belongs into {there}"
        )
    } else if lan != other {
        format!(
            "{port} ({lan}) and {there} ({other}) are plugged into the same switch: clients get addresses of either; \
             pull one of the two cables"
        )
    } else if to.ports.len() > 1 {
        format!(
            "{port} and another port of {lan} are plugged into the same switch: pull one of the two cables"
        )
    } else {
        format!("what {port} ({lan}) sends comes back to it: there is a loop in the switches behind it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::site;

    struct Lab {
        loops: Loops,
        start: Instant,
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    impl Lab {
        fn new() -> Self {
            let mut lab = Self { loops: Loops::new([7; 16]), start: Instant::now() };
            lab.links(0, &["port2", "port3"], &["port1", "br-lan"]);
            lab
        }

        fn at(&self, milliseconds: u64) -> Instant {
            self.start + Duration::from_millis(milliseconds)
        }

        fn links(&mut self, milliseconds: u64, ports: &[&str], ears: &[&str]) {
            self.loops.set_links(self.at(milliseconds), names(ports), names(ears));
        }

        fn probes(&mut self, milliseconds: u64) -> Vec<(String, Vec<u8>)> {
            let now = self.at(milliseconds);
            self.loops.handle_timeout(now);
            std::iter::from_fn(|| self.loops.poll_transmit()).collect()
        }

        fn hear(&mut self, milliseconds: u64, ear: &str, payload: &[u8]) {
            let now = self.at(milliseconds);
            self.loops.handle_frame(now, ear, payload);
        }

        fn found(&self) -> Vec<(&str, &str)> {
            self.loops.found().map(|way| (way.port.as_str(), way.heard_on.as_str())).collect()
        }
    }

    #[test]
    fn probes_at_once_when_a_link_comes_up_and_then_at_intervals() {
        let mut lab = Lab::new();
        for (at, count) in
            [(0, 2), (499, 0), (500, 2), (1000, 2), (5999, 0), (6000, 2), (10_999, 0), (11_000, 2)]
        {
            assert_eq!(lab.probes(at).len(), count, "{at}");
        }
        // A link that goes is no reason to ask; one that comes is.
        lab.links(11_500, &["port2"], &["port1", "br-lan"]);
        assert_eq!(lab.probes(11_500).len(), 0);
        lab.links(12_000, &["port2", "port3"], &["port1", "br-lan"]);
        assert_eq!(lab.probes(12_000).len(), 2);
        lab.links(13_000, &[], &["port1"]);
        assert_eq!(lab.loops.poll_timeout(), None);
    }

    #[test]
    fn a_probe_heard_elsewhere_is_a_way_until_it_is_not_heard_any_more() {
        let mut lab = Lab::new();
        let (port, probe) = lab.probes(0).remove(0);
        assert_eq!(port, "port2");
        let padded = [&probe[..], &[0; 20]].concat();
        lab.hear(3, "port1", &padded);
        assert_eq!(lab.found(), [("port2", "port1")]);
        lab.hear(6_000, "port1", &probe);
        lab.probes(6_000 + 15_999);
        assert_eq!(lab.found(), [("port2", "port1")]);
        lab.probes(6_000 + 16_000);
        assert_eq!(lab.found(), []);
    }

    #[test]
    fn a_pulled_cable_ends_the_way_at_once() {
        let mut lab = Lab::new();
        let (_, probe) = lab.probes(0).remove(1);
        lab.hear(1, "br-lan", &probe);
        assert_eq!(lab.found(), [("port3", "br-lan")]);
        lab.links(2, &["port2"], &["port1", "br-lan"]);
        assert_eq!(lab.found(), []);
    }

    #[test]
    fn only_our_own_probes_count() {
        let mut lab = Lab::new();
        let mut stranger = Loops::new([8; 16]);
        stranger.set_links(lab.start, names(&["port2"]), names(&["port1"]));
        stranger.handle_timeout(lab.start);
        let (_, theirs) = stranger.poll_transmit().unwrap();
        let (_, ours) = lab.probes(0).remove(0);
        for payload in [&theirs[..], &ours[..ours.len() - 1], &[], MAGIC] {
            lab.hear(1, "port1", payload);
        }
        lab.hear(1, "port9", &ours);
        assert_eq!(lab.found(), []);
    }

    #[test]
    fn a_suspicion_is_followed_at_once() {
        let mut lab = Lab::new();
        for at in [0, 500, 1000] {
            lab.probes(at);
        }
        let now = lab.at(2500);
        lab.loops.suspect(now);
        assert_eq!(lab.loops.poll_timeout(), Some(now));
        assert_eq!(lab.probes(2500).len(), 2);
        // A flood of suspicions is one.
        for at in 2501..2600 {
            let now = lab.at(at);
            lab.loops.suspect(now);
            assert_eq!(lab.probes(at).len(), 0);
        }
        assert_eq!(lab.probes(3500).len(), 2);
        assert_eq!(lab.probes(3501).len(), 0);
        assert_eq!(lab.probes(6000).len(), 2);
    }

    #[track_caller]
    fn means(port: &str, heard_on: &str, problem: &str, exposed: &[&str]) {
        let site = site(&[
            ("wan", &["port1"], "dhcp"),
            ("lan", &["port2", "port3"], "192.168.77.1/24"),
            ("guests", &["port4"], "10.9.0.1/24"),
        ]);
        let way = Way { port: port.into(), heard_on: heard_on.into() };
        let findings = explain(&site, [&way, &way].into_iter());
        assert_eq!(findings.exposed, exposed);
        assert_eq!(findings.problems.len(), 1);
        assert!(findings.problems[0].starts_with(problem), "{:?}", findings.problems);
    }

    #[test]
    fn ways_in_words() {
        let same = "are plugged into the same switch";
        means(
            "port2",
            "port1",
            &format!("port2 (lan) and port1 (wan) {same}: lan gives out no new"),
            &["lan"],
        );
        means("port2", "br-lan", &format!("port2 and another port of lan {same}: pull one"), &[]);
        means(
            "port4",
            "br-lan",
            &format!("port4 (guests) and port2 or port3 (lan) {same}: clients get"),
            &[],
        );
        means("port4", "port4", "what port4 (guests) sends comes back to it", &[]);
    }
}
