//! Which upstream to ask next, and how long to wait for it.
//!
//! Round-trip times are smoothed as in RFC 6298. Of the general upstreams the fastest healthy one is asked; now and
//! then another one, so that its figure stays current. Servers of a forward zone are asked in the order in which they
//! are listed. One that keeps silent is set aside for a while, but asked again when all are silent: there is
//! nobody better.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Shortest wait for an answer: a cold resolver behind a DSL line needs this much for a far zone.
const MIN_TIMEOUT: Duration = Duration::from_millis(800);
/// Longest wait: three tries still fit the deadline of a query.
const MAX_TIMEOUT: Duration = Duration::from_secs(2);
/// Silent answers in a row before an upstream is set aside.
const FAILURES_TO_REST: u32 = 3;
/// How long it is set aside; then one query finds out.
const REST: Duration = Duration::from_secs(15);
/// How long an upstream that does not understand EDNS is asked without it (RFC 6891 §6.2.2).
const PLAIN_DNS: Duration = Duration::from_secs(900);
/// One query in this many goes to another upstream than the fastest.
const PROBE_EVERY: u64 = 50;

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    /// Smoothed round-trip time and its variation; `None` until measured.
    rtt: Option<(Duration, Duration)>,
    failures: u32,
    rests_until: Option<Instant>,
    plain_until: Option<Instant>,
}

impl Upstream {
    fn is_resting(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    /// Unmeasured ones come first: there is only one way to learn.
    fn rank(&self) -> Duration {
        let penalty = MIN_TIMEOUT * self.failures.min(10);
        self.rtt.map_or(Duration::ZERO, |(srtt, _)| srtt) + penalty
    }
}

/// Upstream resolvers that all know the same.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    list: Vec<Upstream>,
    /// The first healthy one is asked, however fast the others are.
    in_order: bool,
}

impl Upstreams {
    /// None yet; those to come are asked in the order of their list.
    pub(crate) fn in_order() -> Self {
        Self { list: Vec::new(), in_order: true }
    }

    /// Replaces the set; those that stay keep what was learnt. Returns whether anything changed.
    pub(crate) fn set(&mut self, addresses: &[SocketAddr]) -> bool {
        if self.list.iter().map(|upstream| upstream.address).eq(addresses.iter().copied()) {
            return false;
        }
        let mut old = std::mem::take(&mut self.list);
        for &address in addresses {
            let known = old.iter().position(|upstream| upstream.address == address);
            let fresh = Upstream { address, rtt: None, failures: 0, rests_until: None, plain_until: None };
            self.list.push(known.map_or(fresh, |at| old.swap_remove(at)));
        }
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().map(|upstream| upstream.address)
    }

    /// Whether all are on this machine.
    pub(crate) fn are_here(&self) -> bool {
        self.addresses().all(|address| address.ip().is_loopback())
    }

    /// The best upstream not in `tried`; when all were tried, the best of all.
    pub(crate) fn choose(&self, now: Instant, tried: &[SocketAddr], random: u64) -> Option<SocketAddr> {
        let untried = |upstream: &&Upstream| !tried.contains(&upstream.address);
        // Of equals the first one counts.
        let speed = |upstream: &Upstream| if self.in_order { Duration::ZERO } else { upstream.rank() };
        let rank = |upstream: &&Upstream| (upstream.is_resting(now), speed(upstream));
        let best = self
            .list
            .iter()
            .filter(untried)
            .min_by_key(rank)
            .or_else(|| self.list.iter().min_by_key(rank))?;
        if !self.in_order && tried.is_empty() && random.is_multiple_of(PROBE_EVERY) {
            let count = u64::try_from(self.list.len()).unwrap_or(1);
            let pick = usize::try_from((random / PROBE_EVERY) % count).unwrap_or(0);
            if let Some(other) = self.list.get(pick).filter(|other| !other.is_resting(now)) {
                return Some(other.address);
            }
        }
        Some(best.address)
    }

    /// Whether all are set aside.
    pub(crate) fn all_rest(&self, now: Instant) -> bool {
        self.list.iter().all(|upstream| upstream.is_resting(now))
    }

    /// How long to wait for `address` on the n-th try of a query (from 0).
    pub(crate) fn timeout(&self, address: SocketAddr, attempt: u32) -> Duration {
        let rtt = self.list.iter().find(|upstream| upstream.address == address).and_then(|found| found.rtt);
        let base = rtt.map_or(MIN_TIMEOUT, |(srtt, variation)| srtt + 4 * variation);
        (base.clamp(MIN_TIMEOUT, MAX_TIMEOUT) * (1 << attempt.min(4))).min(MAX_TIMEOUT)
    }

