//! Room on `state` after a release that has filled it: what is large and was not there before it is of no use to the one that
//! runs again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::storage::Room;

/// What the box itself keeps there is smaller, with few exceptions: the journal of updates knows those that were there before.
const LARGE_BYTES: u64 = 1 << 20;
/// Of a file system with less than this part free.
const FULL_PART: u64 = 8;
/// What this release itself keeps there, however much that has become meanwhile.
const OWN: [&str; 5] = ["dhcpd/leases.journal", "netd/", "site/", "updated/", "init/"];
/// Directories in each other; nothing of the box's own is deeper.
const MAX_DEPTH: usize = 16;

/// The large files of a file system, by their paths from its root.
pub(super) fn large_files(root: &Path) -> Vec<String> {
    let Ok(top) = root.symlink_metadata() else { return Vec::new() };
    let mut found = Vec::new();
    walk(root, top.dev(), MAX_DEPTH, &mut found);
    let names = found.iter().filter_map(|path| Some(path.strip_prefix(root).ok()?.to_str()?.to_owned()));
    names.collect()
}

/// Links and other file systems are not followed; what cannot be read is passed over.
fn walk(directory: &Path, device: u64, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() && depth > 0 {
            walk(&path, device, depth - 1, found);
        } else if metadata.is_file() && metadata.blocks() * 512 >= LARGE_BYTES {
            found.push(path);
        }
    }
}

/// Removes from a full file system the large files that are not among those known; which ones.
///
/// # Errors
/// When the file system cannot be asked, or a file not be removed.
pub(super) fn relieve(root: &Path, known: &[String]) -> anyhow::Result<Vec<String>> {
    let room = Room::read(root).with_context(|| root.display().to_string())?;
    if room.free >= room.total / FULL_PART {
        return Ok(Vec::new());
    }
    remove_unknown(root, known)
}

fn remove_unknown(root: &Path, known: &[String]) -> anyhow::Result<Vec<String>> {
    let is_own = |path: &String| OWN.iter().any(|own| path.starts_with(own));
    let unknown: Vec<String> =
        large_files(root).into_iter().filter(|path| !known.contains(path) && !is_own(path)).collect();
    for path in &unknown {
        let path = root.join(path);
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    Ok(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_and_large_goes_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        let large = vec![1; LARGE_BYTES as usize];
        fs::create_dir(root.join("dhcpd")).unwrap();
        fs::write(root.join("dhcpd/known"), &large).unwrap();
        let known = large_files(root);
        assert_eq!(known, ["dhcpd/known"]);
        fs::write(root.join("dhcpd/new"), &large).unwrap();
        fs::write(root.join("dhcpd/leases.journal"), &large).unwrap();
        fs::write(root.join("small"), b"leases").unwrap();
        // A hole takes no room.
        fs::File::create(root.join("hole")).unwrap().set_len(LARGE_BYTES).unwrap();
        std::os::unix::fs::symlink(root.join("dhcpd/known"), root.join("link")).unwrap();
        assert_eq!(remove_unknown(root, &known).unwrap(), ["dhcpd/new"]);
        let mut left: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["dhcpd", "hole", "link", "small"]);
        assert!(root.join("dhcpd/known").exists() && root.join("dhcpd/leases.journal").exists());
    }
}
