//! The `install` applet: a box that runs from a stick puts itself on the machine's own disk.
//!
//! Root, and on its own: it reads the stick and its seed, writes one disk that nobody uses, and hears nothing of any network. Which
//! disk that may be is decided in `kontor_boot::target`, what goes where in `kontor_boot::install`.

mod ask;
mod copy;
mod disks;
mod office;
mod report;
mod stick;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use kontor_boot::frame::bootstate;
use kontor_boot::gpt::SECTOR;
use kontor_boot::install::{self, Fill, Order};
use kontor_boot::target::{self, Candidate, Choice};
use kontor_boot::{BootState, Guid, PartitionKind};
use kontor_status::paths::{self, Paths};
use kontor_sys::signal::Signals;
use kontor_sys::uevent::{UeventSocket, wait_readable};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

pub(crate) use ask::{list, to};
use copy::{Part, Plan};
use report::Report;
pub(crate) use report::line;

use crate::ctl::control;
use crate::storage::{BootStateFile, Disk, booted_slot, chosen_disk};
use crate::updated;

/// Held by who installs.
const LOCK: &str = "/run/kontor/install/lock";
/// A lost announcement costs at most this.
const LOOK_AGAIN_MS: u16 = 500;
/// No disk has appeared for so long: all are there that will be.
const SETTLED: Duration = Duration::from_secs(10);
/// The consoles show what was said last, before the machine is off.
const SHOWN: Duration = Duration::from_secs(3);

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    match args {
        [] => by_order(),
        _ => bail!("usage: kontor install (started by PID 1; `kontor ctl install` is for people)"),
    }
}

/// What the stick's seed orders. A failure is told and ends it: nobody but a person can do something about it.
fn by_order() -> anyhow::Result<()> {
    let order = Order::parse(&fs::read(paths::INSTALL_ORDER).context(paths::INSTALL_ORDER)?)?;
    let mut report = Report::new();
    match carry_out(&order, &mut report) {
        Ok(installed) => {
            report.phase(&format!("done: {installed}; pull the stick out and switch the machine on"));
            std::thread::sleep(SHOWN);
            control::ask(&Paths::default().init_socket(), "power-off").context("cannot switch off").map(drop)
        }
        Err(error) => {
            report.problem(&format!("{error:#}"));
            Ok(())
        }
    }
}

/// What is true then.
fn carry_out(order: &Order, report: &mut Report) -> anyhow::Result<String> {
    let stick = chosen_disk()?;
    report.phase("looking for the disk to install to");
    let disks = settled(&stick)?;
    let made = identity_made(&stick, order.id)?;
    let choice = target::choose(&disks, install::needed(stick.table()), order.over, made);
    let disk = match choice.context("not installed")? {
        Choice::Install(disk) => {
            install_to(&stick, disk, order.id, report).context("not installed")?;
            disk
        }
        // Cut short before the stick knew of it.
        Choice::Done(disk) => disk,
    };
    stick::finish(&stick, made).with_context(|| installed(disk))?;
    Ok(installed(disk))
}

/// What is true from the moment on that the disk is whole.
fn installed(disk: &Candidate) -> String {
    format!("this box is on {disk} now")
}

/// By which a disk that is made of the stick with this id is known.
fn identity_made(stick: &Disk, id: Guid) -> anyhow::Result<Guid> {
    install::identity(&install::with_id(stick.table(), id)).context("the stick has no slot a")
}

/// All disks, when no more of them appear.
fn settled(stick: &Disk) -> anyhow::Result<Vec<Candidate>> {
    let events = UeventSocket::open().context("cannot listen for disks")?;
    let mut names = disks::names();
    let mut since = Instant::now();
    while since.elapsed() < SETTLED {
        wait_readable(events.as_fd(), LOOK_AGAIN_MS)?;
        while let Ok(Some(_)) = events.next() {}
        let now = disks::names();
        if now != names {
            (names, since) = (now, Instant::now());
        }
    }
    Ok(disks::all(stick))
}

/// Writes the disk and reads it back. It looks like no disk of ours until all of that went well.
fn install_to(stick: &Disk, disk: &Candidate, id: Guid, report: &mut Report) -> anyhow::Result<()> {
    fs::create_dir_all(Path::new(LOCK).parent().unwrap_or(Path::new("/")))?;
    let lock = File::create(LOCK).context(LOCK)?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .context("an installation is under way already")?;
    ensure!(!updated::is_on_trial(), "a release is on trial: wait until it has proved itself");
    if let Some(refusal) = disk.refusal(install::needed(stick.table())) {
        bail!("{disk}: {refusal}");
    }
    // From here on asked for, not obeyed at once: `system` is to become writable again.
    let mut signals = Signals::new(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
    let place = Path::new("/dev").join(&disk.name);
    let target = disks::open(&place)?;
    // Names of disks are given again; what was looked at and agreed to is this disk, and nobody else uses it now.
    let found = disks::again(disk, stick);
    ensure!(found == *disk, "{} is another disk than before: {found}, on it {}", disk.name, found.contents);
    let _still = stick::Still::hold()?;
    let growth = install::plan(stick.table(), kontor_sys::block::size(&target)?, id)?;
    let plan = Plan { parts: parts(stick)?, growth, boot_sector: boot_sector(stick)? };
    report.phase(&format!("installing to {disk}"));
    report.disk(&disk.name);
    let installed = copy::install(&plan, &target, &mut |what, done, total| {
        ensure!(signals.next().is_none(), "interrupted");
        report.progress(what, done, total);
        Ok(())
    });
    installed.with_context(|| format!("{} holds nothing that boots", disk.name))
}

/// What goes where.
fn parts(stick: &Disk) -> anyhow::Result<Vec<Part>> {
    let booted = booted_slot().context("the kernel command line names no slot")?;
    let state = BootStateFile::open(&stick.partition(PartitionKind::BootState)?)?;
    let state = state.read().context("boot state")?.unwrap_or(BootState::fresh());
    let source = |kind, fill| -> anyhow::Result<copy::Source> {
        Ok(match fill {
            Fill::Copy => {
                let node = stick.partition(kind)?;
                copy::Source::Device(File::open(&node).with_context(|| node.display().to_string())?)
            }
            Fill::BootState => copy::Source::Bytes(bootstate(&state.of_installed(booted))),
            Fill::Seed => copy::Source::Bytes(office::seed(stick)?),
            Fill::Fresh => copy::Source::Bytes(Vec::new()),
        })
    };
    let parts = install::parts(stick.table()).into_iter();
    parts
        .map(|(kind, offset, length, fill)| {
            Ok(Part { name: kind.name(), offset, length, source: source(kind, fill)? })
        })
        .collect()
}

/// With the boot code in it.
fn boot_sector(stick: &Disk) -> anyhow::Result<[u8; SECTOR as usize]> {
    let mut sector = [0; SECTOR as usize];
    let file = File::open(stick.device());
    file.and_then(|mut file| file.read_exact(&mut sector))
        .with_context(|| stick.device().display().to_string())?;
    Ok(sector)
}

/// Says in the status that a box which runs from a stick could be installed.
pub(crate) fn offer(disk: &Disk) {
    if !disk.is_stick() {
        return;
    }
    let disks = disks::all(disk);
    let possible: Vec<String> = target::offer(&disks, install::needed(disk.table()))
        .into_iter()
        .map(|disk| format!("`install {}` puts it on {disk}", disk.name))
        .collect();
    if !possible.is_empty() {
        Report::new().phase(&format!("this box runs from a stick; {}", possible.join(", ")));
    }
}
