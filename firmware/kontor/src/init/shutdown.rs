//! The end: when the services have stopped (or have had their time), down to the last system call.

use std::time::Duration;

use kontor_status::paths;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::hardware::Hardware;
use super::kmsg;

/// All services together have this long, whatever their own deadlines add up to.
const BUDGET: Duration = Duration::from_secs(20);
/// How long the clock and the slot's try may take to be saved before the services are stopped.
const LEAVE_BUDGET: Duration = Duration::from_secs(5);
/// How long killed processes may take to vanish.
const REAP_ROUNDS: u32 = 40;
const REAP_PAUSE: Duration = Duration::from_millis(50);

/// What comes after the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Start again.
    Reboot,
    /// Power off.
    PowerOff,
}

/// An orderly end under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shutdown {
    /// What comes after.
    pub(super) action: Action,
    /// When the services are stopped at the latest; nothing once they are being stopped.
    pub(super) stop_at: Option<Duration>,
    /// When whatever is left is killed.
    pub(super) deadline: Duration,
}

impl Shutdown {
    /// Begun at `now`.
    pub(super) fn new(now: Duration, action: Action) -> Self {
        Self { action, stop_at: Some(now + LEAVE_BUDGET), deadline: now + BUDGET }
    }

    /// The next moment something is due.
    pub(super) fn poll_timeout(&self) -> Duration {
        self.stop_at.unwrap_or(self.deadline)
    }
}

/// Kills what is left, unmounts, and ends. The watchdog stays armed until the disks are safe: a disk that
/// hangs in `sync` must not keep the box half dead.
pub(super) fn finish(action: Action, hardware: &mut Hardware) -> ! {
    kill_all();
    nix::unistd::sync();
    for target in [paths::DATA, "/system", paths::STATE] {
        unmount(target);
    }
    hardware.disarm();
    let mode = match action {
        Action::Reboot => RebootMode::RB_AUTOBOOT,
        Action::PowerOff => RebootMode::RB_POWER_OFF,
    };
    loop {
        let Err(error) = reboot(mode);
        kmsg::error(&format!("cannot {action:?}: {error}"));
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn kill_all() {
    let everyone = Pid::from_raw(-1);
    // No such process: everything has ended already.
    if let Err(error) = kill(everyone, Signal::SIGKILL)
        && error != Errno::ESRCH
    {
        kmsg::error(&format!("cannot kill the remaining processes: {error}"));
    }
    for _ in 0..REAP_ROUNDS {
        match waitpid(everyone, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(REAP_PAUSE),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn unmount(target: &str) {
    let Err(error) = umount2(target, MntFlags::empty()) else { return };
    // EINVAL: it is not mounted.
    if error == Errno::EINVAL || error == Errno::ENOENT {
        return;
    }
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    if let Err(remount) = mount(None::<&str>, target, None::<&str>, read_only, None::<&str>) {
        kmsg::error(&format!("cannot unmount {target}: {error}; nor make it read-only: {remount}"));
    }
}
