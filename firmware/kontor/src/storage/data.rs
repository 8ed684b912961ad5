//! The `data` and `system` partitions: made once, mounted, never repaired by guesswork.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use kontor_boot::PartitionKind;
use kontor_boot::filesystem::{Content, PROBE_LENGTH, identify};
use kontor_status::paths;
use kontor_sys::block;
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
        content => bail!("{} holds something else ({content:?}); left as it is", node.display()),
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

/// Every daemon's own directory; returns what went wrong.
pub(super) fn prepare_directories() -> Vec<String> {
    let root = Path::new(paths::STATE);
    if let Err(error) = fs::create_dir_all(root) {
        return vec![format!("{}: {error}", root.display())];
    }
    let prepare = |(name, id): (&str, u32)| {
        let path = root.join(name);
        prepare_directory(&path, id).err().map(|error| format!("{}: {error}", path.display()))
    };
    OWNERS.into_iter().filter_map(prepare).collect()
}

fn prepare_directory(path: &Path, id: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    // Closed before it is handed over, so that it is never open to others.
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    Ok(chown(path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?)
}
