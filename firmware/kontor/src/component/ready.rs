//! Whether a service that does not say so itself is ready: its ports answer, and then a command in the component ends well. And
//! whether one that runs still works, by another command.
//!
//! **Invariant:** nothing here holds up process 1 for longer than a look at a port of the loopback, or the start of a program,
//! takes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use kontor_component::Service;
use kontor_supervise::{Exit, Id};
use kontor_sys::spawn::{Identity, Launch};

use super::capabilities::capabilities;
use super::processes::kill_session;
use super::runner::environment;

/// How often ports are tried while their service starts.
const PORTS_EVERY: Duration = Duration::from_millis(100);
/// A connection on the loopback is there at once or not at all.
const PORT_LIMIT: Duration = Duration::from_millis(50);
/// Between two tries of a command: it is a program to start, on a box that is busy starting others.
const COMMAND_EVERY: Duration = Duration::from_millis(500);
/// One that takes longer hangs, and the next one may not.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const MAX_FILES: u64 = 1024;

/// The looks at services that start, and now and then at those that run: one command at a time.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// Of any service.
    next: Duration,
    /// Of a service that runs.
    due: BTreeMap<Id, Duration>,
    running: Option<Try>,
}

/// A service that is to be looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    pub(super) id: Id,
    /// Its own process.
    pub(super) pid: u32,
    /// Whether it is ready, as far as is known.
    pub(super) is_up: bool,
}

/// A command that runs.
#[derive(Debug)]
struct Try {
    service: Id,
    /// The service's own process when it began: another one is another start.
    of: u32,
    pid: u32,
    /// Nothing once it was killed: it ends when the disk lets it.
    deadline: Option<Duration>,
}

impl Probe {
    /// When [`Self::handle_timeout`] and [`Self::look`] are to be called at the latest, with these services.
    pub(super) fn poll_timeout(&self, services: impl Iterator<Item = Looked>) -> Option<Duration> {
        match &self.running {
            Some(running) => running.deadline,
            None => services.map(|looked| self.due(looked)).min(),
        }
    }

    /// A command that hangs is ended.
    pub(super) fn handle_timeout(&mut self, now: Duration) {
        if let Some(running) =
            self.running.as_mut().filter(|running| running.deadline.is_some_and(|at| at <= now))
        {
            running.deadline = None;
            kill_session(running.pid);
        }
    }

    fn due(&self, looked: Looked) -> Duration {
        let own = self.due.get(&looked.id).filter(|_| looked.is_up);
        own.map_or(self.next, |due| self.next.max(*due))
    }

    /// Looks at a service when it is time; true when it is well, as far as can be said at once.
    pub(super) fn look(&mut self, now: Duration, looked: Looked, service: &Service) -> bool {
        if self.running.is_some() || now < self.due(looked) {
            return false;
        }
        let command = match service.health.as_ref().filter(|_| looked.is_up) {
            Some(health) => &health.command,
            None => {
                self.next = now + PORTS_EVERY;
                if !service.ready.ports.iter().all(answers) {
                    return false;
                }
                &service.ready.command
            }
        };
        if command.is_empty() {
            return true;
        }
        self.next = now + COMMAND_EVERY;
        match start(command, service) {
            Ok(pid) => {
                let deadline = Some(now + COMMAND_LIMIT);
                self.running = Some(Try { service: looked.id, of: looked.pid, pid, deadline });
                self.put_off(now, looked.id, service);
                false
            }
            // Of one that runs nothing bad is known by that; one that starts is looked at again, until its own deadline.
            Err(_) => looked.is_up,
        }
    }

    /// Once it runs, the next look at it is as far away as its manifest says, whatever comes of this one.
    pub(super) fn put_off(&mut self, now: Duration, id: Id, service: &Service) {
        let every = service.health.as_ref().map_or(0, |health| health.every_s);
        self.due.insert(id, now + Duration::from_secs(every.into()));
    }

    /// A process has ended: the service that is ready by that, and the process it then had.
    pub(super) fn ended(&mut self, pid: u32, exit: Exit) -> Option<(Id, u32)> {
        let running = self.running.take_if(|running| running.pid == pid)?;
        (exit == Exit::Code(0)).then_some((running.service, running.of))
    }
}

fn answers(port: &u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, *port)), PORT_LIMIT).is_ok()
}

/// What it says is nobody's business: it fails until it does not.
fn start(command: &[String], service: &Service) -> io::Result<u32> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let launch = Launch {
        program: program.into(),
        args: args.to_vec(),
        environment: environment(),
        identity: Identity::User { id: 0, capabilities: capabilities(&service.capability)? },
        cgroup: None,
        output: File::options().write(true).open("/dev/null")?.into(),
        input: None,
        inherited: Vec::new(),
        max_files: MAX_FILES,
        oom_score_adjust: 0,
    };
    launch.spawn()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use kontor_component::Manifest;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn service(port: u16) -> Service {
        let text = format!(
            "schema = 1\nname = 'some'\nmemory-mib = 8\nprocesses = 8\n[[service]]\nname = 'one'\ncommand = ['/bin/true']\n\
             ready = {{ ports = [{port}] }}\nhealth = {{ command = ['/nowhere/program'], every-s = 60 }}\n"
        );
        Manifest::parse(&text).unwrap().services("any").remove(0)
    }

    #[test]
    fn one_that_runs_is_looked_at_as_often_as_its_manifest_says() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let service = service(listener.local_addr().unwrap().port());
        let mut probe = Probe::default();
        let starts = Looked { id: 0, pid: 7, is_up: false };
        let runs = Looked { is_up: true, ..starts };
        assert_eq!(probe.poll_timeout([starts].into_iter()), Some(Duration::ZERO));
        assert!(probe.look(SECOND, starts, &service));
        probe.put_off(SECOND, 0, &service);
        assert!(!probe.look(2 * SECOND, runs, &service), "it was well a moment ago");
        assert_eq!(probe.poll_timeout([runs].into_iter()), Some(61 * SECOND));
        drop(listener);
        assert!(!probe.look(2 * SECOND, starts, &service), "nobody listens any more");
        assert!(probe.look(61 * SECOND, runs, &service), "a look that cannot be made is nobody's fault");
    }

    #[test]
    fn a_command_that_hangs_is_killed_once() {
        let hangs = Try { service: 0, of: 7, pid: u32::MAX >> 1, deadline: Some(SECOND) };
        let mut probe = Probe { running: Some(hangs), ..Probe::default() };
        assert_eq!(probe.poll_timeout(std::iter::empty()), Some(SECOND));
        probe.handle_timeout(SECOND);
        assert_eq!(probe.poll_timeout(std::iter::empty()), None);
        assert_eq!(probe.ended(u32::MAX >> 1, Exit::Code(1)), None);
    }
}
