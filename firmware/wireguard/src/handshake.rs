//! Which peers are up: a session is good for 180 s after its handshake (paper, section 6.1), and the initiator makes the next one
//! after 120 s of its life, as long as anything is sent.
//!
//! The kernel says when a handshake was by the wall clock, which jumps on boxes without a clock chip. So what counts is when the
//! value was seen to change, by the monotonic clock; of what was there before us, only the wall clock is left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::PublicKey;

/// `REJECT_AFTER_TIME`: no packet is taken by a session older than this.
pub const REJECT_AFTER: Duration = Duration::from_secs(180);
/// A peer that has had no handshake for so long does not answer where it is tried. Who began the session begins the next one after
/// `REKEY_AFTER_TIME` (120 s) when it sends something; the other one when it sends something after `REJECT_AFTER_TIME`. With the usual
/// keepalive of 25 s that is 205 s at most.
pub const STALE_AFTER: Duration = Duration::from_secs(210);

/// The handshakes of one device's peers.
#[derive(Debug, Default)]
pub struct Handshakes {
    seen: BTreeMap<PublicKey, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The kernel's value.
    value: Option<Duration>,
    /// When that was; none when there was no handshake, or before the box was up.
    at: Option<Instant>,
}

impl Handshakes {
    /// Takes what the kernel says of a peer, and returns how long ago its latest handshake was. `wall` is the time since 1970.
    pub fn see(
        &mut self,
        now: Instant,
        wall: Duration,
        peer: PublicKey,
        value: Option<Duration>,
    ) -> Option<Duration> {
        let seen = match self.seen.get(&peer) {
            Some(seen) if seen.value == value => *seen,
            Some(_) => Seen { value, at: value.map(|_| now) },
            None => {
                // A value from the future is of a clock that has been set back since: of unknown age.
                let age = value.and_then(|value| wall.checked_sub(value));
                Seen { value, at: age.and_then(|age| now.checked_sub(age)) }
            }
        };
        self.seen.insert(peer, seen);
        seen.at.map(|at| now.saturating_duration_since(at))
    }

    /// Forgets peers that are gone.
    pub fn retain(&mut self, is_there: impl Fn(PublicKey) -> bool) {
        self.seen.retain(|peer, _| is_there(*peer));
    }
}

/// Whether a peer with a handshake of this age is up.
#[must_use]
pub fn is_up(age: Option<Duration>) -> bool {
    age.is_some_and(|age| age < REJECT_AFTER)
}

/// Whether such a peer should be looked for again.
#[must_use]
pub fn is_stale(age: Option<Duration>) -> bool {
    age.is_none_or(|age| age >= STALE_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PublicKey = PublicKey([1; 32]);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A machine that has been up for a day.
    fn start() -> Instant {
        Instant::now() + s(86_400)
    }

    #[test]
    fn a_handshake_is_as_old_as_it_was_seen_to_come() {
        let (start, mut handshakes) = (start(), Handshakes::default());
        assert_eq!(handshakes.see(start, s(1000), PEER, None), None);
        assert_eq!(handshakes.see(start + s(5), s(1005), PEER, Some(s(1003))), Some(s(0)));
        // The clock is set: ten years ahead, then to 1970.
        assert_eq!(handshakes.see(start + s(10), s(300_000_000), PEER, Some(s(1003))), Some(s(5)));
        assert_eq!(handshakes.see(start + s(60), s(3), PEER, Some(s(1003))), Some(s(55)));
        // The next handshake has an earlier time than the last.
        assert_eq!(handshakes.see(start + s(130), s(70), PEER, Some(s(68))), Some(s(0)));
        assert_eq!(handshakes.see(start + s(300), s(240), PEER, Some(s(68))), Some(s(170)));
        // The device was made anew.
        assert_eq!(handshakes.see(start + s(305), s(245), PEER, None), None);
    }

    #[test]
    fn what_was_before_us_is_judged_by_the_wall_clock() {
        let check = |wall: u64, value: Option<u64>, expected: Option<u64>| {
            let age = Handshakes::default().see(start(), s(wall), PEER, value.map(s));
            assert_eq!(age, expected.map(s), "{wall} {value:?}");
        };
        check(1100, Some(1000), Some(100));
        check(1000, Some(1000), Some(0));
        check(900, Some(1000), None);
        check(900, None, None);
    }

    #[test]
    fn limits() {
        assert!(is_up(Some(s(179))) && !is_up(Some(s(180))) && !is_up(None));
        assert!(!is_stale(Some(s(209))) && is_stale(Some(s(210))) && is_stale(None));
    }

    #[test]
    fn a_peer_that_comes_back_is_a_new_one() {
        let (start, mut handshakes) = (start(), Handshakes::default());
        handshakes.see(start, s(1000), PEER, Some(s(990)));
        handshakes.retain(|_| false);
        assert_eq!(handshakes.see(start + s(5), s(1005), PEER, Some(s(990))), Some(s(15)));
    }
}
