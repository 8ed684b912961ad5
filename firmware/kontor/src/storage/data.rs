//! The `data` and `system` partitions: components' data and images. The gateway needs neither.
//!
//! `data` is made once, mounted, never repaired by guesswork: it may hold the only copy of something.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use kontor_boot::PartitionKind;
use kontor_boot::filesystem::Content;
use kontor_status::paths;
use kontor_sys::{block, btrfs};
use nix::mount::{MsFlags, mount as mount_filesystem};

use super::disk::Disk;
use super::state::{probe, run};
use super::{SYSTEM, is_mounted};

/// Found in /usr/sbin or /usr/bin: the distribution moves such tools.
const MKFS: &str = "mkfs.btrfs";
/// Below this size btrfs wastes too much on separate metadata (btrfs(5), "mixed block groups").
const MIXED_BELOW: u64 = 256 << 20;

/// Makes the file system if the partition has never been used, mounts it, grows it.
///
/// One that is there but cannot be mounted is left as it is: it may hold the only copy of something.
pub(super) fn mount(disk: &Disk) -> anyhow::Result<()> {
    if is_mounted(paths::DATA) {
        return Ok(());
    }
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
    // A commit every 5 s instead of 30; what of a file nobody synced is in it, the kernel's write-back decides.
    mount_filesystem(Some(&node), paths::DATA, Some("btrfs"), flags, Some("commit=5"))
        .with_context(|| format!("cannot mount {}", node.display()))?;
    if let Err(error) = btrfs::grow(Path::new(paths::DATA)) {
        eprintln!("warning: data keeps its size: {error}");
    }
    Ok(())
}

fn make(node: &Path) -> anyhow::Result<()> {
    eprintln!("making the data file system on {}", node.display());
    let size = block::size(&File::open(node)?)?;
    let mut command = Command::new(MKFS);
    command.args(["--quiet", "--force", "--nodiscard", "--label", "kontor-data"]);
    if size < MIXED_BELOW {
        command.arg("--mixed");
    }
    run(command.arg(node))
}

/// Mounts the components' partition. Releases are fetched to it; its images are sealed, so that nobody can change them.
pub(super) fn mount_system(disk: &Disk) -> anyhow::Result<()> {
    if is_mounted(SYSTEM) {
        return Ok(());
    }
    let node = disk.partition(PartitionKind::System)?;
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_filesystem(Some(&node), SYSTEM, Some("ext4"), flags, None::<&str>)
        .with_context(|| format!("cannot mount {}", node.display()))
}
