//! The `disk` daemon: what happens to the disk after boot. It never touches the disk itself.
//!
//! It observes by sysfs, mountinfo and a thread that may hang in its stead, lets go of a dead file system by
//! a child that may hang too, and has PID 1 run `storage` again when a disk is back. Decisions are
//! [`kontor_boot::health`]'s.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use kontor_boot::PartitionKind;
use kontor_boot::health::{Action, Health, Mount, Observation, Trouble};
use kontor_status::{StorageStatus, paths};
use kontor_sys::notify::Notifier;
use kontor_sys::uevent::{UeventSocket, wait_readable};
use nix::mount::{MntFlags, umount2};

use super::prober::Prober;
use super::{SYSTEM, publish};
use crate::ctl::control;

/// How often it looks; announcements of the kernel come in between.
const TICK_MS: u16 = 2000;

/// Lets go of a dead disk; what still has files open there closes them as they fail.
pub(super) fn detach() -> anyhow::Result<()> {
    for target in [SYSTEM, paths::DATA, paths::STATE] {
        match umount2(target, MntFlags::MNT_DETACH) {
            // It is not mounted.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(error).context(target),
        }
    }
    Ok(())
}

/// Runs for ever.
pub(super) fn run() -> anyhow::Result<()> {
    let events = UeventSocket::open().context("cannot listen for disks")?;
    let notifier = Notifier::from_environment();
    let mut watcher = Watcher::new()?;
    notifier.ready();
    loop {
        notifier.watchdog();
        watcher.look();
        wait_readable(events.as_fd(), TICK_MS)?;
        while let Ok(Some(_)) = events.next() {}
    }
}

struct Watcher {
    started: Instant,
    health: Health,
    prober: Prober,
    /// The disk that was brought up last, as the kernel counts disks.
    disk: Option<Identity>,
    detaching: Option<Child>,
    told: Option<Trouble>,
}

/// Name and sequence number of a disk: one that is plugged in again has another number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    name: String,
    sequence: String,
}

impl Watcher {
    fn new() -> anyhow::Result<Self> {
        let prober = Prober::start().context("cannot start the probing thread")?;
        let disk = chosen();
        Ok(Self {
            started: Instant::now(),
            health: Health::default(),
            prober,
            disk,
            detaching: None,
            told: None,
        })
    }

    fn look(&mut self) {
        if self.detaching.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            return;
        }
        self.detaching = None;
        let seen = self.observe();
        let action = self.health.observe(self.started.elapsed(), seen);
        self.tell();
        match action {
            None => {}
            Some(Action::Detach) => self.detach(),
            Some(Action::Attach) => self.attach(),
        }
    }

    fn observe(&mut self) -> Observation {
        let mount = mount_state(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        if mount != Mount::Absent && self.disk.is_none() {
            self.disk = chosen();
        }
        let attached = self.disk.as_ref().is_none_or(|disk| identity(&disk.name).as_ref() == Some(disk));
        let device = self.disk.as_ref().filter(|_| attached && mount != Mount::Absent);
        let answer = self.prober.ask(device.map(|disk| Path::new("/dev").join(&disk.name)));
        Observation { attached, found: state_partition_exists(), mount, answer }
    }

    fn detach(&mut self) {
        self.disk = None;
        let child = Command::new("/proc/self/exe").args(["storage", "detach"]).stdin(Stdio::null()).spawn();
        match child {
            Ok(child) => self.detaching = Some(child),
            Err(error) => eprintln!("error: cannot let go of the disk: {error}"),
        }
    }

    fn attach(&mut self) {
        self.disk = None;
        eprintln!("a disk of Kontor's is there: bringing it up");
        if let Err(error) = control::ask(Path::new(paths::INIT_SOCKET), "restart storage") {
            eprintln!("error: {error:#}");
        }
    }

    /// Says what has changed, in the log and in the status that console and `ctl` show.
    fn tell(&mut self) {
        let trouble = self.health.trouble();
        if std::mem::replace(&mut self.told, trouble) == trouble {
            return;
        }
        match trouble {
            Some(trouble) => eprintln!("error: {trouble}"),
            None => eprintln!("the disk is well again"),
        }
        if let Err(error) = publish_trouble(trouble) {
            eprintln!("error: {error:#}");
        }
    }
}

/// Storage's own problems stay; ours is the first of them, or none.
fn publish_trouble(trouble: Option<Trouble>) -> anyhow::Result<()> {
    let text = fs::read(paths::STORAGE_STATUS).unwrap_or_default();
    let mut status: StorageStatus = serde_json::from_slice(&text).unwrap_or_default();
    let ours = [Trouble::Pulled, Trouble::Failing, Trouble::Silent].map(|trouble| trouble.to_string());
    status.problems.retain(|problem| !ours.contains(problem));
    if let Some(trouble) = trouble {
        status.problems.insert(0, trouble.to_string());
        if trouble != Trouble::Silent {
            (status.state_mounted, status.data_mounted, status.system_mounted) = (false, false, false);
        }
    }
    publish(&status)
}

/// The disk that storage has chosen, if it is still there.
fn chosen() -> Option<Identity> {
    let device = fs::read_to_string(paths::STORAGE_DISK).ok()?;
    identity(device.strip_prefix("/dev/")?)
}

fn identity(name: &str) -> Option<Identity> {
    let sequence = fs::read_to_string(format!("/sys/block/{name}/diskseq")).ok()?;
    Some(Identity { name: name.to_owned(), sequence })
}

/// Without touching a disk: the kernel knows the names of partitions.
fn state_partition_exists() -> bool {
    let line = format!("PARTNAME={}", PartitionKind::State.name());
    let Ok(blocks) = fs::read_dir("/sys/class/block") else { return false };
    let uevents = blocks.flatten().filter_map(|block| fs::read_to_string(block.path().join("uevent")).ok());
    uevents.into_iter().any(|text| text.lines().any(|found| found == line))
}

/// How `state` is mounted, from mountinfo (proc(5)): the options behind the hyphen are the file system's own.
fn mount_state(mountinfo: &str) -> Mount {
    let newest = mountinfo.lines().rev().find(|line| line.split(' ').nth(4) == Some(paths::STATE));
    let Some((_, filesystem)) = newest.and_then(|line| line.split_once(" - ")) else { return Mount::Absent };
    let options = filesystem.split(' ').nth(2).unwrap_or_default();
    if options.split(',').any(|option| option == "ro") { Mount::ReadOnly } else { Mount::Writable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_s_own_options_count() {
        let line = |options: &str| format!("36 25 0:31 / /state rw,noatime - ext4 /dev/vda8 {options}\n");
        let root = "25 1 0:20 / / ro,nodev - erofs /base.erofs ro\n";
        assert_eq!(mount_state(&format!("{root}{}", line("rw,commit=5"))), Mount::Writable);
        assert_eq!(mount_state(&format!("{root}{}", line("ro,commit=5"))), Mount::ReadOnly);
        assert_eq!(mount_state(root), Mount::Absent);
        assert_eq!(mount_state("garbage\n\n - \n"), Mount::Absent);
    }
}
