//! The `storage` applet: the disk, as a one-shot that always ends.
//!
//! `boot` finds Kontor's disk, repairs and grows its partition table, makes and mounts `state`, imports the
//! seed and says in `StorageStatus` what it found; `components` then mounts `system` and `data`. Without a disk it says that and
//! ends well: the box is a gateway without one. The other subcommands are short tasks for `init`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kontor_boot::install::Order;
use kontor_boot::{BootState, Guid, PartitionKind, Slot};
use kontor_status::StorageStatus;
use kontor_status::paths;
use kontor_sys::file::{remove, write_atomic};
use nix::fcntl::{Flock, FlockArg};

mod bootstate;
mod clock;
mod data;
mod directories;
pub(crate) mod disk;
mod migrate;
mod prober;
pub(crate) mod reset;
mod schema;
pub(crate) mod seed;
mod space;
mod state;
pub(crate) mod stick;
pub(crate) mod table;
mod watch;

use crate::install;
use crate::updated;
pub(crate) use bootstate::BootStateFile;
pub(crate) use disk::Disk;
pub(crate) use schema::Schema;
pub(crate) use space::Room;

/// Mount point of the `system` partition.
pub(crate) const SYSTEM: &str = "/system";
/// Held by who changes the published status.
const LOCK: &str = "/run/kontor/storage/lock";
/// Link to the `bootstate` partition of that disk, for `site`, which keeps a copy of the site file in it.
const BOOTSTATE_LINK: &str = "/run/kontor/storage/bootstate";

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["boot"] => boot(),
        ["components"] => components(),
        ["mark-good"] => mark_good(),
        ["save-clock"] => clock::save(),
        ["leave"] => leave(),
        ["watch"] => watch::run(),
        ["detach"] => watch::detach(),
        _ => bail!(
            "usage: kontor storage [boot | components | mark-good | save-clock | leave | watch | detach]"
        ),
    }
}

/// How long a disk may take to appear before the office's site is chosen without it.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long a disk may take at all: many spinning up one after the other need half a minute.
const LATE_PATIENCE: Duration = Duration::from_secs(60);
/// Uptime after which a box has had the time to prove itself: a minute for late disks, the rest for a slow start.
const PROVING_S: u64 = 300;

fn boot() -> anyhow::Result<()> {
    forget_choice();
    let slot = booted_slot().map(|slot| slot.letter().to_owned());
    let mut status = StorageStatus::default();
    status.slot.booted.clone_from(&slot);
    let booted = booted_disk();
    let mut found = disk::wait(PATIENCE, booted, &mut status.problems);
    if matches!(found, Ok(None)) {
        // The office does not wait any longer; its durable state comes when the disk comes.
        status.problems.push("no disk with Kontor's partitions yet".to_owned());
        publish(&status)?;
        status.problems.clear();
        found = disk::wait(LATE_PATIENCE, booted, &mut status.problems);
    }
    match found {
        Ok(Some(disk)) => bring_up(&disk, &mut status),
        Ok(None) => status.problems.push("no disk with Kontor's partitions".to_owned()),
        Err(error) => status.problems.push(format!("cannot look for disks: {error:#}")),
    }
    for problem in &status.problems {
        eprintln!("error: {problem}");
    }
    publish(&status)
}

/// What the site was chosen from before is not what is there now: PID 1 has it chosen again.
fn forget_choice() {
    if let Err(error) = remove(Path::new(paths::SITE_FROM_DISK)) {
        eprintln!("{}: {error}", paths::SITE_FROM_DISK);
    }
}

fn publish(status: &StorageStatus) -> anyhow::Result<()> {
    let path = Path::new(paths::STORAGE_STATUS);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    write_atomic(path, &serde_json::to_vec(status)?).with_context(|| paths::STORAGE_STATUS.to_owned())
}

