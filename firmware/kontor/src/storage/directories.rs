//! The daemons' directories on `state`: each its own, whatever a backup or a slip of the hand has left.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kontor_status::paths;
use kontor_sys::file::set_aside;
use nix::unistd::{Gid, Uid, chown};

/// State directories of the daemons and their users (`rootfs/base/base.toml`).
const OWNERS: [(&str, u32); 8] = [
    ("init", 0),
    ("site", 0),
    ("updated", 0),
    ("netd", 201),
    ("dhcpd", 202),
    ("dnsd", 203),
    ("timed", 204),
    ("log", 206),
];

/// Every daemon's own directory, owned by it with everything in it; returns what went wrong or was found wrong.
pub(super) fn prepare() -> Vec<String> {
    prepare_below(Path::new(paths::STATE), &OWNERS)
}

fn prepare_below(root: &Path, owners: &[(&str, u32)]) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = make_directory(root, &mut problems) {
        return vec![format!("{}: {error}", root.display())];
    }
    for (name, id) in owners {
        let path = root.join(name);
        if let Err(error) = prepare_directory(&path, *id, &mut problems) {
            problems.push(format!("{}: {error}", path.display()));
        }
    }
    problems
}

fn prepare_directory(path: &Path, id: u32, problems: &mut Vec<String>) -> io::Result<()> {
    make_directory(path, problems)?;
    // Closed before it is handed over, so that it is never open to others.
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    own(path, id)?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if let Err(error) = mend_entry(&entry.path(), id, problems) {
            problems.push(format!("{}: {error}", entry.path().display()));
        }
    }
    Ok(())
}

/// A file in a directory's place is set aside.
fn make_directory(path: &Path, problems: &mut Vec<String>) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
        let aside = set_aside(path)?;
        problems.push(format!("{} was no directory; kept as {}", path.display(), aside.display()));
    }
    fs::create_dir_all(path)
}

/// What a daemon cannot open, it cannot use: a restored backup or a slip in the root shell must not cost it
/// its state. Links are left alone, whatever they point to.
fn mend_entry(path: &Path, id: u32, problems: &mut Vec<String>) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    let wanted = if found.is_dir() { 0o700 } else { 0o600 };
    let regular = found.is_file() || found.is_dir();
    if !regular || (found.uid() == id && found.mode() & 0o700 & wanted == wanted) {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(wanted))?;
    own(path, id)?;
    problems.push(format!("{} had the wrong owner or mode; mended", path.display()));
    Ok(())
}

fn own(path: &Path, id: u32) -> io::Result<()> {
    Ok(chown(path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_the_way_are_set_aside_and_modes_mended() {
        let scratch = tempfile::tempdir().unwrap();
        let me = nix::unistd::geteuid().as_raw();
        let root = scratch.path().join("kontor");
        fs::write(&root, "no directory").unwrap();
        let owners = [("dhcpd", me), ("netd", me)];
        assert_eq!(prepare_below(&root, &owners).len(), 1);
        assert_eq!(fs::read(scratch.path().join("kontor.damaged")).unwrap(), b"no directory");
        assert!(prepare_below(&root, &owners).is_empty(), "nothing is left to mend");

        let journal = root.join("dhcpd/leases.journal");
        fs::write(&journal, "lease").unwrap();
        fs::set_permissions(&journal, fs::Permissions::from_mode(0o000)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("dhcpd/link")).unwrap();
        fs::remove_dir(root.join("netd")).unwrap();
        fs::write(root.join("netd"), "").unwrap();
        assert_eq!(prepare_below(&root, &owners).len(), 2);
        assert_eq!(fs::read(&journal).unwrap(), b"lease");
        assert!(root.join("netd").is_dir());
    }
}
