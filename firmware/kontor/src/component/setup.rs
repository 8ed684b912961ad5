//! What must have happened before a component's services may start: a domain made or joined, once.
//!
//! A process of its own inside the component, so that process 1 stays free for signals. When it fails, no service starts.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use kontor_component::Manifest;
use kontor_supervise::{Exit, Message};
use kontor_sys::notify_socket::NotifySocket;
use kontor_sys::signal::Signals;
use kontor_sys::spawn::confine;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::capabilities::capabilities_of_tools;
use super::runner::{NOTIFY_SOCKET, environment};
use super::{migration, office, samba};
use crate::init::next_exit;

/// The subcommand that is this process.
pub(super) const ARGUMENT: &str = "setup";
/// Where that process has the directory of the component's state, which has no path in there.
const STATE: &str = "/proc/self/fd/0";

/// Starts the process and waits for it, reaping whatever else ends; false when the component is to end.
///
/// The process holds `lock` as well: should process 1 be killed, nobody else begins while it is still there.
///
/// # Errors
/// When it fails: it has said why.
pub(super) fn before_services(
    manifest: &Manifest,
    lock: &File,
    signals: &mut Signals,
    notify: &NotifySocket,
    channel: &UnixStream,
) -> anyhow::Result<bool> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["component", ARGUMENT, &manifest.name]).stdin(lock.try_clone()?);
    command.env_clear().envs(environment()).env("NOTIFY_SOCKET", NOTIFY_SOCKET);
    confine(&mut command, &capabilities_of_tools(manifest)?);
    let child = command.spawn().context("cannot start the preparation")?;
    loop {
        let wanted = [signals.as_fd(), channel.as_fd(), notify.as_fd()];
        let mut fds = wanted.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // An error is EINTR: everything is looked at anyway.
        let _ = poll(&mut fds, PollTimeout::NONE);
        let is_alone = fds[1].any().unwrap_or(false);
        // With process 1 everything in here ends; the next start clears what was left half-made.
        if is_alone || signals.by_ref().any(|signal| signal != Signal::SIGCHLD) {
            return Ok(false);
        }
        pass_on(notify, channel);
        if let Some(success) = reap(child.id()) {
            return if success { Ok(true) } else { bail!("its preparation failed; no service was started") };
        }
    }
}

/// What the preparation says of itself: it may wait for a person, or for headquarters.
fn pass_on(notify: &NotifySocket, mut channel: &UnixStream) {
    while let Ok(Some((_, datagram))) = notify.next() {
        for message in Message::parse(&datagram) {
            let said = match message {
                Message::Status(text) => format!("STATUS={text}\n"),
                Message::Extend(by) => format!("EXTEND_TIMEOUT_USEC={}\n", by.as_micros()),
                Message::Ready | Message::Watchdog => continue,
            };
            // The outside that is gone is seen in the next round.
            let _ = channel.write_all(said.as_bytes());
        }
    }
}

/// Whether the process has ended, and well; whatever else has ended is reaped.
fn reap(wanted: u32) -> Option<bool> {
    std::iter::from_fn(next_exit).find(|(pid, _)| *pid == wanted).map(|(_, exit)| exit == Exit::Code(0))
}

/// The process itself: `setup NAME`. Its standard input is the directory of the component's state.
pub(super) fn run(args: &[String]) -> anyhow::Result<()> {
    let note = Path::new(STATE).join(migration::NOTE);
    migration::migrate(&super::manifest(Path::new("/"))?, &note, run_command)?;
    let site = office::site_inside()?;
    match args {
        [name] if name == samba::NAME => samba::prepare(&site),
        _ => bail!("only a component's process 1 starts this"),
    }
}

fn run_command(words: &[String]) -> anyhow::Result<()> {
    let (program, arguments) = words.split_first().context("no command")?;
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).status();
    let status = status.with_context(|| program.clone())?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}
