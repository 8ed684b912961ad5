//! Taking out of the cache what nobody has used for long. Never what the present lock names, and never silently.

use std::collections::HashSet;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{Flock, FlockArg};

use super::cache::UNPACKED;
use super::keep::files_below;
use super::lock_file::LockFile;

/// A file of the cache that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// Where it is.
    pub path: Utf8PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Days since it was last used.
    pub days: u64,
}

/// What the cache at `root` holds that the lock does not name and that was not used for `age`. Using a file renews its
/// time stamp, so other clones of the repository keep theirs.
///
/// # Errors
/// When the cache cannot be read.
pub fn stale(root: &Utf8Path, lock: &LockFile, age: Duration, now: SystemTime) -> Result<Vec<Stale>> {
    let packages = lock.sets().flat_map(|(_, set)| set).map(|package| package.sha256.clone());
    let releases = lock.releases.iter().map(|(suite, date)| format!("{suite}-{date}"));
    let locked: HashSet<String> = packages.chain(releases).collect();
    let mut found = Vec::new();
    for folder in ["deb", UNPACKED, "index", "release", "partial"] {
        for path in files_below(&root.join(folder))? {
            let hash = path.file_stem().unwrap_or_default();
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let unused = now.duration_since(metadata.modified()?).unwrap_or_default();
            if !locked.contains(hash) && unused >= age {
                found.push(Stale { path, bytes: metadata.len(), days: unused.as_secs() / 86_400 });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Removes them, less those that another process is filling.
///
/// # Errors
/// When one cannot be removed.
pub fn remove(stale: &[Stale]) -> Result<()> {
    for Stale { path, .. } in stale {
        let Ok(file) = File::open(path) else { continue };
        let Ok(_free) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        fs::remove_file(path).with_context(|| format!("removing {path}"))?;
    }
    Ok(())
}
