//! An operator goes back to the release in the other slot.
//!
//! What the box keeps is as that release can read it, because it could have been booted at any time
//! (`firmware/migrate/src/plan.rs`): nothing has to be changed first.

use anyhow::{Context as _, ensure};
use kontor_status::paths::Paths;
use kontor_update::Facts;
use kontor_update::journal::OnTrial;

use super::slots::OwnDisk;
use super::{store, trial};
use crate::ctl::control;
use crate::storage::Schema;

const ASKED: &str = "an operator has gone back to the release before it";

/// Restarts the box into the other slot; what runs is not installed again unasked.
///
/// # Errors
/// When there is nothing to go back to, or it must not run any more.
pub(super) fn go_back(running: &Facts) -> anyhow::Result<()> {
    let mut disk = OwnDisk::open()?;
    let journal = store::load()?;
    if let Some(on_trial) = journal.trial.filter(|on_trial| on_trial.slot == disk.booted.letter()) {
        store::change(|journal| journal.condemn(ASKED))?;
        return trial::give_up(&mut disk, &OnTrial { verdict: Some(ASKED.to_owned()), ..on_trial });
    }
    let other = disk.booted.other();
    ensure!(
        disk.state()?.good[other.index()],
        "slot {other} holds no release that has worked on this box: there is nothing to go back to"
    );
    let schema = Schema::of(store::JOURNAL.as_ref()).context("the schema of the state")?.number();
    let reads = journal.reads.get(other.letter()).copied();
    ensure!(
        reads.is_none_or(|reads| reads.contains(schema)),
        "rule state schema: what this box keeps has schema {schema}, which the release in slot {other} does not read"
    );
    let (ours, theirs) = (running.security_epoch, journal.epochs.get(other.letter()).copied());
    ensure!(
        theirs.is_none_or(|theirs| theirs >= ours),
        "rule security epoch: what runs has {ours}, the release in slot {other} has less"
    );
    store::change(|journal| journal.go_back(store::now(), running.version, ASKED))?;
    disk.return_to(other)?;
    control::ask(&Paths::default().init_socket(), "reboot").context("cannot restart")?;
    Ok(())
}
