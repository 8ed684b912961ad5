//! The `data` and `system` partitions: made once, mounted, never repaired by guesswork.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use kontor_boot::PartitionKind;
use kontor_boot::filesystem::{Content, PROBE_LENGTH, identify};
use kontor_status::paths;
use kontor_sys::block;
use kontor_sys::file::set_aside;
use nix::mount::{MsFlags, mount as mount_filesystem};
use nix::unistd::{Gid, Uid, chown};

use super::SYSTEM;
use super::disk::Disk;

/// Found in /usr/sbin or /usr/bin: the distribution moves such tools.
const MKFS: &str = "mkfs.btrfs";
/// Below this size btrfs wastes too much on separate metadata (btrfs(5), "mixed block groups").
const MIXED_BELOW: u64 = 256 << 20;

/// State directories of the daemons and their users (`rootfs/base/base.toml`).
const OWNERS: [(&str, u32); 7] =
    [("init", 0), ("site", 0), ("netd", 201), ("dhcpd", 202), ("dnsd", 203), ("timed", 204), ("log", 206)];

/// Makes the file system if the partition has never been used, mounts it, grows it.
///
/// One that is there but cannot be mounted is left as it is: it may hold the only copy of something.
pub(super) fn mount(disk: &Disk) -> anyhow::Result<()> {
    let node = disk.partition(PartitionKind::Data)?;
    match probe(&node)? {
        Content::Empty | Content::Unfinished => make(&node)?,
        Content::Btrfs => {}
        content => bail!(
            "{} holds something else ({content:?}), and is left as it is; to have it made anew, and lose what is \
             in it, overwrite its first MiB with zeros in the root shell and restart",
            node.display()
        ),
    }
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // A commit every 5 s bounds what a power cut costs of what nobody synced.
    mount_filesystem(Some(&node), paths::DATA, Some("btrfs"), flags, Some("commit=5"))
        .with_context(|| format!("cannot mount {}", node.display()))?;
    if let Err(error) = block::grow_btrfs(Path::new(paths::DATA)) {
        eprintln!("warning: data keeps its size: {error}");
    }
    Ok(())
}

fn probe(node: &Path) -> anyhow::Result<Content> {
    let mut start = Vec::new();
    let file = File::open(node).with_context(|| node.display().to_string())?;
    file.take(PROBE_LENGTH as u64).read_to_end(&mut start)?;
    Ok(identify(&start))
}

fn make(node: &Path) -> anyhow::Result<()> {
    eprintln!("making the data file system on {}", node.display());
    let size = block::size(&File::open(node)?)?;
    let mut command = Command::new(MKFS);
    command.args(["--quiet", "--force", "--nodiscard", "--label", "kontor-data"]);
    if size < MIXED_BELOW {
        command.arg("--mixed");
    }
    let output = command.arg(node).output().context(MKFS)?;
    if !output.status.success() {
        bail!("{MKFS}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Mounts the components' partition, read-only.
pub(super) fn mount_system(disk: &Disk) -> anyhow::Result<()> {
    let node = disk.partition(PartitionKind::System)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    mount_filesystem(Some(&node), SYSTEM, Some("ext4"), flags, None::<&str>)
        .with_context(|| format!("cannot mount {}", node.display()))
}

/// Every daemon's own directory, owned by it with everything in it; returns what went wrong or was found wrong.
pub(super) fn prepare_directories() -> Vec<String> {
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
