//! Unfinished results: under temporary names, each locked by the process that makes it.
//!
//! A killed process tidies nothing up, but the kernel drops its locks. So the next run knows what nobody makes any
//! more, at once and whatever the clocks say, and never touches what another run is making.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{Flock, FlockArg};
use tempfile::{Builder, NamedTempFile, TempDir};

/// Says that a living process makes this; given up when dropped. Some network file systems know no such locks:
/// there nothing is ever swept.
#[derive(Debug)]
pub struct Claim {
    _lock: Option<Flock<File>>,
}

/// A new directory in `parent`, removed when dropped.
///
/// # Errors
/// When it cannot be made.
pub fn directory(parent: &Utf8Path, prefix: &str) -> Result<(TempDir, Claim)> {
    loop {
        let made = Builder::new().prefix(prefix).tempdir_in(parent);
        let made = made.with_context(|| format!("cannot create a directory in {parent}"))?;
        if let Some(claim) = claim(made.path()) {
            return Ok((made, claim));
        }
    }
}

/// A new file in `parent`, removed when dropped; `mode` is cut by the umask.
///
/// # Errors
/// When it cannot be made.
pub fn file(parent: &Utf8Path, prefix: &str, mode: u32) -> Result<(NamedTempFile, Claim)> {
    loop {
        let made =
            Builder::new().prefix(prefix).permissions(Permissions::from_mode(mode)).tempfile_in(parent);
        let made = made.with_context(|| format!("cannot create a file in {parent}"))?;
        if let Some(claim) = claim(made.path()) {
            return Ok((made, claim));
        }
    }
}

/// Puts everything in a finished directory on the disk, before it gets its final name: after a power cut a name must not
/// lead to empty files.
///
/// # Errors
/// When the disk fails.
pub fn settle(directory: &Utf8Path) -> Result<()> {
    let settled = || -> Result<()> {
        match few_files(directory)? {
            Some(paths) => paths.iter().try_for_each(|path| File::open(path)?.sync_all())?,
            // One call for the whole file system is then cheaper.
            None => nix::unistd::syncfs(File::open(directory)?)?,
        }
        Ok(())
    };
    settled().with_context(|| format!("putting {directory} on the disk"))
}

/// Puts a name that was just given on the disk.
///
/// # Errors
/// When the disk fails.
pub fn settle_name(path: &Utf8Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("putting {path} on the disk"))
}

/// Every file and directory below `directory` and itself; `None` when there are many.
fn few_files(directory: &Utf8Path) -> Result<Option<Vec<Utf8PathBuf>>> {
    const FEW: usize = 32;
    let (mut found, mut pending) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(folder) = pending.pop() {
        for entry in folder.read_dir_utf8()? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.into_path());
            } else if kind.is_file() {
                found.push(entry.into_path());
            }
            if found.len() + pending.len() > FEW {
                return Ok(None);
            }
        }
        found.push(folder);
    }
    Ok(Some(found))
}

/// `None` when a sweep was faster than we were.
fn claim(path: &Path) -> Option<Claim> {
    let lock = File::open(path).ok().map(|file| Flock::lock(file, FlockArg::LockExclusive));
    let Some(Ok(lock)) = lock else {
        return path.exists().then_some(Claim { _lock: None });
    };
    let inode = lock.metadata().ok()?.ino();
    let still_there = fs::metadata(path).is_ok_and(|now| now.ino() == inode);
    still_there.then_some(Claim { _lock: Some(lock) })
}

/// Removes what begins with `prefix` in `parent` and nobody makes any more. Nobody misses what cannot be removed.
pub fn sweep(parent: &Utf8Path, prefix: &str) {
    for entry in parent.read_dir_utf8().into_iter().flatten().flatten() {
        if !entry.file_name().starts_with(prefix) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        // Never opened: a pipe would block, a device might do anything.
        if !(kind.is_dir() || kind.is_file()) {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        let _ = if kind.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_are_put_on_the_disk_one_by_one() {
        let parent = tempfile::tempdir().unwrap();
        let parent = Utf8Path::from_path(parent.path()).unwrap();
        fs::create_dir(parent.join("sub")).unwrap();
        fs::write(parent.join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", parent.join("link")).unwrap();
        let mut found = few_files(parent).unwrap().unwrap();
        found.sort();
        assert_eq!(found, [parent.to_owned(), parent.join("sub"), parent.join("sub/file")]);
        settle(parent).unwrap();
        (0..40).for_each(|number| fs::write(parent.join(number.to_string()), "x").unwrap());
        assert_eq!(few_files(parent).unwrap(), None);
        settle(parent).unwrap();
        settle_name(&parent.join("sub")).unwrap();
    }

    fn names(folder: &Utf8Path) -> Vec<String> {
        let mut names: Vec<String> =
            folder.read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_nobody_makes_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let parent = Utf8Path::from_path(parent.path()).unwrap();
        let (living_dir, _one) = directory(parent, ".x-").unwrap();
        let (living_file, _two) = file(parent, ".x-", 0o600).unwrap();
        // What a killed process leaves: the thing without the lock.
        let (dead_dir, claim) = directory(parent, ".x-").unwrap();
        fs::write(dead_dir.keep().join("half"), "x").unwrap();
        drop(claim);
        let (dead_file, claim) = file(parent, ".x-", 0o600).unwrap();
        dead_file.keep().unwrap();
        drop(claim);
        fs::write(parent.join("kept"), "x").unwrap();
        sweep(parent, ".x-");
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected = vec![name(living_dir.path()), name(living_file.path()), "kept".to_owned()];
        expected.sort();
        assert_eq!(names(parent), expected);
    }
}
