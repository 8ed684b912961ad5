//! The last known time, for boxes whose clock chip is missing or dead.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use kontor_status::{StorageStatus, paths};
use kontor_sys::file::write_durable;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// Seconds since 1970, as decimal text.
const STATE_CLOCK: &str = "/data/kontor/init/clock";
/// A damaged file must not throw the box into the far future, where every certificate has expired.
const FARTHEST: u64 = 4_102_444_800; // 2100-01-01

/// Steps the clock forward to the saved time; never backward.
pub(super) fn restore() {
    let Some(saved) = fs::read_to_string(STATE_CLOCK).ok().and_then(|text| parse(&text)) else { return };
    if saved > now()
        && let Err(error) = clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(saved))
    {
        eprintln!("warning: cannot set the clock: {error}");
    }
}

fn parse(text: &str) -> Option<Duration> {
    text.trim().parse().ok().filter(|seconds| *seconds < FARTHEST).map(Duration::from_secs)
}

/// Saves the present time, when there is a disk.
pub(super) fn save() -> anyhow::Result<()> {
    let status = fs::read(paths::STORAGE_STATUS).unwrap_or_default();
    let status: StorageStatus = serde_json::from_slice(&status).unwrap_or_default();
    if !status.data_mounted {
        return Ok(());
    }
    write_durable(Path::new(STATE_CLOCK), now().as_secs().to_string().as_bytes()).context(STATE_CLOCK)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plausible_times_are_believed() {
        assert_eq!(parse("1795284245\n"), Some(Duration::from_secs(1_795_284_245)));
        for text in ["", "-1", "9999999999999", "x", "\0\0\0"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