    /// Whether to use EDNS with it.
    pub(crate) fn speaks_edns(&self, now: Instant, address: SocketAddr) -> bool {
        let upstream = self.list.iter().find(|upstream| upstream.address == address);
        upstream.is_none_or(|upstream| upstream.plain_until.is_none_or(|until| until <= now))
    }

    pub(crate) fn answered(&mut self, address: SocketAddr, took: Duration) {
        let Some(upstream) = self.get_mut(address) else { return };
        upstream.failures = 0;
        upstream.rests_until = None;
        upstream.rtt = Some(match upstream.rtt {
            None => (took, took / 2),
            Some((srtt, variation)) => {
                let error = srtt.abs_diff(took);
                ((srtt * 7 + took) / 8, (variation * 3 + error) / 4)
            }
        });
    }

    pub(crate) fn failed(&mut self, now: Instant, address: SocketAddr) {
        let Some(upstream) = self.get_mut(address) else { return };
        upstream.failures = upstream.failures.saturating_add(1);
        if upstream.failures >= FAILURES_TO_REST {
            upstream.rests_until = Some(now + REST);
        }
    }

    pub(crate) fn lacks_edns(&mut self, now: Instant, address: SocketAddr) {
        if let Some(upstream) = self.get_mut(address) {
            upstream.plain_until = Some(now + PLAIN_DNS);
        }
    }

    fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Upstream> {
        self.list.iter_mut().find(|upstream| upstream.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Upstreams, [SocketAddr; 3]) {
        let addresses = [1, 2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 53)));
        let mut upstreams = Upstreams::default();
        assert!(upstreams.set(&addresses));
        (upstreams, addresses)
    }

    #[test]
    fn fastest_first_then_the_others() {
        let (mut upstreams, [a, b, c]) = three();
        let now = Instant::now();
        for (address, millis) in [(a, 30), (b, 10), (c, 20)] {
            upstreams.answered(address, Duration::from_millis(millis));
        }
        assert_eq!(upstreams.choose(now, &[], 1), Some(b));
        assert_eq!(upstreams.choose(now, &[b], 1), Some(c));
        assert_eq!(upstreams.choose(now, &[b, c], 1), Some(a));
        assert_eq!(upstreams.choose(now, &[a, b, c], 1), Some(b));
        assert_eq!(upstreams.choose(now, &[], PROBE_EVERY * 3), Some(a));
    }

    #[test]
    fn silent_upstreams_rest_until_nobody_else_is_left() {
        let (mut upstreams, [a, b, c]) = three();
        let now = Instant::now();
        for address in [b, c] {
            upstreams.answered(address, Duration::from_millis(500));
        }
        for _ in 0..FAILURES_TO_REST {
            upstreams.failed(now, a);
        }
        assert_ne!(upstreams.choose(now, &[], 1), Some(a));
        assert_eq!(upstreams.choose(now, &[b, c], 1), Some(a));
        upstreams.answered(a, Duration::from_millis(5));
        assert_eq!(upstreams.choose(now, &[], 1), Some(a));
    }

    #[test]
    fn a_list_is_followed_in_order_whoever_is_faster() {
        let addresses = [1, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 53)));
        let mut upstreams = Upstreams::in_order();
        assert!(upstreams.set(&addresses));
        let now = Instant::now();
        upstreams.answered(addresses[0], Duration::from_secs(1));
        upstreams.answered(addresses[1], Duration::from_millis(1));
        for random in [1, PROBE_EVERY] {
            assert_eq!(upstreams.choose(now, &[], random), Some(addresses[0]));
        }
        assert_eq!(upstreams.choose(now, &addresses[..1], 1), Some(addresses[1]));
        for _ in 0..FAILURES_TO_REST {
            upstreams.failed(now, addresses[0]);
        }
        assert_eq!(upstreams.choose(now, &[], 1), Some(addresses[1]));
        assert!(!upstreams.all_rest(now));
        assert_eq!(upstreams.choose(now + REST, &[], 1), Some(addresses[0]));
    }

    #[test]
    fn waits_stay_between_800_ms_and_2_s() {
        let (mut upstreams, [a, b, _]) = three();
        assert_eq!(upstreams.timeout(a, 0), MIN_TIMEOUT);
        assert_eq!(upstreams.timeout(a, 1), Duration::from_millis(1600));
        assert_eq!(upstreams.timeout(a, 9), MAX_TIMEOUT);
        upstreams.answered(b, Duration::from_secs(30));
        assert_eq!(upstreams.timeout(b, 0), MAX_TIMEOUT);
    }

    #[test]
    fn a_new_set_keeps_what_was_learnt() {
        let (mut upstreams, [a, b, c]) = three();
        upstreams.answered(b, Duration::from_secs(1));
        assert!(!upstreams.set(&[a, b, c]));
        assert!(upstreams.set(&[b]));
        assert_eq!(upstreams.timeout(b, 0), MAX_TIMEOUT);
    }
}
