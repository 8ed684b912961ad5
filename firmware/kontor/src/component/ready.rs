//! Whether a service that does not say so itself is ready: its ports answer, and then a command in the component ends well.
//!
//! **Invariant:** nothing here holds up process 1 for longer than a look at a port of the loopback takes.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use kontor_component::{Ready, Service};
use kontor_supervise::{Exit, Id};
use kontor_sys::spawn::{Identity, Launch};

use super::processes::kill_session;
use super::runner::{capabilities, environment};

/// How often ports are tried while their service starts.
const PORTS_EVERY: Duration = Duration::from_millis(100);
/// A connection on the loopback is there at once or not at all.
const PORT_LIMIT: Duration = Duration::from_millis(50);
/// Between two tries of a command: it is a program to start, on a box that is busy starting others.
const COMMAND_EVERY: Duration = Duration::from_millis(500);
/// One that takes longer hangs, and the next one may not.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const MAX_FILES: u64 = 1024;

/// The looks at services that start: one command at a time.
#[derive(Debug, Default)]
pub(super) struct Probe {
    next: Duration,
    running: Option<Try>,
}

/// A command that runs.
#[derive(Debug)]
struct Try {
    service: Id,
    /// The service's own process when it began: another one is another start.
    of: u32,
    pid: u32,
    deadline: Duration,
}

impl Probe {
    /// When [`Self::look`] is to be called at the latest, as long as a service is starting.
    pub(super) fn poll_timeout(&self) -> Duration {
        self.running.as_ref().map_or(self.next, |running| running.deadline)
    }

    /// Looks at a service that starts, whose process is `of`; true when it is ready by its ports alone.
    pub(super) fn look(&mut self, now: Duration, id: Id, of: u32, service: &Service) -> bool {
        if let Some(running) = &self.running {
            if now >= running.deadline {
                kill_session(running.pid);
            }
            return false;
        }
        if now < self.next {
            return false;
        }
        self.next = now + PORTS_EVERY;
        if !service.ready.ports.iter().all(answers) {
            return false;
        }
        if service.ready.command.is_empty() {
            return true;
        }
        self.next = now + COMMAND_EVERY;
        // One that cannot be started is tried again, until the service's own deadline.
        if let Ok(pid) = start(&service.ready, service) {
            self.running = Some(Try { service: id, of, pid, deadline: now + COMMAND_LIMIT });
        }
        false
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
fn start(ready: &Ready, service: &Service) -> io::Result<u32> {
    let (program, args) = ready.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let launch = Launch {
        program: program.into(),
        args: args.to_vec(),
        environment: environment(),
        identity: Identity::User { id: 0, capabilities: capabilities(&service.capability)? },
        cgroup: None,
        output: File::options().write(true).open("/dev/null")?.into(),
        input: None,
        max_files: MAX_FILES,
        oom_score_adjust: 0,
    };
    launch.spawn()
}
