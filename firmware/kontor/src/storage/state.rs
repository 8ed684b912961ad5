//! The `state` partition: what the gateway itself keeps. Small, ext4, there before the office asks for it.
//!
//! It holds nothing that the office cannot live without: the good site file has a copy in `bootstate`, leases are
//! found again by ARP. So a box that nobody visits mends it, and makes it anew when it cannot be mended, and says
//! so; what is on `data` is never treated like that.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use kontor_boot::PartitionKind;
use kontor_boot::filesystem::{Content, Ext, PROBE_LENGTH, STATE_MARK, identify};
use kontor_status::paths;
use nix::mount::{MsFlags, mount as mount_filesystem};

use super::disk::{Disk, open_writable};

/// Found in /usr/sbin or /usr/bin: the distribution moves such tools.
const MKFS: &str = "mke2fs";
const FSCK: &str = "e2fsck";
/// e2fsck(8): from this exit code on, errors are left or it could not work.
const FSCK_FAILED: i32 = 4;

/// Makes the file system if it has never been finished, mends it if it needs that, and mounts it.
///
/// Whatever else was necessary becomes a problem, for people.
pub(super) fn mount(disk: &Disk, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let node = disk.partition(PartitionKind::State)?;
    let content = probe(&node)?;
    // What was never finished holds nothing yet.
    if matches!(content, Content::Empty | Content::Ext(Ext { marked: false, .. })) {
        return make(&node).and_then(|()| mount_node(&node));
    }
    let healthy = matches!(content, Content::Ext(Ext { flawed: false, .. }));
    if healthy && mount_node(&node).is_ok() {
        return Ok(());
    }
    if let Err(error) = mend(&node).and_then(|()| mount_node(&node)) {
        problems.push(format!("{} held nothing usable and was made anew: {error:#}", node.display()));
        return make(&node).and_then(|()| mount_node(&node));
    }
    problems.push(format!("the file system on {} was damaged and has been mended", node.display()));
    Ok(())
}

/// What a partition holds.
pub(super) fn probe(node: &Path) -> anyhow::Result<Content> {
    let mut start = Vec::new();
    let file = File::open(node).with_context(|| node.display().to_string())?;
    file.take(PROBE_LENGTH as u64).read_to_end(&mut start)?;
    Ok(identify(&start))
}

fn mount_node(node: &Path) -> anyhow::Result<()> {
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // After an error it gives up writing, which the watcher sees; a commit every 5 s bounds what a power cut costs
    // of what nobody synced.
    mount_filesystem(Some(node), paths::STATE, Some("ext4"), flags, Some("errors=remount-ro,commit=5"))
        .with_context(|| format!("cannot mount {}", node.display()))
}

/// The mark comes last, when everything else is on the disk: without it the making was cut short.
fn make(node: &Path) -> anyhow::Result<()> {
    eprintln!("making the state file system on {}", node.display());
    let device = open_writable(node)?;
    // Blocks of 4 KiB whatever the size, in groups small enough for copies of the superblock; nothing is left for the kernel to finish while the box runs.
    run(Command::new(MKFS)
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-g",
            "8192",
            "-m",
            "0",
            "-L",
            "kontor-state",
            "-J",
            "size=8",
        ])
        .args(["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"])
        .arg(node))?;
    mark(&device)
}

/// What was written before is on the disk when the mark is.
fn mark(device: &File) -> anyhow::Result<()> {
    device.sync_all()?;
    device.write_all_at(STATE_MARK, 0)?;
    Ok(device.sync_all()?)
}

fn mend(node: &Path) -> anyhow::Result<()> {
    eprintln!("mending the state file system on {}", node.display());
    let output = Command::new(FSCK).args(["-f", "-y"]).arg(node).output().context(FSCK)?;
    // What was found belongs into the log.
    let _ = std::io::stderr().write_all(&output.stdout);
    if output.status.code().is_none_or(|code| code >= FSCK_FAILED) {
        bail!("{FSCK}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    mark(&open_writable(node)?)
}

/// Runs a tool whose success says all.
pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| name.clone())?;
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
