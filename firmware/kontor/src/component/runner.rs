//! Process 1 of a component: supervises its services and reaps everybody.
//!
//! It speaks to the process outside over its standard input, a socket: `READY=1`, `WATCHDOG=1` and `STATUS=…` go out, and
//! its end means that nobody is there any more who wants this component.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use kontor_component::Service;
use kontor_supervise::{Id, Kind, LONGEST_PAUSE, Message, Output, Readiness, Spec, State, Supervisor};
use kontor_sys::notify_socket::NotifySocket;
use kontor_sys::signal::Signals;
use kontor_sys::spawn::{Identity, Launch};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use super::capabilities::capabilities;
use super::processes::{kill_leftovers, kill_session, leader_of};
use super::ready::{COMMAND_LIMIT, Looked, Probe};
use super::{Places, manifest, office, outside, root, setup};
use crate::init::{next_exit, now, send};

/// Where services say that they are ready.
pub(super) const NOTIFY_SOCKET: &str = "/run/notify.sock";
/// How often the outside hears that this loop turns.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// Datagrams handled in one turn.
const MAX_NOTIFICATIONS: usize = 64;
/// How a manifest names the firmware's own program, which is process 1 here.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// A service hangs when so many looks in a row have failed.
const LOOKS_FAILED: u32 = 3;
/// A turn that took so long means that the whole machine stood still, or this process: there is a sign of life every few seconds.
const STALL: Duration = Duration::from_secs(20);
/// A longer line is cut.
const MAX_LINE: usize = 1 << 10;

/// Runs the component in the new name spaces.
pub(super) fn run(places: &Places) -> anyhow::Result<()> {
    let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    channel.set_nonblocking(true)?;
    // The preparation inherits it.
    let lock = outside::hold(&places.state)?;
    let office = office::Office::of(places)?;
    let office = office.with_context(|| format!("the site file has no [{}]", places.name))?;
    let signals = Signals::new(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT])?;
    root::leave_the_box()?;
    let root = places.root.mount(&places.run)?;
    let manifest = manifest(&root)?;
    root::enter(&root, (&places.state, &places.run), &manifest, &office.host_name)?;
    office.write_files(Path::new(office::DIRECTORY))?;
    let notify = NotifySocket::bind(Path::new(NOTIFY_SOCKET))?;
    let mut runner = Runner::new(&office.role, manifest.services(&office.role), signals, notify, channel)?;
    if setup::before_services(&manifest, &lock, &mut runner.signals, &runner.notify, &runner.channel)? {
        office::forget_site()?;
        runner.turn_until_stopped();
    }
    Ok(())
}

