//! PID 1's loop: events in, the supervisor's orders out.
//!
//! It owns every descriptor and never blocks in any of them. What a service writes is only cut into lines,
//! never interpreted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use kontor_status::{InitStatus, ServiceState, ServiceStatus, paths};
use kontor_supervise::{Exit, Id, Message, Output, SignalKind, State, Supervisor};
use kontor_sys::cgroup::{self, Cgroup};
use kontor_sys::notify_socket::NotifySocket;
use kontor_sys::signal::Signals;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::command::Command;
use super::control::Control;
use super::groups::Groups;
use super::hardware::{EARLY_TICK, Hardware, TICK};
use super::logs::{Errors, Ring, wall_clock};
use super::services::{CLOCK, COMPONENTS, INSTALL, LEAVE, MARK_GOOD, NETD, SITE, STORAGE, Service, TRIAL};
use super::shutdown::{self, Action, Shutdown};
use super::{guarded, kmsg, office, process, stage2};
use crate::{storage, updated};

/// The last known time is kept this often; a box without a clock chip is at most this far behind.
const SAVE_CLOCK_EVERY: Duration = Duration::from_secs(600);
/// Log lines also go to the kernel's log until then, to be found after a boot that went wrong.
const EARLY: Duration = Duration::from_secs(30);
/// Datagrams handled in one turn, so that a flood of them starves nothing else.
const MAX_NOTIFICATIONS: usize = 64;
/// A turn never waits longer than [`TICK`]; one that took this long was not given the processor.
const STALL: Duration = Duration::from_secs(2 * TICK.as_secs());

/// Everything PID 1 has.
pub(super) struct Runner {
    version: String,
    board: String,
    services: Vec<Service>,
    supervisor: Supervisor,
    groups: Groups,
    signals: Signals,
    notify: NotifySocket,
    control: Option<Control>,
    hardware: Hardware,
    pipes: Vec<(Id, File)>,
    rings: Vec<Ring>,
    errors: Errors,
    shutdown: Option<Shutdown>,
    next_tick: Duration,
    last_turn: Duration,
    next_save: Option<Duration>,
    /// Storage finished while `site` was still running: it runs once more, unless it knew the disk by then.
    site_again: bool,
    /// When the supervisor began, until late services have been admitted.
    office_awaited_since: Option<Duration>,
    /// A boot on trial has not found its disk yet: without it nobody judges the release.
    awaits_disk: bool,
}

/// Before, a disk is late and not missing. Storage may take longer to look for it and to mend what is on it, but not for ever.
const DISK_DUE: Duration = Duration::from_secs(60);
const DISK_OVERDUE: Duration = Duration::from_secs(kontor_update::health::GATEWAY_S);

/// What becomes of the try that this boot has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// It comes back if the slot had no time to prove itself.
    InOrder,
    /// It is spent.
    Spent,
}

/// Time since the kernel started.
pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

impl Runner {
    /// Opens the sockets; only what nothing works without is an error.
    pub(super) fn new(version: String, board: String, services: Vec<Service>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(Path::new(paths::RUN).join("init"))?;
        let signals = [
            Signal::SIGCHLD,
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGPWR,
            Signal::SIGHUP,
        ];
        let specs = services.iter().map(|service| service.spec.clone()).collect();
        let seed = u64::try_from(now().as_nanos()).unwrap_or(0);
        let control = Control::bind(Path::new(paths::INIT_SOCKET));
        if let Err(error) = &control {
            kmsg::error(&format!("no control socket: {error}"));
        }
        Ok(Self {
            version,
            board,
            supervisor: Supervisor::new(specs, seed)?,
            groups: Groups::new(&services),
            signals: Signals::new(&signals)?,
            notify: NotifySocket::bind(Path::new(process::NOTIFY_SOCKET))?,
            control: control.ok(),
            hardware: Hardware::default(),
            pipes: Vec::new(),
            rings: services.iter().map(|_| Ring::default()).collect(),
            services,
            errors: Errors::default(),
            shutdown: None,
            next_tick: Duration::ZERO,
            last_turn: now(),
            next_save: None,
            site_again: false,
            office_awaited_since: Some(now()),
            awaits_disk: storage::boots_on_trial(),
        })
    }

