//! Releases on their way to boxes: signing keys, the manifest of a release, and the static repository they are published in.
//!
//! Everything is signed here by the types of `tough` and read back as a box reads it (`kontor-trust`). A repository is a
//! directory that any web server can serve; nothing in it is changed in place but `timestamp.json`.

use anyhow::{Context, Result};
use camino::Utf8Path;
use serde::Serialize;

pub mod archive;
pub mod forms;
pub mod keys;
pub mod objects;
pub mod release;
pub mod repository;
pub mod rollout;
pub mod root;
pub mod serve;
pub mod waves;

/// The version of TUF that tough knows.
pub(crate) const SPEC_VERSION: &str = "1.0.0";
pub(crate) const DAY_S: u64 = 86_400;

/// The time in seconds since 1970.
///
/// # Errors
/// When the clock is before that.
pub fn now() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(now.context("the clock is before 1970")?.as_secs())
}

/// What git says of a source tree.
pub(crate) fn git(tree: &Utf8Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut command = std::process::Command::new("git");
    command.current_dir(tree).args(arguments);
    crate::image::process::run(command)
}

/// As tough wants it.
pub(crate) fn timestamp(seconds: u64) -> Result<jiff::Timestamp> {
    jiff::Timestamp::from_second(i64::try_from(seconds)?).context("a time out of range")
}

/// As metadata is published.
pub(crate) fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Replaces a file: whoever reads it sees the old one or the new one, also after a power cut.
pub(crate) fn atomic(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let folder = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
    let (mut file, _claim) = crate::scratch::file(folder, ".unfinished-", 0o644)?;
    let written = file.write_all(bytes).and_then(|()| file.as_file().sync_all());
    written.with_context(|| format!("cannot write {path}"))?;
    file.persist(path).with_context(|| format!("cannot write {path}"))?;
    crate::scratch::settle_name(path)
}
