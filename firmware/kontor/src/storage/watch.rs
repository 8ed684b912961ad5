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
use super::space::Space;
use super::{SYSTEM, change_status};
use crate::ctl::control;

const DATA_GIVEN_UP: &str = "the data file system has given up writing: components have nowhere to write; the office's network needs none of it";
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
    /// Whether people know that `data` has given up.
    data_told: bool,
    /// What they know of the room on it; at first, what an earlier process of this daemon has told them.
    space_told: Option<Space>,
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
            data_told: false,
            space_told: None,
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
        self.tell_of_data();
        self.tell_of_space();
        match action {
            None => {}
            Some(Action::Detach) => self.detach(),
            Some(Action::Attach) => self.attach(),
        }
    }

    fn observe(&mut self) -> Observation {
        let mount = state_of(paths::STATE);
        if mount != Mount::Absent && self.disk.is_none() {
            self.disk = chosen();
        }
        // Mounted from a disk that nobody finds any more: it went while storage was still at work.
        let orphaned =
            mount != Mount::Absent && self.disk.is_none() && Path::new(paths::STORAGE_DISK).exists();
        let known = self.disk.as_ref().is_none_or(|disk| identity(&disk.name).as_ref() == Some(disk));
        let attached = known && !orphaned;
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
        ask("restart storage");
    }

    /// `data` that has given up costs components, not the gateway: it stays as it is until somebody makes it writable, which
    /// components need not find out by trying.
    fn tell_of_data(&mut self) {
        let data = state_of(paths::DATA);
        let given_up = data == Mount::ReadOnly;
        // Whoever brings a disk up anew says anew how it is.
        if std::mem::replace(&mut self.data_told, given_up) == given_up || data == Mount::Absent {
            return;
        }
        if let Err(error) = change_status(|status| say_of_data(status, given_up)) {
            eprintln!("error: {error:#}");
        }
        if given_up {
            eprintln!("error: {DATA_GIVEN_UP}");
        } else {
            eprintln!("the data file system is writable again: starting components");
            ask("restart components");
        }
    }

    fn tell_of_space(&mut self) {
        let mounted = state_of(paths::DATA) != Mount::Absent;
        let room = self.prober.room().filter(|_| mounted);
        // Another disk is another matter.
        let before = self.space_told;
        let space = room.map_or(Space::default(), |room| before.unwrap_or_default().after(room));
        if before == Some(space) {
            return;
        }
        let said: Vec<&str> = Space::SAID.iter().filter_map(|space| space.problem()).collect();
        let replace = |status: &mut StorageStatus| {
            status.problems.retain(|problem| !said.contains(&problem.as_str()));
            status.problems.extend(space.problem().map(str::to_owned));
        };
        match change_status(replace) {
            Ok(()) => self.space_told = Some(space),
            // Until then it is tried again.
            Err(error) => return eprintln!("error: {error:#}"),
        }
        match space.problem() {
            Some(problem) => eprintln!("error: {problem}"),
            None if mounted && before.is_some() => eprintln!("there is room on the data file system again"),
            None => {}
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

/// Of PID 1.
fn ask(request: &str) {
    if let Err(error) = control::ask(Path::new(paths::INIT_SOCKET), request) {
        eprintln!("error: {error:#}");
    }
}

fn say_of_data(status: &mut StorageStatus, given_up: bool) {
    status.data_mounted = !given_up;
    status.problems.retain(|problem| problem != DATA_GIVEN_UP);
    status.problems.extend(given_up.then(|| DATA_GIVEN_UP.to_owned()));
}

/// Storage's own problems stay; ours is the first of them, or none.
fn publish_trouble(trouble: Option<Trouble>) -> anyhow::Result<()> {
    change_status(|status| {
        let ours = [Trouble::Pulled, Trouble::Failing, Trouble::Silent].map(|trouble| trouble.to_string());
        status.problems.retain(|problem| !ours.contains(problem));
        if let Some(trouble) = trouble {
            status.problems.insert(0, trouble.to_string());
            if trouble != Trouble::Silent {
                (status.state_mounted, status.data_mounted, status.system_mounted) = (false, false, false);
            }
        }
    })
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

/// How a file system is mounted, and whether it still writes.
fn state_of(target: &str) -> Mount {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some((device, mount)) = mount_state(&mountinfo, target) else { return Mount::Absent };
    // ext4 that has given up stays `rw` there since Linux 6.12, but it counts its errors, and e2fsck clears them.
    let errors = fs::read_to_string(format!("/sys/fs/ext4/{device}/errors_count")).unwrap_or_default();
    if errors.trim().parse::<u64>().is_ok_and(|count| count > 0) { Mount::ReadOnly } else { mount }
}

/// From mountinfo (proc(5)), the device's name and the state: what stands behind the hyphen is the file system's own.
pub(super) fn mount_state<'a>(mountinfo: &'a str, target: &str) -> Option<(&'a str, Mount)> {
    let newest = mountinfo.lines().rev().find(|line| line.split(' ').nth(4) == Some(target))?;
    let mut words = newest.split_once(" - ")?.1.split(' ').skip(1);
    let device = words.next()?.trim_start_matches("/dev/");
    let read_only = words.next()?.split(',').any(|option| option == "ro");
    Some((device, if read_only { Mount::ReadOnly } else { Mount::Writable }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_writes_again_takes_back_what_was_said_of_it_alone() {
        let other = "seed: nonsense".to_owned();
        let mut status =
            StorageStatus { data_mounted: true, problems: vec![other.clone()], ..StorageStatus::default() };
        let before = status.clone();
        say_of_data(&mut status, true);
        assert_eq!((status.data_mounted, status.problems.len()), (false, 2));
        say_of_data(&mut status, false);
        assert_eq!(status, before);
    }

    #[test]
    fn the_file_system_s_own_options_count() {
        let line = |options: &str| format!("36 25 0:31 / /state rw,noatime - ext4 /dev/vda8 {options}\n");
        let root = "25 1 0:20 / / ro,nodev - erofs /base.erofs ro\n";
        let state = |mountinfo: &str| {
            mount_state(mountinfo, "/state").map(|(device, mount)| (device.to_owned(), mount))
        };
        let vda8 = |mount| Some(("vda8".to_owned(), mount));
        assert_eq!(state(&format!("{root}{}", line("rw,commit=5"))), vda8(Mount::Writable));
        assert_eq!(state(&format!("{root}{}", line("ro,commit=5"))), vda8(Mount::ReadOnly));
        assert_eq!(state(root), None);
        assert_eq!(state("garbage\n\n - \n1 2 3 4 /state - ext4\n"), None);
    }
}
