//! chronyd as a child process: started, asked to stop, and killed when it does not.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use kontor_sys::child_signals::unblock_in_child;
use kontor_sys::signal::Signals;

/// chronyd writes its drift file when it ends; on a slow disk that takes a moment.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// How chronyd is called.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Its user's name: it looks the user up even when there is nothing left to change to.
    pub(crate) user: String,
    /// Leaves the clock alone (`-x`), for trials.
    pub(crate) dry: bool,
}

/// A running chronyd.
#[derive(Debug)]
pub(crate) struct Chronyd(Child);

impl Chronyd {
    /// Starts it in the foreground with the configuration `conf`; it logs to our standard error.
    ///
    /// `-U`: we are no longer root, and need not be: the capabilities come with us. Never `-s`, which steps
    /// the clock to the time stamp of the drift file: one from a day when the clock said 2099 would bring
    /// that back at every start. `storage` keeps the last known time.
    pub(crate) fn start(program: &Program, conf: &Path) -> io::Result<Self> {
        let mut command = Command::new(&program.path);
        command.args(["-d", "-U", "-u", &program.user, "-f"]).arg(conf).stdin(Stdio::null());
        if program.dry {
            command.arg("-x");
        }
        unblock_in_child(&mut command).spawn().map(Self)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Asks it to end, and makes it end. `signals` must deliver SIGCHLD; others are left for the caller,
    /// who gets those that arrived meanwhile.
    pub(crate) fn stop(mut self, signals: &mut Signals) -> io::Result<Vec<Signal>> {
        let mut arrived = Vec::new();
        let pid = i32::try_from(self.0.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let start = Instant::now();
        while self.ended()?.is_none() {
            let left = STOP_LIMIT.saturating_sub(start.elapsed());
            if left.is_zero() {
                eprintln!("chronyd does not end: killed");
                self.0.kill()?;
                self.0.wait()?;
                break;
            }
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(signals), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            arrived.extend(signals.by_ref().filter(|signal| *signal != Signal::SIGCHLD));
        }
        Ok(arrived)
    }
}

impl Drop for Chronyd {
    fn drop(&mut self) {
        // After `stop` there is nothing left; on an error's way out nothing may be left either.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
