//! The `state` partition: what the gateway itself keeps. Small, ext4, there before the office asks for it.
//!
//! A box that nobody visits mends it, and makes it anew only when it can be read from end to end and e2fsck has
//! found nothing to mend: the good site file has a copy in `bootstate`, leases are found again by ARP. Whatever else
//! goes wrong (a disk that fails to read, a tool that does not run) leaves it as it is, for the next attempt.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use kontor_boot::PartitionKind;
use kontor_boot::filesystem::{Content, Ext, PROBE_LENGTH, STATE_MARK, identify};
use kontor_status::paths;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount as mount_filesystem, umount2};

use super::disk::{Disk, open_writable};
use super::{is_mounted, migrate, reset};

/// Found in /usr/sbin or /usr/bin: the distribution moves such tools.
const MKFS: &str = "mke2fs";
const FSCK: &str = "e2fsck";
/// e2fsck(8): from this exit code on errors are left, or it has found no file system.
const FSCK_FAILED: i32 = 4;
/// And from this one on it has not even looked.
const FSCK_MISUSED: i32 = 16;
/// Small groups, so that there are copies of the superblock; the first is in the block of this number.
const BLOCKS_PER_GROUP: &str = "8192";
const BLOCK_SIZE: &str = "4096";
/// What every ext4 has.
const LOST_AND_FOUND: &str = "lost+found";

/// Where it is until its files have the schema that is to be in force: no daemon looks there.
const APART: &str = "/run/kontor/storage/state";

/// Makes the file system if it has never been finished, mends it if it needs that, brings what is in it to the right schema, resets
/// it if that was asked for, and mounts it.
///
/// Whatever else was necessary becomes a problem, for people.
pub(super) fn mount(disk: &Disk, problems: &mut Vec<String>) -> anyhow::Result<()> {
    if is_mounted(paths::STATE) {
        return Ok(());
    }
    std::fs::create_dir_all(APART).context(APART)?;
    if is_mounted(APART) {
        // An earlier attempt was cut short.
        umount2(APART, MntFlags::MNT_DETACH).context(APART)?;
    }
    mount_apart(disk, problems)?;
    let apart = Path::new(APART);
    let moved = migrate::bring_up(disk, apart, problems)
        .and_then(|()| reset::attend(disk, apart, problems))
        .and_then(|()| {
            mount_filesystem(Some(APART), paths::STATE, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
                .with_context(|| format!("cannot move {APART} to {}", paths::STATE))
        });
    if moved.is_err() {
        umount2(APART, MntFlags::MNT_DETACH).context(APART)?;
    }
    moved
}

fn mount_apart(disk: &Disk, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let node = disk.partition(PartitionKind::State)?;
    match probe(&node)? {
        Content::Empty => make_and_mount(&node),
        Content::Ext(Ext { flawed: false, marked }) => match mount_node(&node) {
            Ok(()) if marked => Ok(()),
            Ok(()) => finish_or_keep(&node, problems),
            Err(Errno::EUCLEAN | Errno::EINVAL | Errno::EIO) => mend_or_make(&node, problems),
            Err(error) => Err(error).with_context(|| format!("cannot mount {}", node.display())),
        },
        _ => mend_or_make(&node, problems),
    }
}

/// It can be mounted, but has no mark: its making was cut short, or only the mark was lost.
fn finish_or_keep(node: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let mut names = std::fs::read_dir(APART)?.flatten().map(|entry| entry.file_name());
    let is_used = names.any(|name| name != LOST_AND_FOUND);
    umount2(APART, MntFlags::empty())?;
    if !is_used {
        return make_and_mount(node);
    }
    mark(&open_writable(node)?)?;
    mount_node(node).with_context(|| format!("cannot mount {}", node.display()))?;
    problems.push(format!("the first sector of {} was lost and has been restored", node.display()));
    Ok(())
}

fn mend_or_make(node: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    claim(node).with_context(|| format!("{} is in use", node.display()))?;
    // What cannot be read now may be readable tomorrow: mending would replace it by zeros.
    read_through(node)
        .with_context(|| format!("{} fails to be read, and is left as it is", node.display()))?;
    if mend(node)? {
        mark(&open_writable(node)?)?;
        mount_node(node).with_context(|| format!("cannot mount {}, though it was mended", node.display()))?;
        problems.push(format!("the file system on {} was damaged and has been mended", node.display()));
        return Ok(());
    }
    make_and_mount(node)?;
    problems.push(format!("{} held nothing that could be mended and was made anew", node.display()));
    Ok(())
}

/// What a partition holds.
pub(super) fn probe(node: &Path) -> anyhow::Result<Content> {
    let mut start = Vec::new();
    let file = File::open(node).with_context(|| node.display().to_string())?;
    file.take(PROBE_LENGTH as u64).read_to_end(&mut start)?;
    Ok(identify(&start))
}

/// Fails when the file system is (still) mounted somewhere: open(2), O_EXCL on a block device.
fn claim(node: &Path) -> io::Result<()> {
    File::options().read(true).custom_flags(nix::fcntl::OFlag::O_EXCL.bits()).open(node).map(drop)
}

fn read_through(node: &Path) -> io::Result<()> {
    io::copy(&mut File::open(node)?, &mut io::sink()).map(drop)
}

fn mount_node(node: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // After an error it gives up, which the watcher sees; a commit every 5 s bounds what a power cut costs of what
    // nobody synced.
    mount_filesystem(Some(node), APART, Some("ext4"), flags, Some("errors=remount-ro,commit=5"))
}

fn make_and_mount(node: &Path) -> anyhow::Result<()> {
    make(node)?;
    mount_node(node).with_context(|| format!("cannot mount {}", node.display()))
}

/// The mark goes first and comes last, when everything else is on the disk: without it the making was cut short.
fn make(node: &Path) -> anyhow::Result<()> {
    eprintln!("making the state file system on {}", node.display());
    let device = open_writable(node)?;
    device.write_all_at(&[0; STATE_MARK.len()], 0)?;
    device.sync_all()?;
    // Nothing is left for the kernel to finish while the box runs.
    run(Command::new(MKFS)
        .args(["-q", "-F", "-t", "ext4", "-b", BLOCK_SIZE, "-g", BLOCKS_PER_GROUP, "-m", "0"])
        .args(["-L", "kontor-state", "-J", "size=8"])
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

/// By the superblock, else by its first copy; false when e2fsck says that there is nothing to mend.
fn mend(node: &Path) -> anyhow::Result<bool> {
    eprintln!("mending the state file system on {}", node.display());
    Ok(check(node, &[])? || check(node, &["-b", BLOCKS_PER_GROUP, "-B", BLOCK_SIZE])?)
}

/// False when it could not be mended; an error when that is not known.
fn check(node: &Path, superblock: &[&str]) -> anyhow::Result<bool> {
    let output = Command::new(FSCK).args(["-f", "-y"]).args(superblock).arg(node).output().context(FSCK)?;
    // What was found belongs into the log.
    let _ = io::stderr().write_all(&output.stdout);
    match output.status.code() {
        Some(code) if code < FSCK_FAILED => Ok(true),
        Some(code) if code < FSCK_MISUSED => Ok(false),
        _ => bail!("{FSCK}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
    }
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