/// What every program in a component finds in its environment.
pub(super) fn environment() -> Vec<(String, String)> {
    [("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("PYTHONDONTWRITEBYTECODE", "1")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
}

/// What a service writes, until its end of the pipe is closed.
struct Log {
    id: Id,
    pipe: File,
    partial: Vec<u8>,
}

struct Runner {
    services: Vec<Service>,
    supervisor: Supervisor,
    signals: Signals,
    notify: NotifySocket,
    channel: UnixStream,
    logs: Vec<Log>,
    role: String,
    said_ready: bool,
    said_status: String,
    /// What is wrong with services, and what those of this program have to say; empty when nothing.
    told: BTreeMap<Id, String>,
    stopped: bool,
    next_sign: Duration,
    probe: Probe,
}

impl Runner {
    fn new(
        role: &str,
        services: Vec<Service>,
        signals: Signals,
        notify: NotifySocket,
        channel: UnixStream,
    ) -> anyhow::Result<Self> {
        if services.is_empty() {
            bail!("no service of this component runs in this role");
        }
        let specs = services.iter().map(spec).collect();
        let seed = u64::try_from(now().as_nanos()).unwrap_or(0);
        Ok(Self {
            supervisor: Supervisor::new(specs, seed)?,
            services,
            signals,
            notify,
            channel,
            logs: Vec::new(),
            role: role.to_owned(),
            said_ready: false,
            said_status: String::new(),
            told: BTreeMap::new(),
            stopped: false,
            next_sign: Duration::ZERO,
            probe: Probe::default(),
        })
    }

    fn turn_until_stopped(&mut self) {
        let mut last_turn = now();
        while !self.stopped {
            let now = now();
            let lost = now.saturating_sub(std::mem::replace(&mut last_turn, now));
            if lost >= STALL {
                self.supervisor.forgive(lost);
            }
            self.supervisor.handle_timeout(now);
            self.obey(now);
            self.wait(now);
            let now = crate::init::now();
            self.take_signals(now);
            self.take_notifications(now);
            self.take_logs();
            self.look(now);
            self.obey(now);
            self.report(now);
            if self.is_alone() {
                return;
            }
        }
    }

    fn wait(&self, now: Duration) {
        let probe = self.probe.poll_timeout(self.looked_at());
        let next = [self.supervisor.poll_timeout(), probe, Some(self.next_sign)].into_iter().flatten().min();
        let left = next.unwrap_or(now).saturating_sub(now).as_micros().div_ceil(1000);
        let fixed = [self.signals.as_fd(), self.notify.as_fd(), self.channel.as_fd()];
        let readers = fixed.into_iter().chain(self.logs.iter().map(|log| log.pipe.as_fd()));
        let mut fds: Vec<PollFd> = readers.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An error is EINTR: everything is looked at anyway.
        let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
    }

    fn take_signals(&mut self, now: Duration) {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::SIGCHLD => self.reap(now),
                _ => self.supervisor.shut_down(now),
            }
        }
    }

    fn reap(&mut self, now: Duration) {
        while let Some((pid, exit)) = next_exit() {
            self.take_logs();
            if let Some((id, of)) = self.probe.ended(pid, exit) {
                self.found_well(now, id, of);
            } else if self.supervisor.handle_exit(now, pid, exit) {
                let living: Vec<u32> = (0..self.services.len()).filter_map(|id| self.pid(id)).collect();
                kill_leftovers(pid, &living);
            }
        }
    }

    fn take_notifications(&mut self, now: Duration) {
        for _ in 0..MAX_NOTIFICATIONS {
            let Ok(Some((pid, datagram))) = self.notify.next() else { return };
            let main = u32::try_from(pid).ok().and_then(|pid| self.supervisor.find_pid(pid));
            let by_session = || leader_of(pid).and_then(|leader| self.supervisor.find_pid(leader));
            if let Some(id) = main.or_else(by_session) {
                Message::parse(&datagram).for_each(|message| self.heard(now, id, message));
            }
        }
    }

    /// A service that is looked at is ready when it is found so, whatever it says.
    fn heard(&mut self, now: Duration, id: Id, message: Message) {
        if let Message::Status(text) = &message
            && self.services[id].command.first().is_some_and(|program| program == OWN_PROGRAM)
        {
            // What a service of this program has to say is for whoever looks at the box; others say there that they are ready.
            self.told.insert(id, text.clone());
        }
        if message != Message::Ready || self.services[id].ready.is_notified() {
            self.supervisor.handle_message(now, id, message);
        }
    }

    /// Services that start and do not say themselves when they are ready, and those that run and could hang.
    fn looked_at(&self) -> impl Iterator<Item = Looked> {
        let looked = |(id, service): (Id, &Service)| match self.supervisor.state(id) {
            State::Starting { pid, .. } if !service.ready.is_notified() => {
                Some(Looked { id, pid, is_up: false })
            }
            State::Running { pid, .. } if service.health.is_some() => Some(Looked { id, pid, is_up: true }),
            _ => None,
        };
        self.services.iter().enumerate().filter_map(looked)
    }

    fn look(&mut self, now: Duration) {
        self.probe.handle_timeout(now);
        let services: Vec<Looked> = self.looked_at().collect();
        for looked in services {
            if self.probe.look(now, looked, &self.services[looked.id]) {
                self.found_well(now, looked.id, looked.pid);
            }
        }
    }

    /// Unless it has ended since, and another process is in its place.
    fn found_well(&mut self, now: Duration, id: Id, pid: u32) {
        if self.pid(id) == Some(pid) {
            let is_up = matches!(self.supervisor.state(id), State::Running { .. });
            if !is_up {
                self.probe.put_off(now, id, &self.services[id]);
            }
            self.supervisor.handle_message(now, id, if is_up { Message::Watchdog } else { Message::Ready });
        }
    }

    fn obey(&mut self, now: Duration) {
        while let Some(output) = self.supervisor.poll_output() {
            match output {
                Output::Spawn(id) => self.spawn(now, id),
                Output::Signal(_, pid, signal) => send(pid, signal),
                Output::Kill(id) => self.pid(id).into_iter().for_each(kill_session),
                Output::Failure { id, reason } => {
                    self.say(id, &format!("error: {reason}"));
                    self.told.insert(id, format!("{}: {reason}", self.services[id].name));
                }
                Output::Recovered { id, after } => {
                    self.say(id, &format!("ready again after {} ms", after.as_millis()));
                    self.told.remove(&id);
                }
                Output::AllStopped => self.stopped = true,
                Output::Finished { .. } | Output::Proven => {}
            }
        }
    }

    fn pid(&self, id: Id) -> Option<u32> {
        match self.supervisor.state(id) {
            State::Starting { pid, .. } | State::Running { pid, .. } | State::Stopping { pid, .. } => {
                Some(pid)
            }
            _ => None,
        }
    }

    fn spawn(&mut self, now: Duration, id: Id) {
        match start(&self.services[id]) {
            Ok((pid, pipe)) => {
                self.logs.push(Log { id, pipe: pipe.into(), partial: Vec::new() });
                self.supervisor.spawned(now, id, pid);
            }
            Err(error) => self.supervisor.spawn_failed(now, id, &format!("cannot start: {error}")),
        }
    }

    fn take_logs(&mut self) {
        let mut logs = std::mem::take(&mut self.logs);
        logs.retain_mut(|log| {
            let mut buffer = [0; 8192];
            match log.pipe.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => buffer[..length].iter().for_each(|byte| self.take_byte(log, *byte)),
                Err(_) => {}
            }
            true
        });
        self.logs.append(&mut logs);
    }

    fn take_byte(&self, log: &mut Log, byte: u8) {
        if byte != b'\n' {
            if log.partial.len() < MAX_LINE {
                log.partial.push(byte);
            }
            return;
        }
        let text = String::from_utf8_lossy(&log.partial).trim_end().to_owned();
        log.partial.clear();
        if !text.is_empty() {
            self.say(log.id, &text);
        }
    }

    /// A reader that is gone is the outside's business.
    fn say(&self, id: Id, text: &str) {
        let _ = writeln!(io::stdout(), "{}: {text}", self.services[id].name);
    }

    fn report(&mut self, now: Duration) {
        if now >= self.next_sign {
            self.next_sign = now + SIGN_OF_LIFE;
            self.tell("WATCHDOG=1");
        }
        if !self.said_ready && self.serves() {
            self.said_ready = true;
            self.tell("READY=1");
            let _ = writeln!(io::stdout(), "ready");
        }
        let status = self.status();
        if status != self.said_status {
            self.tell(&format!("STATUS={status}"));
            self.said_status = status;
        }
    }

    /// Whether all services are up.
    fn serves(&self) -> bool {
        let up = |id| matches!(self.supervisor.state(id), State::Running { .. } | State::Done);
        (0..self.services.len()).all(up)
    }

    /// For whoever looks at the box: whether it serves, and what else there is to say.
    fn status(&self) -> String {
        let told = self.told.values().map(String::as_str).filter(|text| !text.is_empty());
        let told = told.collect::<Vec<_>>().join("; ");
        match (self.serves(), told.as_str()) {
            (true, "") => format!("serves as {}", self.role),
            (true, told) => format!("serves as {}; {told}", self.role),
            (false, "") => format!("starting as {}", self.role),
            (false, told) => told.to_owned(),
        }
    }

    fn tell(&mut self, message: &str) {
        let _ = self.channel.write_all(format!("{message}\n").as_bytes());
    }

    /// Whether the process outside is gone.
    fn is_alone(&mut self) -> bool {
        matches!(self.channel.read(&mut [0; 16]), Ok(0))
    }
}

