//! All services together: order, deadlines, restarts, shutdown.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::service::{Service, Then};
use crate::{Exit, Health, Kind, Message, Readiness, Spec, State};

/// A service's place in the list it was declared in.
pub type Id = usize;

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Start it and answer with [`Supervisor::spawned`] or [`Supervisor::spawn_failed`].
    Spawn(Id),
    /// Send a signal to its main process.
    Signal(Id, u32, SignalKind),
    /// Kill every process of its cgroup.
    Kill(Id),
    /// A one-shot ended for this time.
    Finished {
        /// Which.
        id: Id,
        /// Whether it succeeded.
        success: bool,
    },
    /// A service failed or was killed; one line for the error list.
    Failure {
        /// Which.
        id: Id,
        /// What happened.
        reason: String,
    },
    /// A daemon that had failed is ready again.
    Recovered {
        /// Which.
        id: Id,
        /// How long it was away, from the failure (or its discovery) on.
        after: Duration,
    },
    /// The box has proved itself: mark the slot good. Comes once.
    Proven,
    /// Shutdown: nothing runs any more.
    AllStopped,
}

/// Signals the supervisor uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalKind {
    /// SIGTERM: end.
    Terminate,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// A declaration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpecError {
    /// Two services of one name.
    Duplicate(&'static str),
    /// It is ordered after something that is not declared before it (which also excludes cycles).
    After(&'static str, &'static str),
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(name) => write!(f, "two services are called {name}"),
            Self::After(name, after) => {
                write!(f, "{name} is ordered after {after}, which is not declared before it")
            }
        }
    }
}

impl std::error::Error for SpecError {}

/// The state machine.
#[derive(Debug)]
pub struct Supervisor {
    services: Vec<Service>,
    outputs: VecDeque<Output>,
    health: Health,
    /// Whether late services may start.
    admits_late: bool,
    shutting_down: bool,
    all_stopped: bool,
}

impl Supervisor {
    /// With these services, declared in an order that respects `after`; `seed` feeds the jitter.
    ///
    /// # Errors
    /// When a name is doubled, or an `after` names nothing declared earlier.
    pub fn new(specs: Vec<Spec>, seed: u64) -> Result<Self, SpecError> {
        let mut services: Vec<Service> = Vec::with_capacity(specs.len());
        for spec in specs {
            let find = |name: &str| services.iter().position(|service| service.spec.name == name);
            if find(spec.name).is_some() {
                return Err(SpecError::Duplicate(spec.name));
            }
            let after = spec.after.iter().map(|name| find(name).ok_or(SpecError::After(spec.name, name)));
            let after = after.collect::<Result<Vec<_>, _>>()?;
            let backoff = Backoff::new(seed.wrapping_add(services.len() as u64), spec.longest_pause);
            services.push(Service {
                state: if spec.on_demand { State::Done } else { State::Waiting },
                released: spec.on_demand,
                spec,
                after,
                restarts: 0,
                detail: String::new(),
                reload_pending: false,
                succeeded: false,
                declined: false,
                down_since: None,
                backoff,
            });
        }
        Ok(Self {
            services,
            outputs: VecDeque::new(),
            health: Health::default(),
            admits_late: false,
            shutting_down: false,
            all_stopped: false,
        })
    }

