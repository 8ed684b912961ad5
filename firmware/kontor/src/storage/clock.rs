//! The last known time, for boxes whose clock chip is missing, dead or wrong.
//!
//! What is kept is a time that has certainly passed: the clock's own when a time server (or root) has set it, else
//! what was kept before and the time that went by since. A clock chip that once said 2099 is never written down, so
//! it is forgotten as soon as the chip is right again.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use kontor_status::{StorageStatus, paths};
use kontor_sys::clock::is_synchronised;
use kontor_sys::file::{write_atomic, write_durable};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use crate::init::{built_at, is_believable};

/// Seconds since 1970, as decimal text.
const STATE_CLOCK: &str = "/state/init/clock";
/// A [`Moment`]: when that was read or written last.
const RUN_CLOCK: &str = "/run/kontor/storage/clock";
/// More than a clock drifts between two saves: it was set. After setting it by years, chronyd tells the kernel only at
/// its next measurement, a minute later, that it is synchronised.
const STEP: Duration = Duration::from_secs(60);

/// Steps the clock forward to the saved time; never backward.
pub(super) fn restore() {
    match saved() {
        Some(saved) if saved > now() => {
            if let Err(error) = clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(saved)) {
                eprintln!("warning: cannot set the clock: {error}");
            }
        }
        None if Path::new(STATE_CLOCK).exists() => {
            eprintln!("warning: {STATE_CLOCK} is damaged or impossible: the last known time is lost");
        }
        _ => {}
    }
    Moment::now().note();
}

/// Saves the present time as far as it is known, when there is a disk.
pub(super) fn save() -> anyhow::Result<()> {
    let status = fs::read(paths::STORAGE_STATUS).unwrap_or_default();
    let status: StorageStatus = serde_json::from_slice(&status).unwrap_or_default();
    if !status.state_mounted {
        return Ok(());
    }
    let present = Moment::now();
    let last = Moment::noted().unwrap_or(present);
    let known = present.certainly(last, is_synchronised(), saved().unwrap_or_else(built_at));
    write_durable(Path::new(STATE_CLOCK), known.as_secs().to_string().as_bytes()).context(STATE_CLOCK)?;
    present.note();
    Ok(())
}

/// The two clocks at one moment: time since boot, which nobody can set, and the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    since_boot: Duration,
    wall: Duration,
}

impl Moment {
    fn now() -> Self {
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        Self { since_boot, wall: now() }
    }

    /// A time that has certainly passed at this moment; `saved` was known to have passed at the `last` one.
    fn certainly(self, last: Self, synchronised: bool, saved: Duration) -> Duration {
        let passed = self.since_boot.saturating_sub(last.since_boot);
        // The clock chip is read only before the first moment: later nobody sets the clock who does not know.
        let was_set = self.wall.abs_diff(last.wall.saturating_add(passed)) > STEP;
        if synchronised || was_set { self.wall } else { self.wall.min(saved + passed) }
    }

    fn noted() -> Option<Self> {
        let text = fs::read_to_string(RUN_CLOCK).ok()?;
        let (since_boot, wall) = text.trim().split_once(' ')?;
        Some(Self { since_boot: seconds(since_boot)?, wall: seconds(wall)? })
    }

    fn note(self) {
        let text = format!("{} {}", self.since_boot.as_secs(), self.wall.as_secs());
        // Without it the next save counts no time as passed: late, never wrong.
        let _ = write_atomic(Path::new(RUN_CLOCK), text.as_bytes());
    }
}

fn saved() -> Option<Duration> {
    let saved = seconds(&fs::read_to_string(STATE_CLOCK).ok()?)?;
    is_believable(saved, built_at()).then_some(saved)
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn only_numbers_are_times() {
        assert_eq!(seconds("1795284245\n"), Some(1_795_284_245 * S));
        for text in ["", "-1", "99999999999999999999999", "x", "\0\0\0"] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_kept_has_certainly_passed() {
        let moment = |since_boot: u32, wall: u32| Moment { since_boot: since_boot * S, wall: wall * S };
        let check = |last: Moment, present: Moment, synchronised, saved: u32, expect: u32| {
            assert_eq!(present.certainly(last, synchronised, saved * S), expect * S, "{last:?} {present:?}");
        };
        // A time server has set the clock, forwards or backwards, and the kernel may not know it yet.
        check(moment(10, 1000), moment(610, 5000), true, 1000, 5000);
        check(moment(10, 1000), moment(610, 5000), false, 1000, 5000);
        check(moment(10, 9000), moment(610, 900), false, 1000, 900);
        // A clock chip from the future is believed for now and not written down.
        check(moment(10, 1_000_000), moment(610, 1_000_600), false, 1000, 1600);
        check(moment(10, 1_000_000), moment(610, 1_000_600), true, 1000, 1_000_600);
        // No clock chip: the box started from the saved time.
        check(moment(10, 1000), moment(610, 1599), false, 1000, 1599);
    }
}