/// What the supervisor knows of a service. Names live as long as this process, which has one manifest all its life.
fn spec(service: &Service) -> Spec {
    let lasting = |name: &String| -> &'static str { name.clone().leak() };
    Spec {
        name: lasting(&service.name),
        after: service.after.iter().map(lasting).collect(),
        kind: match service.kind {
            kontor_component::Kind::OneShot => Kind::OneShot,
            kontor_component::Kind::Daemon => Kind::Daemon(Readiness::Notify),
        },
        essential: true,
        start_deadline: Duration::from_secs(service.start_s.into()),
        watchdog: service
            .health
            .as_ref()
            .map(|health| LOOKS_FAILED * (Duration::from_secs(health.every_s.into()) + COMMAND_LIMIT)),
        stop_deadline: Duration::from_secs(service.stop_s.into()),
        reloads: false,
        on_demand: false,
        optional: false,
        late: false,
        longest_pause: LONGEST_PAUSE,
    }
}

fn start(service: &Service) -> io::Result<(u32, OwnedFd)> {
    let capabilities = capabilities(&service.capability)?;
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let (program, args) = service.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut environment = environment();
    environment.push(("NOTIFY_SOCKET".to_owned(), NOTIFY_SOCKET.to_owned()));
    let launch = Launch {
        program: program.into(),
        args: args.to_vec(),
        environment,
        identity: Identity::User { id: 0, capabilities },
        cgroup: None,
        output: writer,
        input: None,
        inherited: Vec::new(),
        max_files: service.open_files.into(),
        oom_score_adjust: 0,
    };
    Ok((launch.spawn()?, reader))
}

