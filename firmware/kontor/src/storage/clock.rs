//! The last known time, for boxes whose clock chip is missing, dead or wrong.
//!
//! What is kept is a time that has certainly passed: the clock's own when a time server has set it, else what
//! was kept before and the time that went by since. A clock chip that once said 2099 is never written down, so
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
const STATE_CLOCK: &str = "/data/kontor/init/clock";
/// Seconds since boot when that was read or written last.
const RUN_CLOCK: &str = "/run/kontor/storage/clock";

/// Steps the clock forward to the saved time; never backward.
pub(super) fn restore() {
    note_moment();
    let Some(saved) = saved() else {
        if Path::new(STATE_CLOCK).exists() {
            eprintln!("warning: {STATE_CLOCK} is damaged or impossible: the last known time is lost");
        }
        return;
    };
    if saved > now()
        && let Err(error) = clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(saved))
    {
        eprintln!("warning: cannot set the clock: {error}");
    }
}

/// Saves the present time as far as it is known, when there is a disk.
pub(super) fn save() -> anyhow::Result<()> {
    let status = fs::read(paths::STORAGE_STATUS).unwrap_or_default();
    let status: StorageStatus = serde_json::from_slice(&status).unwrap_or_default();
    if !status.data_mounted {
        return Ok(());
    }
    let moment = fs::read_to_string(RUN_CLOCK).ok().and_then(|text| seconds(&text));
    let passed = moment.map_or(Duration::ZERO, |moment| uptime().saturating_sub(moment));
    let known = certainly(now(), is_synchronised(), saved().unwrap_or_else(built_at), passed);
    write_durable(Path::new(STATE_CLOCK), known.as_secs().to_string().as_bytes()).context(STATE_CLOCK)?;
    note_moment();
    Ok(())
}

/// A time that has certainly passed `now`.
fn certainly(now: Duration, synchronised: bool, saved: Duration, passed: Duration) -> Duration {
    if synchronised { now } else { now.min(saved + passed) }
}

fn saved() -> Option<Duration> {
    let saved = seconds(&fs::read_to_string(STATE_CLOCK).ok()?)?;
    is_believable(saved, built_at()).then_some(saved)
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

fn note_moment() {
    // Without it the next save counts no time as passed: late, never wrong.
    let _ = write_atomic(Path::new(RUN_CLOCK), uptime().as_secs().to_string().as_bytes());
}

fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
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
        let check = |now: u32, synchronised, saved: u32, passed: u32, expect: u32| {
            assert_eq!(certainly(now * S, synchronised, saved * S, passed * S), expect * S);
        };
        // A time server has set the clock, also backwards.
        check(5000, true, 1000, 600, 5000);
        check(900, true, 1000, 600, 900);
        // A clock chip from the future is believed for now and not written down.
        check(1_000_000, false, 1000, 600, 1600);
        // No clock chip: the box started from the saved time.
        check(1599, false, 1000, 600, 1599);
    }
}
