//! A running QEMU in the foreground: its output, its end, and the signals that end it.
//!
//! However `cargo xtask run` ends, QEMU ends before it: Ctrl-C reaches both (one process group), SIGTERM and
//! SIGHUP are passed on, and dropping the session kills it.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// How long QEMU may take to end after it was told to.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks at whether QEMU ended: any other thread of ours may swallow its SIGCHLD.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// A running QEMU.
#[derive(Debug)]
pub struct Session {
    child: Child,
    output: Option<ChildStdout>,
    signals: SignalFd,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// QEMU wrote this; it has been shown already.
    Output(Vec<u8>),
    /// QEMU ended without an error.
    End,
    /// The deadline passed.
    Timeout,
}

impl Session {
    /// Starts QEMU; when `watched`, its output is shown and given to the caller, and nothing can be typed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, watched: bool) -> Result<Self> {
        let set: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect();
        set.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&set, flags).context("make a signalfd")?;
        if watched {
            command.stdin(Stdio::null()).stdout(Stdio::piped());
        }
        let mut child = command.spawn().context("start QEMU")?;
        let output = child.stdout.take();
        Ok(Self { child, output, signals })
    }

    /// Whether QEMU still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until QEMU ends by itself or by a signal.
    ///
    /// # Errors
    /// When QEMU fails.
    pub fn until_end(&mut self) -> Result<()> {
        // Far away: there is no limit.
        let deadline = Instant::now() + Duration::from_secs(86_400 * 365);
        while !matches!(self.next(deadline)?, Event::End) {}
        Ok(())
    }

    /// The next thing that happens.
    ///
    /// # Errors
    /// When QEMU fails, or a signal asks us to end.
    pub fn next(&mut self, deadline: Instant) -> Result<Event> {
        loop {
            if let Some(signal) = self.pending_signal() {
                self.end();
                bail!("stopped by {signal}");
            }
            if let Some(bytes) = self.read_output()? {
                return Ok(Event::Output(bytes));
            }
            if let Some(status) = self.child.try_wait()? {
                return if status.success() { Ok(Event::End) } else { bail!("QEMU ended with {status}") };
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Event::Timeout);
            }
            self.wait(deadline - now)?;
        }
    }

    fn pending_signal(&mut self) -> Option<Signal> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()?;
            if signal != Signal::SIGCHLD {
                return Some(signal);
            }
        }
        None
    }

    /// What waits in the output pipe, shown on our standard output.
    fn read_output(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(output) = &mut self.output else { return Ok(None) };
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).unwrap_or(0) == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; 4096];
        let count = output.read(&mut buffer).context("read QEMU's output")?;
        buffer.truncate(count);
        if count == 0 {
            self.output = None;
            return Ok(None);
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&buffer).and_then(|()| stdout.flush()).context("show QEMU's output")?;
        Ok(Some(buffer))
    }

    fn wait(&self, limit: Duration) -> Result<()> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(output) = &self.output {
            fds.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::try_from(limit.min(MAX_WAIT)).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("wait for QEMU"),
        }
    }

    /// Ends QEMU: politely, so that it puts the terminal back, then by force.
    fn end(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = Instant::now() + END_LIMIT;
        while self.is_running() && Instant::now() < deadline {
            let _ = self.wait(Duration::from_millis(100));
            let _ = self.pending_signal();
            let _ = self.read_output();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_running() {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Session {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Session::start(command, true).unwrap()
    }

    #[test]
    fn output_comes_before_the_end() {
        let mut session = start("printf abc");
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut text = Vec::new();
        while let Event::Output(bytes) = session.next(deadline).unwrap() {
            text.extend(bytes);
        }
        assert_eq!(text, b"abc");
    }

    #[test]
    fn failure_and_deadline_are_told_apart() {
        let mut failing = start("exit 3");
        assert!(failing.next(Instant::now() + Duration::from_secs(20)).is_err());
        let mut lasting = start("exec tail -f /dev/null");
        assert!(matches!(lasting.next(Instant::now()), Ok(Event::Timeout)));
        drop(lasting);
    }
}
