//! What must have happened before a component's services may start: a domain made or joined, once.
//!
//! A process of its own inside the component, so that process 1 stays free for signals. When it fails, no service starts.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use kontor_sys::signal::Signals;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::runner::environment;
use super::{office, samba};

/// The subcommand that is this process.
pub(super) const ARGUMENT: &str = "setup";

/// Starts the process and waits for it, reaping whatever else ends; false when the component is to end.
///
/// # Errors
/// When it fails: it has said why.
pub(super) fn before_services(component: &str, signals: &mut Signals) -> anyhow::Result<bool> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["component", ARGUMENT, component]).stdin(Stdio::null());
    command.env_clear().envs(environment());
    let child = command.spawn().context("cannot start the preparation")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // An error is EINTR: the signals are looked at anyway.
        let _ = poll(&mut fds, PollTimeout::NONE);
        for signal in signals.by_ref() {
            if signal != Signal::SIGCHLD {
                // With this process everything in here ends; the next start clears what was left half-made.
                return Ok(false);
            }
        }
        if let Some(success) = reap(pid) {
            return if success { Ok(true) } else { bail!("its preparation failed; no service was started") };
        }
    }
}

/// Whether the process has ended, and well.
fn reap(wanted: Pid) -> Option<bool> {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == wanted => return Some(code == 0),
            Ok(WaitStatus::Signaled(pid, ..)) if pid == wanted => return Some(false),
            Ok(WaitStatus::StillAlive) => return None,
            Err(_) => return Some(false),
            Ok(_) => {}
        }
    }
}

/// The process itself: `setup NAME`.
pub(super) fn run(args: &[String]) -> anyhow::Result<()> {
    let site = office::site_inside()?;
    match args {
        [name] if name == samba::NAME => samba::prepare(&site),
        _ => bail!("only a component's process 1 starts this"),
    }
}