    /// What to do next; call until it is empty after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let services = self.services.iter().filter_map(Service::timeout);
        let health = if self.shutting_down { None } else { self.health.poll_timeout() };
        services.chain(health).min()
    }

    /// Time has passed; also the first call, which starts the services.
    pub fn handle_timeout(&mut self, now: Duration) {
        for id in 0..self.services.len() {
            if self.services[id].timeout().is_some_and(|at| at <= now) {
                self.expire(id, now);
            }
        }
        self.settle(now);
    }

    fn expire(&mut self, id: Id, now: Duration) {
        let service = &mut self.services[id];
        match service.state {
            State::Backoff { .. } => {
                service.restarts += 1;
                self.launch(id);
            }
            State::Starting { pid, .. } => self.kill_failed(id, pid, now, "not ready in time"),
            State::Running { pid, .. } => self.kill_failed(id, pid, now, "watchdog: no sign of life"),
            State::Stopping { pid, then, .. } => {
                service.state = State::Stopping { pid, kill_at: None, then };
                self.fail_line(id, "did not end in time, killed");
                self.outputs.push_back(Output::Kill(id));
            }
            _ => {}
        }
    }

    fn kill_failed(&mut self, id: Id, pid: u32, now: Duration, reason: &str) {
        self.services[id].give_up_run(now);
        self.services[id].state = State::Stopping { pid, kill_at: None, then: Then::Backoff };
        self.fail_line(id, reason);
        self.outputs.push_back(Output::Kill(id));
    }

    fn fail_line(&mut self, id: Id, reason: &str) {
        self.services[id].detail = reason.to_owned();
        self.outputs.push_back(Output::Failure { id, reason: reason.to_owned() });
    }

    fn launch(&mut self, id: Id) {
        self.services[id].state = State::Launching;
        self.services[id].reload_pending = false;
        self.outputs.push_back(Output::Spawn(id));
    }

    /// Answer to [`Output::Spawn`]: it runs as `pid`.
    pub fn spawned(&mut self, now: Duration, id: Id, pid: u32) {
        let service = &mut self.services[id];
        if service.state != State::Launching {
            return;
        }
        service.state = match service.spec.kind {
            Kind::Daemon(Readiness::Immediate) => {
                service.released = true;
                State::Running { pid, since: now, watchdog: service.watchdog_from(now) }
            }
            _ => State::Starting { pid, deadline: now + service.spec.start_deadline },
        };
        self.settle(now);
    }

    /// Answer to [`Output::Spawn`]: it could not be started.
    pub fn spawn_failed(&mut self, now: Duration, id: Id, reason: &str) {
        if self.services[id].state == State::Launching {
            self.services[id].fail(now);
            self.fail_line(id, reason);
            self.finish_if_failed(id);
            self.settle(now);
        }
    }

    /// A process ended. True when it was the main process of a service.
    pub fn handle_exit(&mut self, now: Duration, pid: u32, exit: Exit) -> bool {
        let Some(id) = self.services.iter().position(|service| service.pid() == Some(pid)) else {
            return false;
        };
        // Whatever it left behind in its cgroup ends with it.
        self.outputs.push_back(Output::Kill(id));
        match self.services[id].state {
            State::Stopping { then, .. } => self.ended_as_asked(id, now, then),
            _ if self.services[id].is_done_by(exit) => {
                self.services[id].succeed();
                if self.services[id].spec.kind == Kind::OneShot {
                    self.outputs.push_back(Output::Finished { id, success: true });
                }
            }
            _ => {
                self.services[id].fail(now);
                self.fail_line(id, &exit.describe());
                self.finish_if_failed(id);
            }
        }
        self.settle(now);
        true
    }

    fn ended_as_asked(&mut self, id: Id, now: Duration, then: Then) {
        match then {
            Then::Stay => self.services[id].state = State::Stopped,
            Then::Restart => {
                self.services[id].restarts += 1;
                self.launch(id);
            }
            Then::Backoff => {
                self.services[id].fail(now);
                self.finish_if_failed(id);
            }
        }
    }

    fn finish_if_failed(&mut self, id: Id) {
        if self.services[id].state == State::Failed {
            self.outputs.push_back(Output::Finished { id, success: false });
        }
    }

    /// A daemon does what no healthy one does (`reason`): its whole group is killed, and it starts again.
    pub fn condemn(&mut self, now: Duration, id: Id, reason: &str) {
        if let State::Starting { pid, .. } | State::Running { pid, .. } = self.services[id].state {
            self.kill_failed(id, pid, now, reason);
            self.settle(now);
        }
    }

    /// Nobody ran for `lost` (the whole machine was paused or starved): silence meanwhile is no hang.
    pub fn forgive(&mut self, lost: Duration) {
        for service in &mut self.services {
            match &mut service.state {
                State::Running { watchdog: Some(at), .. } => *at += lost,
                State::Starting { deadline, .. } => *deadline += lost,
                _ => {}
            }
        }
    }

    /// A service said something.
    pub fn handle_message(&mut self, now: Duration, id: Id, message: Message) {
        let service = &mut self.services[id];
        match (message, service.state) {
            (Message::Status(text), _) => service.detail = text,
            (Message::Ready, State::Starting { pid, .. }) if service.spec.kind != Kind::OneShot => {
                service.state = State::Running { pid, since: now, watchdog: service.watchdog_from(now) };
                service.released = true;
                if let Some(since) = service.down_since.take() {
                    self.outputs.push_back(Output::Recovered { id, after: now.saturating_sub(since) });
                }
                if std::mem::take(&mut service.reload_pending) {
                    self.outputs.push_back(Output::Signal(id, pid, SignalKind::Reload));
                }
            }
            (Message::Extend(by), State::Starting { pid, deadline }) => {
                service.state = State::Starting { pid, deadline: deadline.max(now + by) };
            }
            (Message::Watchdog, State::Running { pid, since, .. }) => {
                service.state = State::Running { pid, since, watchdog: service.watchdog_from(now) };
            }
            _ => {}
        }
        self.settle(now);
    }

    /// Every reloadable daemon reads its configuration again; one that is starting does so when ready, as a
    /// signal before its handler is installed would kill it. An optional one that had nothing to do, or failed, is started:
    /// with another configuration it may have, or may not.
    pub fn reload(&mut self) {
        for (id, service) in self.services.iter_mut().enumerate().filter(|(_, s)| s.spec.reloads) {
            match service.state {
                State::Done | State::Backoff { .. } if service.may_have_work() && !self.shutting_down => {
                    service.declined = false;
                    service.backoff.reset();
                    service.state = State::Launching;
                    self.outputs.push_back(Output::Spawn(id));
                }
                State::Running { pid, .. } => {
                    self.outputs.push_back(Output::Signal(id, pid, SignalKind::Reload));
                }
                State::Launching | State::Starting { .. } => service.reload_pending = true,
                _ => {}
            }
        }
    }

    /// Starts a service again: a daemon is stopped first, a one-shot runs once more.
    pub fn restart(&mut self, now: Duration, id: Id) {
        if self.shutting_down {
            return;
        }
        let service = &mut self.services[id];
        match service.state {
            State::Starting { pid, .. } | State::Running { pid, .. } => {
                let kill_at = Some(now + service.spec.stop_deadline);
                service.state = State::Stopping { pid, kill_at, then: Then::Restart };
                self.outputs.push_back(Output::Signal(id, pid, SignalKind::Terminate));
            }
            State::Backoff { .. } | State::Done | State::Failed => {
                service.backoff.reset();
                if service.spec.late && !self.admits_late {
                    service.state = State::Waiting;
                } else {
                    self.launch(id);
                }
            }
            _ => {}
        }
        self.settle(now);
    }

    /// What is urgent has been done: late services may start from now on.
    pub fn admit_late(&mut self, now: Duration) {
        self.admits_late = true;
        self.settle(now);
    }

    /// The box goes down: stops everything in reverse order, then says [`Output::AllStopped`].
    pub fn shut_down(&mut self, now: Duration) {
        self.shutting_down = true;
        self.settle(now);
    }

    /// Whatever follows from the present states: starts, stops, health.
    fn settle(&mut self, now: Duration) {
        if self.shutting_down {
            return self.settle_shutdown(now);
        }
        for id in 0..self.services.len() {
            let service = &self.services[id];
            let free = service.after.iter().all(|before| self.services[*before].released)
                && (self.admits_late || !service.spec.late);
            if service.state == State::Waiting && free {
                self.launch(id);
            }
        }
        let well = self.services.iter().all(Service::is_well);
        if self.health.update(now, well) {
            self.outputs.push_back(Output::Proven);
        }
    }

    fn settle_shutdown(&mut self, now: Duration) {
        for id in (0..self.services.len()).rev() {
            let held = self.services.iter().any(|later| later.after.contains(&id) && later.is_live());
            let service = &mut self.services[id];
            match service.state {
                State::Starting { pid, .. } | State::Running { pid, .. } if !held => {
                    let kill_at = Some(now + service.spec.stop_deadline);
                    service.state = State::Stopping { pid, kill_at, then: Then::Stay };
                    self.outputs.push_back(Output::Signal(id, pid, SignalKind::Terminate));
                }
                State::Stopping { pid, kill_at, then } if then != Then::Stay => {
                    service.state = State::Stopping { pid, kill_at, then: Then::Stay };
                }
                State::Waiting | State::Backoff { .. } | State::Done | State::Failed => {
                    service.state = State::Stopped;
                }
                _ => {}
            }
        }
        if !self.all_stopped && self.services.iter().all(|service| service.state == State::Stopped) {
            self.all_stopped = true;
            self.outputs.push_back(Output::AllStopped);
        }
    }

    /// The service with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Id> {
        self.services.iter().position(|service| service.spec.name == name)
    }

    /// The service whose main process is `pid`.
    #[must_use]
    pub fn find_pid(&self, pid: u32) -> Option<Id> {
        self.services.iter().position(|service| service.pid() == Some(pid))
    }

    /// How many services there are; their ids are below it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// How a service was declared.
    #[must_use]
    pub fn spec(&self, id: Id) -> &Spec {
        &self.services[id].spec
    }

    /// State of a service.
    #[must_use]
    pub fn state(&self, id: Id) -> State {
        self.services[id].state
    }

    /// Process of a service.
    #[must_use]
    pub fn pid(&self, id: Id) -> Option<u32> {
        self.services[id].pid()
    }

    /// Starts after the first one.
    #[must_use]
    pub fn restarts(&self, id: Id) -> u32 {
        self.services[id].restarts
    }

    /// Its own words, or how it ended last.
    #[must_use]
    pub fn detail(&self, id: Id) -> &str {
        &self.services[id].detail
    }

    /// Health of the box.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.health
    }
}

#[cfg(test)]
mod tests;
