//! The two clocks of the server machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kontor_dhcp4::Instant;
use kontor_dhcp4::server::Now;
use nix::time::{ClockId, clock_gettime};

/// Added to the time since boot, so that "free since two years" still is a point on our time line.
const ORIGIN: Duration = Duration::from_secs(10 * 365 * 86_400);
/// A wall clock that moves by more than this against the monotonic one has been set, not adjusted.
const JUMP_S: u64 = 30;

/// The clocks now. The monotonic one counts suspended time too.
pub(super) fn now() -> Now {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    let wall_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { at: Instant(ORIGIN + boot), wall_s }
}

/// Notices when somebody sets the wall clock.
#[derive(Debug)]
pub(super) struct JumpDetector {
    last: Now,
}

impl JumpDetector {
    pub(super) fn new(now: Now) -> Self {
        Self { last: now }
    }

    /// Whether the wall clock jumped since the last call.
    pub(super) fn jumped(&mut self, now: Now) -> bool {
        let expected = self.last.wall_s + now.at.since(self.last.at).as_secs();
        self.last = now;
        expected.abs_diff(now.wall_s) > JUMP_S
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jumps_count() {
        let at = |boot, wall_s| Now { at: Instant::from_secs(boot), wall_s };
        let mut detector = JumpDetector::new(at(0, 1000));
        assert!(!detector.jumped(at(100, 1100)));
        assert!(!detector.jumped(at(200, 1230)));
        assert!(detector.jumped(at(201, 1_700_000_000)));
        assert!(!detector.jumped(at(202, 1_700_000_001)));
        assert!(detector.jumped(at(203, 5)));
    }
}