    /// Adds a line to the error list.
    pub(super) fn report(&mut self, text: &str) {
        kmsg::error(text);
        self.errors.push(format!("{} {text}", wall_clock()));
    }

    /// One round: timers, orders, then waiting for the next event and handling it.
    pub(super) fn turn(&mut self) {
        let now = now();
        let lost = now.saturating_sub(std::mem::replace(&mut self.last_turn, now));
        if lost >= STALL {
            self.report(&format!("the machine stood still for {} s", lost.as_secs()));
            self.supervisor.forgive(lost);
        }
        self.handle_timers(now);
        self.obey(now);
        self.wait();
        let now = self::now();
        self.take_signals(now);
        self.take_notifications(now);
        self.take_logs(now);
        self.reap(now);
        self.obey(now);
        self.take_commands(now);
        if self.hardware.power_pressed() {
            self.begin_shutdown(now, Action::PowerOff, "power button", Leave::InOrder);
        }
    }

    fn handle_timers(&mut self, now: Duration) {
        self.supervisor.handle_timeout(now);
        if now >= self.next_tick {
            // Drivers come in the first seconds; a button pressed before it is watched is pressed in vain.
            self.next_tick = now + if now < EARLY { EARLY_TICK } else { TICK };
            self.hardware.tick(self.supervisor.health().feeds_watchdog(now));
            self.stop_runaways(now);
        }
        if self.late_at().is_some_and(|at| now >= at) {
            self.office_awaited_since = None;
            for problem in guarded(stage2::complete).unwrap_or_default() {
                self.report(&problem);
            }
            self.supervisor.admit_late(now);
        }
        if self.next_save.is_some_and(|at| now >= at) {
            self.next_save = Some(now + SAVE_CLOCK_EVERY);
            self.run_again(now, CLOCK);
        }
        let due = if self.storage_has_ended() { DISK_DUE } else { DISK_OVERDUE };
        if self.awaits_disk && now >= due {
            self.awaits_disk = false;
            if !storage::is_mounted(paths::STATE) {
                let why = "on trial, and no disk by which it could be judged";
                self.begin_shutdown(now, Action::Reboot, why, Leave::Spent);
            }
        }
        match self.shutdown {
            Some(shutdown) if now >= shutdown.deadline => self.finish(shutdown.action),
            Some(Shutdown { stop_at: Some(at), .. }) if now >= at => self.stop_services(now),
            _ => {}
        }
    }

    /// When late services are admitted: a moment after the LAN is configured, or when the office has been waited for long enough.
    fn late_at(&self) -> Option<Duration> {
        let limit = self.office_awaited_since.filter(|_| self.shutdown.is_none())? + office::LIMIT;
        match self.supervisor.find(NETD).map(|netd| self.supervisor.state(netd)) {
            Some(State::Running { since, .. }) => Some(limit.min(since + office::GRACE)),
            _ => Some(limit),
        }
    }

    fn stop_runaways(&mut self, now: Duration) {
        for (id, reason) in self.groups.runaways() {
            self.supervisor.condemn(now, id, &reason);
        }
        if let Some(reason) = self.groups.stop_runaway_shell() {
            self.report(&reason);
        }
    }

