//! Runs at each boot, when the disk is there: finds out from journal and boot state what this boot is, and judges a release
//! that has just been written.
//!
//! If it fails itself, PID 1 restarts the box without giving the try back, and the boot loader goes back to the other slot.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use kontor_boot::Slot;
use kontor_status::paths::Paths;
use kontor_update::Verdict;
use kontor_update::journal::{Boot, OnTrial};

use super::slots::{OwnDisk, slots};
use super::store;
use super::{facts, install, observe};
use crate::ctl::control;
use crate::ctl::snapshot::Snapshot;
use crate::storage;

/// Looked at this often.
const EVERY: Duration = Duration::from_secs(1);
/// Everything must have worked for so long without a break: a daemon that starts, serves and dies is not one that works.
const STEADY: Duration = Duration::from_secs(10);
/// What is written when the boot loader has given a release up that never came to be judged.
const NEVER_JUDGED: &str = "it was booted and never got as far as its own trial: the kernel or process 1 failed, or hung and was \
                            reset by the watchdog";
const UNDER_TRIAL: &str = "the machine was reset, or switched off, while it was being judged";

pub(super) fn run() -> anyhow::Result<()> {
    let Ok(mut disk) = OwnDisk::open() else {
        eprintln!("no disk: nothing is on trial");
        return Ok(());
    };
    let journal = store::load()?;
    let Some(trial) = journal.trial.clone() else { return Ok(()) };
    let state = disk.state()?;
    let now = store::now();
    match journal.after_boot(slots(disk.booted, &state)) {
        Boot::Ordinary => Ok(()),
        Boot::Interrupted => store::change(|journal| journal.interrupted(now)),
        Boot::Proven => store::change(|journal| journal.succeed(now)),
        Boot::FellBack => fell_back(&mut disk, &trial),
        Boot::Condemned => give_up(&mut disk, &trial),
        Boot::Trial => judge(&mut disk, &trial),
    }
}

/// The other slot runs again: remembered, and the failed one cannot be chosen any more, however often this one is restarted.
fn fell_back(disk: &mut OwnDisk, trial: &OnTrial) -> anyhow::Result<()> {
    if let Some(slot) = Slot::from_letter(&trial.slot)
        && slot != disk.booted
    {
        disk.invalidate(slot)?;
    }
    let otherwise = if trial.judged { UNDER_TRIAL } else { NEVER_JUDGED };
    eprintln!("error: release {} did not work; {} runs again", trial.version, trial.from);
    store::change(|journal| journal.fail(store::now(), otherwise))
}

fn give_up(disk: &mut OwnDisk, trial: &OnTrial) -> anyhow::Result<()> {
    let reason = trial.verdict.as_deref().unwrap_or_default();
    eprintln!("error: release {} does not work, back to {}: {reason}", trial.version, trial.from);
    disk.invalidate(disk.booted)?;
    control::ask(&Paths::default().init_socket(), "reboot").context("cannot restart")?;
    Ok(())
}

fn judge(disk: &mut OwnDisk, trial: &OnTrial) -> anyhow::Result<()> {
    eprintln!("release {} is on trial: what worked with {} has to work", trial.version, trial.from);
    store::change(|journal| journal.trial.iter_mut().for_each(|trial| trial.judged = true))?;
    let paths = Paths::default();
    let components: Vec<String> =
        install::shipped().into_iter().map(|shipped| shipped.manifest.name).collect();
    let mut well_since: Option<Instant> = None;
    loop {
        let name = facts::own_name(&paths);
        let seen = observe::look(&Snapshot::take(&paths), &components, name.as_deref());
        match kontor_update::judge(&trial.before, &seen) {
            Verdict::Good => {
                if well_since.get_or_insert_with(Instant::now).elapsed() >= STEADY {
                    return succeed(disk);
                }
            }
            Verdict::Wait(_) => well_since = None,
            Verdict::Bad(missing) => {
                let reason = format!("after {} s these do not work: {}", seen.uptime_s, missing.join(", "));
                store::change(|journal| journal.condemn(&reason))?;
                let condemned = OnTrial { verdict: Some(reason), ..trial.clone() };
                return give_up(disk, &condemned);
            }
        }
        std::thread::sleep(EVERY);
    }
}

fn succeed(disk: &mut OwnDisk) -> anyhow::Result<()> {
    let state = disk.mark_good()?;
    eprintln!("slot {} is good: everything that worked before works", disk.booted);
    store::change(|journal| journal.succeed(store::now()))?;
    storage::show_good(state.tries)
}
