//! Runs at each boot, when the disk is there: finds out from journal and boot state what this boot is, and judges a release
//! that has just been written.
//!
//! If it fails itself, PID 1 restarts the box without giving the try back, and the boot loader goes back to the other slot.

use std::time::Duration;

use anyhow::Context as _;
use kontor_boot::Slot;
use kontor_status::paths::{self, Paths};
use kontor_update::health::{COMPONENT, TUNNEL};
use kontor_update::journal::{Boot, OnTrial};
use kontor_update::{Looks, Sentence};

use super::ON_TRIAL;
use super::slots::{OwnDisk, slots};
use super::store;
use super::{facts, install, observe, relief};
use crate::ctl::control;
use crate::ctl::snapshot::Snapshot;
use crate::init::now;
use crate::storage;

/// Looked at this often.
const EVERY: Duration = Duration::from_secs(1);
/// What is written when the boot loader has given a release up that never came to be judged.
const NEVER_JUDGED: &str = "it was booted and never got as far as its own trial: the kernel or process 1 failed, found no disk, or hung and was \
                            reset by the watchdog";
const UNDER_TRIAL: &str = "the machine was reset, or switched off, while it was being judged";

pub(super) fn run() -> anyhow::Result<()> {
    let Ok(mut disk) = OwnDisk::open() else {
        eprintln!("no disk: nothing is on trial");
        return Ok(());
    };
    // Without a journal or a boot state nothing is known of a trial, and the slot is judged as any other.
    let Ok(journal) = store::load().inspect_err(|error| eprintln!("error: {error:#}")) else { return Ok(()) };
    let Some(trial) = journal.trial.clone() else { return Ok(()) };
    let Ok(state) = disk.state().inspect_err(|error| eprintln!("error: {error:#}")) else { return Ok(()) };
    let at = store::now();
    let noted = match journal.after_boot(slots(disk.booted, &state)) {
        Boot::Ordinary => Ok(()),
        Boot::Interrupted => store::change(|journal| journal.interrupted(at)),
        Boot::Proven => store::change(|journal| journal.succeed(at)),
        Boot::FellBack => fell_back(&mut disk, &trial),
        // An error of these two restarts the box.
        Boot::Condemned => return give_up(&mut disk, &trial),
        Boot::Trial => return judge(&mut disk, &trial),
    };
    // What runs here is not on trial: that it cannot be written down is no reason to restart it.
    noted.or_else(|error| {
        eprintln!("error: {error:#}");
        Ok(())
    })
}

/// The other slot runs again: remembered, and the failed one cannot be chosen any more, however often this one is restarted.
fn fell_back(disk: &mut OwnDisk, trial: &OnTrial) -> anyhow::Result<()> {
    // Before anything is to be written there.
    match relief::relieve(paths::STATE.as_ref(), &trial.large) {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => {
            eprintln!("error: release {} had filled state; removed: {}", trial.version, removed.join(", "));
        }
        Err(error) => eprintln!("error: state is full, and no room can be made: {error:#}"),
    }
    let otherwise = if trial.judged { UNDER_TRIAL } else { NEVER_JUDGED };
    // First, so that the next boot knows it for what it is whatever the boot state says then.
    if trial.verdict.is_none() {
        store::change(|journal| journal.condemn(otherwise))?;
    }
    if let Some(slot) = Slot::from_letter(&trial.slot)
        && slot != disk.booted
    {
        disk.invalidate(slot)?;
    }
    eprintln!("error: release {} did not work; {} runs again", trial.version, trial.from);
    store::change(|journal| journal.fail(store::now(), otherwise))
}

pub(super) fn give_up(disk: &mut OwnDisk, trial: &OnTrial) -> anyhow::Result<()> {
    std::fs::write(ON_TRIAL, "").context(ON_TRIAL)?;
    let reason = trial.verdict.as_deref().unwrap_or_default();
    eprintln!("error: release {} does not work, back to {}: {reason}", trial.version, trial.from);
    disk.invalidate(disk.booted)?;
    control::ask(&Paths::default().init_socket(), "reboot").context("cannot restart")?;
    Ok(())
}

fn judge(disk: &mut OwnDisk, trial: &OnTrial) -> anyhow::Result<()> {
    std::fs::write(ON_TRIAL, "").context(ON_TRIAL)?;
    eprintln!("release {} is on trial: what worked with {} has to work", trial.version, trial.from);
    store::change(|journal| journal.trial.iter_mut().for_each(|trial| trial.judged = true))?;
    let paths = Paths::default();
    let components: Vec<String> =
        install::shipped().into_iter().map(|shipped| shipped.manifest.name).collect();
    let mut looks = Looks::default();
    loop {
        let name = facts::own_name(&paths);
        let mut seen = observe::look(&Snapshot::take(&paths), &components, name.as_deref());
        // Components that this release does not have any more, and tunnels that the site does not.
        let tunnels = facts::kept_tunnels(&paths);
        let is_gone = |name: &&str| {
            let is_missing = |all: &[String], name: &str| !all.iter().any(|one| one == name);
            let tunnel = name.strip_prefix(TUNNEL).zip(tunnels.as_ref());
            name.strip_prefix(COMPONENT).is_some_and(|name| is_missing(&components, name))
                || tunnel.is_some_and(|(name, tunnels)| is_missing(tunnels, name))
        };
        seen.unknown = trial.before.names().filter(is_gone).map(str::to_owned).collect();
        match looks.add(now(), kontor_update::judge(&trial.before, &seen)) {
            Sentence::Good => return succeed(disk),
            Sentence::Undecided => {}
            Sentence::Bad(missing) => {
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
    // An operator may have gone back meanwhile.
    if let Some(reason) = store::load()?.trial.and_then(|on_trial| on_trial.verdict) {
        eprintln!("slot {} works, but was given up: {reason}", disk.booted);
        return Ok(());
    }
    let state = disk.mark_good()?;
    eprintln!("slot {} is good: everything that worked before works", disk.booted);
    // The slot is good: what cannot be written down now is found out at the next boot.
    let noted = store::change(|journal| journal.succeed(store::now())).and(storage::show_good(state.tries));
    noted.or_else(|error| {
        eprintln!("error: {error:#}");
        Ok(())
    })
}