    fn wait(&self) {
        let deadlines =
            [self.supervisor.poll_timeout(), self.late_at(), self.next_save, Some(self.next_tick)];
        let control = self.control.as_ref().and_then(Control::poll_timeout);
        let shutdown = self.shutdown.as_ref().map(Shutdown::poll_timeout);
        let next = deadlines.into_iter().chain([control, shutdown]).flatten().min().unwrap_or(TICK);
        // Rounded up: waking a fraction early would spin until the deadline.
        let wait_ms = next.saturating_sub(now()).as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(wait_ms.min(TICK.as_millis())).unwrap_or(PollTimeout::ZERO);
        let fixed = [self.signals.as_fd(), self.notify.as_fd()];
        let pipes = self.pipes.iter().map(|(_, pipe)| pipe.as_fd());
        let readers = fixed.into_iter().chain(pipes).chain(self.hardware.interests());
        let mut fds: Vec<PollFd> = readers.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let control = self.control.as_ref().map(Control::interests).unwrap_or_default();
        fds.extend(control.into_iter().map(|(fd, flags)| PollFd::new(fd, flags)));
        // An error is EINTR or no memory: the next turn looks at everything anyway.
        let _ = poll(&mut fds, timeout);
    }

    fn take_signals(&mut self, now: Duration) {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::SIGINT => self.begin_shutdown(now, Action::Reboot, "Ctrl-Alt-Del", Leave::InOrder),
                // What busybox's `reboot`, `halt` and `poweroff` send to PID 1.
                Signal::SIGTERM => self.begin_shutdown(now, Action::Reboot, signal.as_str(), Leave::InOrder),
                Signal::SIGUSR1 | Signal::SIGUSR2 | Signal::SIGPWR => {
                    self.begin_shutdown(now, Action::PowerOff, signal.as_str(), Leave::InOrder)
                }
                Signal::SIGHUP => self.supervisor.reload(),
                _ => {}
            }
        }
    }

    fn take_notifications(&mut self, now: Duration) {
        for _ in 0..MAX_NOTIFICATIONS {
            let Ok(Some((pid, datagram))) = self.notify.next() else { return };
            let main = u32::try_from(pid).ok().and_then(|pid| self.supervisor.find_pid(pid));
            let by_group = || cgroup::service_of(pid).and_then(|name| self.supervisor.find(&name));
            if let Some(id) = main.or_else(by_group) {
                Message::parse(&datagram)
                    .for_each(|message| self.supervisor.handle_message(now, id, message));
            }
        }
    }

    fn take_logs(&mut self, now: Duration) {
        let mut pipes = std::mem::take(&mut self.pipes);
        pipes.retain_mut(|(id, pipe)| self.take_log(now, *id, pipe));
        pipes.append(&mut self.pipes);
        self.pipes = pipes;
    }

    /// False when the pipe has come to its end.
    fn take_log(&mut self, now: Duration, id: Id, pipe: &mut File) -> bool {
        let mut buffer = [0; 8192];
        let length = match pipe.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => {
                return error.kind() == io::ErrorKind::WouldBlock
                    || error.kind() == io::ErrorKind::Interrupted;
            }
        };
        let stamp = wall_clock();
        let name = self.services[id].spec.name;
        for line in self.rings[id].feed(now, &stamp, &buffer[..length]) {
            if now < EARLY {
                kmsg::info(&format!("{name}: {}", line.text));
            }
            if line.is_problem {
                self.errors.push(format!("{stamp} {name}: {}", line.text));
            }
        }
        true
    }

    fn reap(&mut self, now: Duration) {
        while let Some((pid, exit)) = next_exit() {
            // What it wrote last explains why it ended: keep it before the end is reported.
            self.take_logs(now);
            let exit = self.supervisor.find_pid(pid).map_or(exit, |id| self.groups.explain(id, exit));
            self.supervisor.handle_exit(now, pid, exit);
        }
    }

    fn obey(&mut self, now: Duration) {
        while let Some(output) = self.supervisor.poll_output() {
            match output {
                Output::Spawn(id) => self.spawn(now, id),
                Output::Signal(_, pid, signal) => send(pid, signal),
                // Fails when the group is gone: then nobody is left to kill.
                Output::Kill(id) => drop(Cgroup::of(self.services[id].spec.name).kill()),
                Output::Finished { id, success } => self.finished(now, id, success),
                Output::Failure { id, reason } => {
                    let line = format!("{}: {reason}", self.services[id].spec.name);
                    self.rings[id].push(format!("{} {reason}", wall_clock()));
                    self.report(&line);
                }
                Output::Recovered { id, after } => {
                    let line = format!("ready again after {} ms", after.as_millis());
                    self.rings[id].push(format!("{} {line}", wall_clock()));
                    kmsg::info(&format!("{}: {line}", self.services[id].spec.name));
                }
                Output::Proven => {
                    kmsg::info("all essential services are up");
                    self.mark_good(now);
                }
                Output::AllStopped => {
                    if let Some(shutdown) = self.shutdown {
                        self.finish(shutdown.action);
                    }
                }
            }
        }
    }

    fn spawn(&mut self, now: Duration, id: Id) {
        match process::start(&self.services[id]) {
            Ok((pid, log)) => {
                self.pipes.push((id, OwnedFd::into(log)));
                self.supervisor.spawned(now, id, pid);
            }
            Err(error) => self.supervisor.spawn_failed(now, id, &format!("cannot start: {error}")),
        }
    }

    /// Storage first, then the site from it, then everybody reads it.
    fn finished(&mut self, now: Duration, id: Id, success: bool) {
        match self.services[id].spec.name {
            STORAGE if success => {
                self.next_save = Some(now + SAVE_CLOCK_EVERY);
                let site = self.supervisor.find(SITE).map(|site| self.supervisor.state(site));
                self.site_again = !matches!(site, Some(State::Done | State::Failed));
                if !self.site_again && !site_knows_disk() {
                    self.run_again(now, SITE);
                }
                // A stick that is to be installed is nobody's place to keep things.
                let is_stick = Path::new(paths::INSTALL_ORDER).exists();
                self.run_again(now, if is_stick { INSTALL } else { COMPONENTS });
                self.run_again(now, TRIAL);
                self.mark_good(now);
            }
            COMPONENTS => self.start_components(now),
            TRIAL if success => self.mark_good(now),
            // The try that this boot has taken is not given back: the boot loader finds the way to the other slot. Only where
            // something is on trial: a release that has proved itself is never restarted for this.
            TRIAL if Path::new(updated::ON_TRIAL).exists() => {
                self.begin_shutdown(now, Action::Reboot, "the trial of a release failed", Leave::Spent)
            }
            SITE if std::mem::take(&mut self.site_again) && !site_knows_disk() => self.run_again(now, SITE),
            SITE => self.supervisor.reload(),
            LEAVE if self.shutdown.is_some_and(|shutdown| shutdown.stop_at.is_some()) => {
                self.stop_services(now)
            }
            _ => {}
        }
    }

    /// What they need is mounted; or, after a disk has gone and come, mounted anew.
    fn start_components(&mut self, now: Duration) {
        for id in (0..self.services.len()).filter(|id| self.services[*id].spec.optional) {
            self.supervisor.restart(now, id);
        }
    }

    /// When the box has proved itself and the disk that keeps the verdict is there, whichever comes last.
    fn mark_good(&mut self, now: Duration) {
        if self.supervisor.health().proven() && self.storage_has_ended() {
            self.run_again(now, MARK_GOOD);
        }
    }

    fn storage_has_ended(&self) -> bool {
        let storage = self.supervisor.find(STORAGE).map(|id| self.supervisor.state(id));
        matches!(storage, Some(State::Done | State::Failed))
    }

    fn run_again(&mut self, now: Duration, name: &str) {
        if let Some(id) = self.supervisor.find(name) {
            self.supervisor.restart(now, id);
        }
    }

    fn begin_shutdown(&mut self, now: Duration, action: Action, why: &str, leave: Leave) {
        if self.shutdown.is_some() {
            return;
        }
        kmsg::error(&format!("{why}: going down ({action:?})"));
        self.shutdown = Some(Shutdown::new(now, action));
        match leave {
            Leave::InOrder => self.run_again(now, LEAVE),
            Leave::Spent => self.stop_services(now),
        }
    }

    fn stop_services(&mut self, now: Duration) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.stop_at = None;
        }
        self.supervisor.shut_down(now);
    }

    fn finish(&mut self, action: Action) -> ! {
        shutdown::finish(action, &mut self.hardware)
    }

    fn take_commands(&mut self, now: Duration) {
        let Some(mut control) = self.control.take() else { return };
        control.advance(now, |line| self.answer(now, line));
        self.control = Some(control);
    }

    fn answer(&mut self, now: Duration, line: &str) -> Vec<u8> {
        let result = Command::parse(line).and_then(|command| self.execute(now, command));
        result.unwrap_or_else(|error| serde_json::json!({ "error": error }).to_string() + "\n").into_bytes()
    }

    fn execute(&mut self, now: Duration, command: Command) -> Result<String, String> {
        match command {
            Command::Status => {
                return serde_json::to_string(&self.status(now)).map_err(|error| error.to_string());
            }
            Command::Logs(name, count) => {
                let id = self.find(&name)?;
                return Ok(self.rings[id].last(count).flat_map(|line| [line, "\n"]).collect());
            }
            // Chosen and validated anew; when that has ended, everybody reads it.
            Command::Reload => self.run_again(now, SITE),
            Command::Restart(name) => {
                let id = self.find(&name)?;
                self.supervisor.restart(now, id);
            }
            Command::Reboot => self.begin_shutdown(now, Action::Reboot, "operator", Leave::InOrder),
            Command::PowerOff => self.begin_shutdown(now, Action::PowerOff, "operator", Leave::InOrder),
        }
        Ok("{\"ok\":true}\n".to_owned())
    }

    fn find(&self, name: &str) -> Result<Id, String> {
        self.supervisor.find(name).ok_or_else(|| format!("there is no service `{name}`"))
    }

    fn status(&self, now: Duration) -> InitStatus {
        let service = |id: Id| ServiceStatus {
            name: self.services[id].spec.name.to_owned(),
            state: service_state(self.supervisor.state(id)),
            pid: self.supervisor.pid(id),
            restarts: self.supervisor.restarts(id),
            detail: self.supervisor.detail(id).to_owned(),
        };
        InitStatus {
            version: self.version.clone(),
            board: self.board.clone(),
            uptime_s: now.as_secs(),
            services: (0..self.services.len()).map(service).collect(),
            errors: self.errors.all(),
        }
    }
}

/// Whether the last choice of the site was made with the disk that storage has brought up.
fn site_knows_disk() -> bool {
    Path::new(paths::SITE_FROM_DISK).exists()
}

/// A child that has ended, reaped, and how; nothing when none has.
pub(crate) fn next_exit() -> Option<(u32, Exit)> {
    loop {
        let (pid, exit) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => continue,
        };
        return Some((pid.as_raw().unsigned_abs(), exit));
    }
}

pub(crate) fn send(pid: u32, signal: SignalKind) {
    let signal = match signal {
        SignalKind::Terminate => Signal::SIGTERM,
        SignalKind::Reload => Signal::SIGHUP,
    };
    // Fails when it has just ended: its exit is about to be reaped.
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn service_state(state: State) -> ServiceState {
    match state {
        State::Waiting => ServiceState::Waiting,
        State::Launching | State::Starting { .. } => ServiceState::Starting,
        State::Running { .. } => ServiceState::Running,
        State::Stopping { .. } => ServiceState::Stopping,
        State::Backoff { .. } => ServiceState::Backoff,
        State::Done | State::Stopped => ServiceState::Done,
        State::Failed => ServiceState::Failed,
    }
}
