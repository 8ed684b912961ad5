//! Previous versions: snapshots of the shares that have them, every hour, thinned out as they age.
//!
//! Taken from outside the component, whose services cannot remove what is here.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use kontor_sys::btrfs;
use nix::dir::Dir;
use nix::sys::stat::{Mode, mkdirat};

use super::shares::{self, directory};
use crate::calendar;

/// Between two snapshots.
const EVERY: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// How long, and how many of them: the first of each hour, day and month. `@GMT-2026.11.26-08.15.00` is what a name looks like
/// ([`kontor_samba::SNAPSHOT_NAME`]), and its beginning says which hour, day or month that is.
const KEPT: [(Duration, usize); 3] =
    [(DAY, 18), (Duration::from_secs(35 * 86_400), 15), (Duration::from_secs(366 * 86_400), 12)];
const NAME_LENGTH: usize = 24;

/// Until the next full hour of the wall clock.
pub(super) fn until_next(now: SystemTime) -> Duration {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    EVERY - Duration::from_secs(since.as_secs() % EVERY.as_secs())
}

/// Takes a snapshot of every share of this box's component that has previous versions, and removes old ones.
///
/// # Errors
/// When one of them failed; the others were taken.
pub(super) fn run(component: &str) -> Result<()> {
    let (office, shares) = shares::open(component)?;
    ensure!(!office.snapshots.is_empty(), "no share has `previous-versions = true`");
    let failed: Vec<String> = office
        .snapshots
        .iter()
        .filter_map(|share| {
            one(&shares, share, SystemTime::now()).err().map(|error| format!("{share}: {error:#}"))
        })
        .collect();
    match failed.as_slice() {
        [] => Ok(()),
        _ => bail!("no previous versions: {}", failed.join("; ")),
    }
}

/// Beside the shares, see kontor-samba.
const SNAPSHOTS: &str = ".snapshots";

fn one(shares: &File, share: &str, now: SystemTime) -> Result<()> {
    let source = directory(shares, share).with_context(|| format!("there is no directory {share}"))?;
    let snapshots = made(&made(shares, SNAPSHOTS)?, share)?;
    let name = name(now);
    let there = names(&snapshots)?;
    if !there.contains(&name) {
        btrfs::snapshot(&source, &snapshots, OsStr::new(&name)).context("cannot take a snapshot")?;
    }
    for old in expired(&there, now) {
        btrfs::remove_subvolume(&snapshots, OsStr::new(old))
            .with_context(|| format!("cannot remove {old}"))?;
    }
    Ok(())
}

fn made(parent: &File, name: &str) -> io::Result<File> {
    match mkdirat(parent.as_fd(), Path::new(name), Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(nix::Error::EEXIST) => directory(parent, name),
        Err(error) => Err(error.into()),
    }
}

/// Names of snapshots, oldest first; what is called otherwise is somebody else's.
fn names(directory: &File) -> io::Result<BTreeSet<String>> {
    let mut entries = Dir::from_fd(directory.try_clone()?.into())?;
    let mut names = BTreeSet::new();
    for entry in entries.iter() {
        let entry = entry?;
        names.extend(entry.file_name().to_str().ok().filter(|name| is_ours(name)).map(str::to_owned));
    }
    Ok(names)
}

fn is_ours(name: &str) -> bool {
    let pattern = name.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    name.len() == NAME_LENGTH && pattern.eq(*b"@GMT-0000.00.00-00.00.00")
}

/// As Samba expects it; names sort by time.
fn name(time: SystemTime) -> String {
    let utc = calendar::utc(time);
    let (date, time) = utc.trim_end_matches('Z').split_once('T').unwrap_or_default();
    format!("@GMT-{}-{}", date.replace('-', "."), time.replace(':', "."))
}

/// Those that need not be kept any longer.
fn expired(names: &BTreeSet<String>, now: SystemTime) -> Vec<&str> {
    let limits = KEPT.map(|(age, length)| (name(now.checked_sub(age).unwrap_or(UNIX_EPOCH)), length));
    let mut kept = BTreeSet::new();
    let mut is_kept = |name: &str| {
        let span = limits.iter().find(|(oldest, _)| name >= oldest.as_str());
        span.is_some_and(|(_, length)| kept.insert(name[..*length].to_owned()))
    };
    names.iter().map(String::as_str).filter(|name| !is_kept(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn names_are_those_of_the_protocol() {
        assert_eq!(name(at(1_795_284_245)), "@GMT-2026.11.21-18.04.05");
        assert!(is_ours(&name(at(0))));
        for other in ["@GMT-2026.11.21-18.04.5", "@GMT-2026-11.21-18.04.05", "notes", "."] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn the_next_one_comes_at_the_full_hour() {
        assert_eq!(until_next(at(7200)), EVERY);
        assert_eq!(until_next(at(7199)), Duration::from_secs(1));
    }

    /// What is left after two years with a snapshot every hour, and one more now and then.
    #[test]
    fn they_thin_out_as_they_age() {
        let mut names = BTreeSet::new();
        let hours = 2 * 366 * 24;
        for hour in 0..hours {
            let now = at(1_795_284_245 + hour * 3600);
            names.insert(name(now));
            names.insert(name(now + Duration::from_secs(60)));
            let old: Vec<String> = expired(&names, now).into_iter().map(str::to_owned).collect();
            names.retain(|name| !old.contains(name));
        }
        assert!((24 + 34 + 11..=26 + 36 + 14).contains(&names.len()), "{}: {names:#?}", names.len());
        let newest = name(at(1_795_284_245 + (hours - 1) * 3600));
        assert!(names.contains(&newest), "{names:#?}");
    }

    #[test]
    fn a_link_is_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let shares = File::open(scratch.path()).unwrap();
        std::os::unix::fs::symlink("/etc", scratch.path().join("branch")).unwrap();
        assert!(directory(&shares, "branch").is_err());
        assert!(made(&shares, "branch").is_err());
        assert!(made(&shares, "other").is_ok() && made(&shares, "other").is_ok());
    }
}
