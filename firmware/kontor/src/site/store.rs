//! The site files that survive: under /state/site, readable by root alone.
//!
//! `site.toml` is the operator's newest file, `good.toml` the newest one that was put in force, and
//! `history/NNNN.toml` every file ever loaded, with `NNNN.info.toml` saying who, when and why. Every
//! write is durable, in that order: a power cut leaves the old site or the new one, never half of it.

use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kontor_config::MAX_SITE_SIZE;
use kontor_status::StorageStatus;
use kontor_status::paths::Paths;
use kontor_sys::file::write_durable;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

/// Old entries beyond these are dropped: at 256 KiB each they stay far below a state partition's size.
const MAX_HISTORY: usize = 200;

/// Who has loaded what came by another way than a load.
const SEED: &str = "seed";

/// Why a site file came to the box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Info {
    /// Who loaded it.
    pub(super) who: String,
    /// UTC by the box's clock, RFC 3339.
    pub(super) when: String,
    /// The operator's words.
    #[serde(default)]
    pub(super) why: String,
}

/// Whether `state` is mounted, as far as storage has said.
pub(super) fn is_durable(paths: &Paths) -> bool {
    let status = fs::read(paths.storage_status()).unwrap_or_default();
    serde_json::from_slice::<StorageStatus>(&status).is_ok_and(|status| status.state_mounted)
}

/// A file nobody has checked, cut off just beyond the biggest size a site file may have (the parser
/// then refuses it). Nothing when there is no such file, or only an empty one: what a power cut may leave.
pub(super) fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // A pipe without a writer must not hold the caller up; its place is an error, not a wait.
    let opened = fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = match opened {
        Ok(file) if !file.metadata()?.is_file() => return Err(io::Error::other("not a regular file")),
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    read_limited(file).map(|bytes| Some(bytes).filter(|bytes| !bytes.is_empty()))
}

/// As [`read_bounded`], from any source.
pub(super) fn read_limited(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_SITE_SIZE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Stores a validated file as the operator's newest; returns its number in the history.
pub(super) fn store(paths: &Paths, text: &str, info: &Info) -> io::Result<u32> {
    let number = record(paths, text, info)?;
    write_durable(&paths.state_site(), text.as_bytes())?;
    // The file is stored: that an old one is not gone must not look as if it were not.
    if let Err(error) = prune(paths) {
        eprintln!("old entries of the history cannot be removed: {error}");
    }
    Ok(number)
}

/// The operator's file came by another way than a load (with the seed, on a restored disk): it is history too.
pub(super) fn note_unrecorded(paths: &Paths, text: &str) -> io::Result<()> {
    let newest = numbers(paths)?.last().map(|number| entry(paths, *number));
    if newest.is_some_and(|path| fs::read(path).is_ok_and(|recorded| recorded == text.as_bytes())) {
        return Ok(());
    }
    let info = Info {
        who: SEED.to_owned(),
        when: crate::calendar::utc(std::time::SystemTime::now()),
        why: "found on the disk at boot".to_owned(),
    };
    record(paths, text, &info).map(drop)
}

/// The first file that came with a seed, as far as the history goes back.
pub(super) fn first_seeded(paths: &Paths) -> Option<Vec<u8>> {
    let seeded = |number: &u32| info(paths, *number).is_some_and(|info| info.who == SEED);
    let number = numbers(paths).ok()?.into_iter().find(seeded)?;
    read_bounded(&entry(paths, number)).ok()?
}

/// A new entry of the history; its number.
fn record(paths: &Paths, text: &str, info: &Info) -> io::Result<u32> {
    let history = history_directory(paths);
    // What is above belongs to all daemons; the site itself (password hash, names) to root alone.
    fs::create_dir_all(&paths.state)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&history)?;
    let number = numbers(paths)?.last().map_or(1, |last| last + 1);
    let header = toml::to_string(info).map_err(io::Error::other)?;
    write_durable(&history.join(format!("{number:04}.info.toml")), header.as_bytes())?;
    write_durable(&entry(paths, number), text.as_bytes())?;
    Ok(number)
}

/// Stores what is in force as the last good site, unless it is that already.
pub(super) fn promote(paths: &Paths, text: &str) -> io::Result<()> {
    let path = paths.state_site_good();
    if fs::read(&path).is_ok_and(|good| good == text.as_bytes()) {
        return Ok(());
    }
    write_durable(&path, text.as_bytes())
}

/// A file of the history.
pub(super) fn entry(paths: &Paths, number: u32) -> PathBuf {
    history_directory(paths).join(format!("{number:04}.toml"))
}

/// Numbers in the history, oldest first.
pub(super) fn numbers(paths: &Paths) -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(history_directory(paths)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".toml")?.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The header of one entry; damaged ones are told apart by being `None`.
pub(super) fn info(paths: &Paths, number: u32) -> Option<Info> {
    let text = fs::read_to_string(history_directory(paths).join(format!("{number:04}.info.toml"))).ok()?;
    toml::from_str(&text).ok()
}

fn prune(paths: &Paths) -> io::Result<()> {
    let numbers = numbers(paths)?;
    for number in &numbers[..numbers.len().saturating_sub(MAX_HISTORY)] {
        for suffix in ["info.toml", "toml"] {
            kontor_sys::file::remove(&history_directory(paths).join(format!("{number:04}.{suffix}")))?;
        }
    }
    Ok(())
}

fn history_directory(paths: &Paths) -> PathBuf {
    paths.state_site().with_file_name("history")
}
