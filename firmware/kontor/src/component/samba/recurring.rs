//! What is looked at again and again while Samba runs: new findings are logged once, what is wrong now is for `status`.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::Duration;

use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

/// What one look has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// For the log, a line each.
    pub(super) lines: BTreeSet<String>,
    /// For an operator who looks at the box; empty when all is well.
    pub(super) status: String,
    /// Until the next look.
    pub(super) pause: Duration,
}

/// Looks until it is told to end. It counts as ready at once: nobody waits for what it does.
///
/// # Errors
/// The kernel's.
pub(super) fn repeat(look: impl Fn() -> Findings) -> anyhow::Result<()> {
    let mut signals = Signals::new(&[Signal::SIGTERM])?;
    let notifier = Notifier::from_environment();
    notifier.ready();
    let mut said = Findings::default();
    loop {
        let now = look();
        now.lines.difference(&said.lines).for_each(|line| println!("{line}"));
        if now.status != said.status {
            notifier.status(&now.status);
        }
        let timeout = PollTimeout::try_from(now.pause.as_millis()).unwrap_or(PollTimeout::MAX);
        said = now;
        let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout);
        if signals.next().is_some() {
            return Ok(());
        }
    }
}
