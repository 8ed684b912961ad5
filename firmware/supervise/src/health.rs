//! Whether the box as a whole is well, over time.
//!
//! Two decisions hang on it: a slot is good after [`GOOD_AFTER`] of health, and the hardware watchdog is
//! starved after [`STARVE_AFTER`] of illness, but only on a boot that was healthy before: a box that never
//! became healthy (a broken site file, a dead card) stays up for repair instead of rebooting for ever.

use std::time::Duration;

/// All essential services must have run this long before the slot counts as good.
pub const GOOD_AFTER: Duration = Duration::from_secs(5);
/// Essential services may be down this long before the hardware watchdog is left to bite. Far above the
/// backoff's cap, so that restarts get several chances first.
pub const STARVE_AFTER: Duration = Duration::from_secs(120);

/// Health over time.
#[derive(Debug, Clone, Default)]
pub struct Health {
    well_since: Option<Duration>,
    ill_since: Option<Duration>,
    proven: bool,
}

impl Health {
    /// Takes the state at `now`; true exactly once, when the box has proved itself.
    pub fn update(&mut self, now: Duration, well: bool) -> bool {
        if !well {
            self.well_since = None;
            self.ill_since.get_or_insert(now);
            return false;
        }
        self.ill_since = None;
        let since = *self.well_since.get_or_insert(now);
        let first = !self.proven && now >= since + GOOD_AFTER;
        self.proven |= first;
        first
    }

    /// When [`Self::update`] will have something to say although nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.well_since.filter(|_| !self.proven).map(|since| since + GOOD_AFTER)
    }

    /// Whether the box was healthy in this boot.
    #[must_use]
    pub const fn proven(&self) -> bool {
        self.proven
    }

    /// Whether the hardware watchdog is to be fed at `now`.
    #[must_use]
    pub fn feeds_watchdog(&self, now: Duration) -> bool {
        !self.proven || self.ill_since.is_none_or(|since| now < since + STARVE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn proved_once_after_five_seconds_in_a_row() {
        let mut health = Health::default();
        assert!(!health.update(S, true));
        assert!(!health.update(4 * S, false));
        assert!(!health.update(5 * S, true));
        assert_eq!(health.poll_timeout(), Some(10 * S));
        assert!(!health.update(10 * S - Duration::from_nanos(1), true));
        assert!(health.update(10 * S, true));
        assert!(!health.update(11 * S, true));
        assert_eq!(health.poll_timeout(), None);
    }

    #[test]
    fn the_watchdog_starves_only_a_box_that_was_well() {
        let mut health = Health::default();
        health.update(S, false);
        assert!(health.feeds_watchdog(100_000 * S));
        health.update(2 * S, true);
        health.update(7 * S, true);
        health.update(8 * S, false);
        assert!(health.feeds_watchdog(8 * S + STARVE_AFTER - Duration::from_nanos(1)));
        assert!(!health.feeds_watchdog(8 * S + STARVE_AFTER));
        health.update(300 * S, true);
        assert!(health.feeds_watchdog(300 * S));
    }
}