/// Each step is on its own; what fails becomes a problem of the status.
fn bring_up(disk: &Disk, status: &mut StorageStatus) {
    let problems = &mut status.problems;
    if let Err(error) =
        write_atomic(Path::new(paths::STORAGE_DISK), disk.device.as_os_str().as_encoded_bytes())
    {
        problems.push(format!("{}: {error}", paths::STORAGE_DISK));
    }
    let table = match table::repair_and_grow(disk) {
        Ok(table) => table,
        Err(error) => {
            problems.push(format!("partition table of {}: {error:#}", disk.device.display()));
            disk.table.clone()
        }
    };
    let disk = disk.with_table(table);
    if let Some(order) = seed::order(&disk, problems) {
        return stand_by(&disk, order, status);
    }
    if let Err(error) = link_bootstate(&disk) {
        problems.push(format!("{BOOTSTATE_LINK}: {error:#}"));
    }
    match state::mount(&disk, problems) {
        Ok(()) => status.state_mounted = true,
        Err(error) => problems.push(format!("no state partition: {error:#}")),
    }
    if status.state_mounted {
        problems.extend(directories::prepare());
        clock::restore();
    }
    if let Err(error) = reset::last(&disk, status) {
        status.problems.push(format!("factory reset: {error:#}"));
    }
    let seeded = seed::import(&disk, status.state_mounted);
    if let Err(error) = seeded {
        status.problems.push(format!("seed: {error:#}"));
    }
    forget_choice();
    // The office's site can be chosen now; what follows concerns nobody in the office.
    if let Err(error) = publish(status) {
        status.problems.push(format!("{error:#}"));
    }
    if let Err(error) = read_boot_state(&disk, status) {
        status.slot.problem = Some(format!("{error:#}"));
    }
}

/// A stick that is to be installed is left as it is: its office is served from RAM, and `install` goes to work.
fn stand_by(disk: &Disk, order: Order, status: &mut StorageStatus) {
    let served = seed::waiting(disk).and_then(|files| seed::serve(&files));
    status.problems.extend(served.err().map(|error| format!("seed: {error:#}")));
    if let Err(error) = link_bootstate(disk) {
        status.problems.push(format!("{BOOTSTATE_LINK}: {error:#}"));
    }
    if let Err(error) = read_boot_state(disk, status) {
        status.slot.problem = Some(format!("{error:#}"));
    }
    if let Err(error) = write_atomic(Path::new(paths::INSTALL_ORDER), order.text().as_bytes()) {
        status.problems.push(format!("{}: {error}", paths::INSTALL_ORDER));
    }
}

/// What the gateway does not need: `system` and `data`. A process of its own, so that nobody
/// waits for it, and `disk` watches meanwhile.
fn components() -> anyhow::Result<()> {
    let Ok(disk) = chosen_disk() else {
        eprintln!("no disk: components have nowhere to be");
        return Ok(());
    };
    let had_state = is_mounted(paths::STATE);
    let (system, data) = (data::mount_system(&disk), data::mount(&disk));
    if had_state && !is_mounted(paths::STATE) {
        // The watcher has let go of the disk meanwhile.
        return watch::detach();
    }
    let published = change_status(|status| {
        (status.system_mounted, status.data_mounted) = (system.is_ok(), data.is_ok());
        for (name, result) in [("system", system), ("data", data)] {
            let Err(error) = result else { continue };
            let problem = format!("no {name} partition: {error:#}");
            eprintln!("error: {problem}");
            status.problems.push(problem);
        }
    });
    // Other disks may hang when they are read: last.
    install::offer(&disk);
    published
}

/// Changes what is published; storage, components and the watcher do so.
fn change_status(how: impl FnOnce(&mut StorageStatus)) -> anyhow::Result<()> {
    let lock = fs::File::create(LOCK).context(LOCK)?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).context(LOCK)?;
    let text = fs::read(paths::STORAGE_STATUS).unwrap_or_default();
    let mut status: StorageStatus = serde_json::from_slice(&text).unwrap_or_default();
    how(&mut status);
    publish(&status)
}

/// Storage may run again on a running box.
pub(crate) fn is_mounted(target: &str) -> bool {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    watch::mount_state(&mountinfo, target).is_some()
}

fn link_bootstate(disk: &Disk) -> anyhow::Result<()> {
    let node = disk.partition(PartitionKind::BootState)?;
    let link = Path::new(BOOTSTATE_LINK);
    if link.is_symlink() {
        fs::remove_file(link)?;
    }
    Ok(std::os::unix::fs::symlink(node, link)?)
}

fn read_boot_state(disk: &Disk, status: &mut StorageStatus) -> anyhow::Result<()> {
    let mut file = BootStateFile::open(&disk.partition(PartitionKind::BootState)?)?;
    let state = match file.read()? {
        Ok(state) => state,
        Err(error) => {
            status.slot.problem = Some(format!("{error}; written anew"));
            file.reset()?
        }
    };
    status.slot.tries = state.tries;
    if file.restore_frame().context("GRUB's frame")? {
        status.problems.push("the boot state was damaged: GRUB could count no tries; restored".to_owned());
    }
    Ok(())
}

