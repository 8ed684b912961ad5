//! How long a failed service waits for its next start: not at all at first, then capped, doubled, jittered.

use std::time::Duration;

/// The second restart. The first comes at once: an office is back within a second, and one that ends again
/// at once costs one start more.
pub(crate) const FIRST: Duration = Duration::from_millis(100);
/// The longest pause of whom the office waits for: one that never comes up costs at most one start in this time.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A service that ran this long starts again from [`FIRST`].
pub(crate) const STABLE: Duration = Duration::from_secs(60);

/// Consecutive failures and the source of the jitter.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    failures: u32,
    random: u64,
    longest: Duration,
}

impl Backoff {
    pub(crate) const fn new(seed: u64, longest: Duration) -> Self {
        Self { failures: 0, random: seed, longest }
    }

    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure; nothing after the first, later 75 % to 125 % of the doubled time, so that services
    /// that fell together do not come back in step.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let before = self.failures;
        self.failures = before.saturating_add(1);
        match before.checked_sub(1) {
            None => Duration::ZERO,
            Some(exponent) => {
                let doubled = FIRST.saturating_mul(1 << exponent.min(16)).min(self.longest);
                doubled * (75 + self.below(51)) / 100
            }
        }
    }

    /// SplitMix64: jitter needs no better randomness, and the crate no dependency.
    fn below(&mut self, bound: u32) -> u32 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let top = u32::try_from(mixed >> 33).unwrap_or(0);
        top % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_cap_within_the_jitter() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed, LONGEST_PAUSE);
            assert_eq!(backoff.next_delay(), Duration::ZERO, "the first restart comes at once");
            for failure in 0..40 {
                let middle = FIRST.saturating_mul(1 << failure.min(16)).min(LONGEST_PAUSE);
                let delay = backoff.next_delay();
                assert!(delay >= middle * 3 / 4 && delay <= middle * 5 / 4, "{failure}: {delay:?}");
            }
        }
    }

    #[test]
    fn a_daemon_killed_again_and_again_is_soon_back_four_times() {
        let mut backoff = Backoff::new(7, LONGEST_PAUSE);
        assert!((0..4).all(|_| backoff.next_delay() < Duration::from_millis(600)));
    }
}
