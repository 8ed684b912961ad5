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

/// Until the next look when nothing could be seen, or something is soon put right.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// Looks until it is told to end; a look that sees nothing changes nothing. It counts as ready at once: nobody waits for what it
/// does.
///
/// # Errors
/// The kernel's.
pub(super) fn repeat(look: impl Fn() -> Option<Findings>) -> anyhow::Result<()> {
    let mut signals = Signals::new(&[Signal::SIGTERM])?;
    let notifier = Notifier::from_environment();
    notifier.ready();
    let mut said = Findings::default();
    loop {
        let mut pause = AGAIN;
        if let Some(now) = look() {
            now.lines.difference(&said.lines).for_each(|line| println!("{line}"));
            if now.status != said.status {
                notifier.status(&now.status);
            }
            pause = now.pause;
            said = now;
        }
        let timeout = PollTimeout::try_from(pause.as_millis()).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout);
        if signals.next().is_some() {
            return Ok(());
        }
    }
}