#[cfg(test)]
mod tests {
    use kontor_component::Manifest;
    use kontor_supervise::Exit;

    use super::*;

    const MANIFEST: &str = "schema = 1\nname = 'some'\nmemory-mib = 8\nprocesses = 8\n\
        [[service]]\nname = 'one'\ncommand = ['/bin/true']\n";
    const NOW: Duration = Duration::from_secs(1);
    /// Nobody's: above what Linux gives (proc(5), `pid_max`).
    const PID: u32 = 1 << 23;

    fn runner(scratch: &Path) -> (Runner, UnixStream) {
        let services = Manifest::parse(MANIFEST).unwrap().services("any");
        let (channel, outside) = UnixStream::pair().unwrap();
        channel.set_nonblocking(true).unwrap();
        outside.set_nonblocking(true).unwrap();
        let notify = NotifySocket::bind(&scratch.join("notify.sock")).unwrap();
        (Runner::new("any", services, Signals::new(&[]).unwrap(), notify, channel).unwrap(), outside)
    }

    fn heard(mut outside: &UnixStream) -> String {
        let mut said = [0; 1024];
        let length = outside.read(&mut said).unwrap_or(0);
        String::from_utf8_lossy(&said[..length]).into_owned()
    }

    /// The service is started, without a process, and says that it is ready.
    fn come_up(runner: &mut Runner, pid: u32) {
        runner.supervisor.handle_timeout(NOW);
        while runner.supervisor.poll_output().is_some() {}
        runner.supervisor.spawned(NOW, 0, pid);
        runner.report(NOW);
        runner.supervisor.handle_message(NOW, 0, Message::Ready);
        runner.obey(NOW);
        runner.report(NOW);
    }

    #[test]
    fn what_was_said_of_a_failure_is_taken_back_when_all_are_up_again() {
        let scratch = tempfile::tempdir().unwrap();
        let (mut runner, outside) = runner(scratch.path());
        come_up(&mut runner, PID);
        assert_eq!(heard(&outside), "WATCHDOG=1\nSTATUS=starting as any\nREADY=1\nSTATUS=serves as any\n");
        runner.report(NOW);
        assert_eq!(heard(&outside), "");
        runner.supervisor.handle_exit(NOW, PID, Exit::Code(1));
        runner.obey(NOW);
        runner.report(NOW);
        assert_eq!(heard(&outside), "STATUS=one: exited with code 1\n");
        come_up(&mut runner, PID + 1);
        assert_eq!(heard(&outside), "STATUS=serves as any\n");
    }
}