/// The slot that runs.
pub(crate) fn booted_slot() -> Option<Slot> {
    let command_line = fs::read_to_string("/proc/cmdline").ok()?;
    slot_of(&command_line)
}

fn slot_of(command_line: &str) -> Option<Slot> {
    command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("kontor.slot="))
        .and_then(Slot::from_letter)
}

/// The disk that the boot loader has started from, if it says so.
fn booted_disk() -> Option<Guid> {
    disk_of(&fs::read_to_string("/proc/cmdline").ok()?)
}

fn disk_of(command_line: &str) -> Option<Guid> {
    command_line.split_whitespace().find_map(|word| word.strip_prefix("kontor.disk=")).and_then(Guid::parse)
}

/// Whether the boot loader has started a slot that is not the last good one, and has another one to go back to.
pub(crate) fn boots_on_trial() -> bool {
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    command_line.split_whitespace().any(|word| word == "kontor.trial")
}

/// The disk that was found at boot.
pub(crate) fn chosen_disk() -> anyhow::Result<Disk> {
    let device = fs::read_to_string(paths::STORAGE_DISK).context("no disk was found at boot")?;
    Disk::open(Path::new(&device))
}

fn mark_good() -> anyhow::Result<()> {
    let Ok(disk) = chosen_disk() else {
        eprintln!("no disk: nothing to mark good");
        return Ok(());
    };
    let slot = booted_slot().context("the kernel command line names no slot")?;
    if updated::is_on_trial() {
        eprintln!("a release is on trial: whether slot {slot} is good is judged by what worked before");
        return Ok(());
    }
    let mut file = BootStateFile::open(&disk.partition(PartitionKind::BootState)?)?;
    let before = file.read()?.unwrap_or(BootState::fresh());
    if !is_mounted(paths::STATE) && !before.good[slot.index()] && before.good[slot.other().index()] {
        // Perhaps a release that cannot mount it: its tries decide.
        eprintln!("slot {slot} has never been good, and without state nobody can judge it");
        return Ok(());
    }
    let state = file.mark_good(slot)?;
    eprintln!("slot {slot} is good");
    show_good(state.tries)
}

/// Publishes that the running slot has proved itself.
pub(crate) fn show_good(tries: [u8; 2]) -> anyhow::Result<()> {
    change_status(|status| {
        status.slot.good = true;
        status.slot.tries = tries;
    })
}

/// Before an orderly reboot or power-off: the time is kept, and a slot that nobody gave the time to prove itself gets
/// the try of this boot back. One that had the time and did not use it has spent it: who switches a box that
/// does not work off and on again gets the other slot in the end.
fn leave() -> anyhow::Result<()> {
    let saved = clock::save();
    let uptime = fs::read_to_string("/proc/uptime").context("/proc/uptime")?;
    if let (true, Ok(disk), Some(slot)) = (is_early(&uptime), chosen_disk(), booted_slot()) {
        BootStateFile::open(&disk.partition(PartitionKind::BootState)?)?.give_back(slot)?;
    }
    saved
}

/// By the first number of /proc/uptime, in seconds (proc(5)). Giving back to a slot that is good changes nothing.
fn is_early(uptime: &str) -> bool {
    let seconds = uptime.split('.').next().and_then(|whole| whole.parse::<u64>().ok());
    seconds.is_some_and(|seconds| seconds < PROVING_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_had_the_time_to_prove_itself_keeps_its_try_spent() {
        for (uptime, expected) in
            [("12.34 20.01\n", true), ("299.99 1.0\n", true), ("300.00 1.0\n", false), ("", false)]
        {
            assert_eq!(is_early(uptime), expected, "{uptime:?}");
        }
    }

    #[test]
    fn the_slot_is_named_on_the_command_line() {
        assert_eq!(slot_of("console=ttyS0 kontor.slot=b quiet\n"), Some(Slot::B));
        assert_eq!(slot_of("kontor.slot=c"), None);
        assert_eq!(slot_of(""), None);
        let text = "c1a2b3c4-f81f-11d2-ba4b-00a0c93ec93b";
        assert_eq!(disk_of(&format!("kontor.slot=b kontor.disk={text} quiet\n")), Guid::parse(text));
        assert_eq!([disk_of("kontor.slot=a kontor.disk= quiet"), disk_of("")], [None; 2]);
    }
}
