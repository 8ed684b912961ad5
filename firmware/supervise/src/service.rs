//! One service: what it is, and the state it is in.

use std::time::Duration;

use crate::backoff::{Backoff, STABLE};

/// A service as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name, unique.
    pub name: &'static str,
    /// Services that must be ready (or have failed once) before this one is started.
    pub after: Vec<&'static str>,
    /// Daemon or one-shot.
    pub kind: Kind,
    /// Whether the box is healthy only with it.
    pub essential: bool,
    /// How long a start (of a one-shot: the whole run) may take.
    pub start_deadline: Duration,
    /// Longest silence between two `WATCHDOG=1` once ready.
    pub watchdog: Option<Duration>,
    /// How long it may take to end after SIGTERM.
    pub stop_deadline: Duration,
    /// Whether SIGHUP makes it read its configuration again.
    pub reloads: bool,
    /// Only runs when it is asked for; until then it counts as done.
    pub on_demand: bool,
    /// A daemon that may have nothing to do here: when it ends with code 0 it is done, until the configuration changes.
    pub optional: bool,
    /// Not urgent: its first start waits for [`crate::Supervisor::admit_late`].
    pub late: bool,
    /// Longest pause between two starts of one that fails again and again.
    pub longest_pause: Duration,
}

/// Daemon or one-shot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs for ever; any exit is a failure.
    Daemon(Readiness),
    /// Runs to its end; tried again a few times when it fails.
    OneShot,
}

/// When a daemon counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// When it says `READY=1`.
    Notify,
    /// As soon as it is started.
    Immediate,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By the kernel, because its control group was out of its memory limit.
    MemoryLimit {
        /// The limit.
        mib: u32,
    },
    /// By the kernel, because the whole box was out of memory.
    OutOfMemory,
}

impl Exit {
    /// For people.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Code(code) => format!("exited with code {code}"),
            Self::Signal(signal) => format!("killed by signal {signal}"),
            Self::MemoryLimit { mib } => format!("killed: out of its memory limit of {mib} MiB"),
            Self::OutOfMemory => "killed: the box is out of memory".to_owned(),
        }
    }
}

/// A failed one-shot is tried this often in a row before it is left alone.
pub(crate) const ONE_SHOT_ATTEMPTS: u32 = 5;

/// What happens when a service that is being stopped has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Start it again at once (an operator asked).
    Restart,
    /// It failed: start it again after the backoff.
    Backoff,
    /// Leave it: the box is going down.
    Stay,
}

/// State of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits for the services it is ordered after, or for its turn if it is late.
    Waiting,
    /// A spawn has been asked for and not been answered.
    Launching,
    /// Has a process and is not ready.
    Starting {
        /// Process.
        pid: u32,
        /// When it is killed.
        deadline: Duration,
    },
    /// Ready.
    Running {
        /// Process.
        pid: u32,
        /// Since when.
        since: Duration,
        /// When silence becomes a hang.
        watchdog: Option<Duration>,
    },
    /// Told to end, or killed.
    Stopping {
        /// Process.
        pid: u32,
        /// When SIGKILL follows; nothing once it has been sent.
        kill_at: Option<Duration>,
        /// What comes after.
        then: Then,
    },
    /// Failed; is started again at that time.
    Backoff {
        /// When.
        until: Duration,
    },
    /// A one-shot that succeeded.
    Done,
    /// A one-shot that failed for good.
    Failed,
    /// Ended because the box goes down.
    Stopped,
}

/// A service and its run-time state.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) spec: Spec,
    pub(crate) state: State,
    /// Indices of `spec.after`.
    pub(crate) after: Vec<usize>,
    /// Whether those ordered after it may start.
    pub(crate) released: bool,
    pub(crate) restarts: u32,
    pub(crate) detail: String,
    pub(crate) reload_pending: bool,
    /// A one-shot that has done its work: what it made is there, whatever becomes of a later run.
    pub(crate) succeeded: bool,
    /// An optional daemon that has said there is nothing to do.
    pub(crate) declined: bool,
    /// Since when a daemon that was ready is not any more, without having been asked.
    pub(crate) down_since: Option<Duration>,
    pub(crate) backoff: Backoff,
}

impl Service {
    pub(crate) const fn pid(&self) -> Option<u32> {
        match self.state {
            State::Starting { pid, .. } | State::Running { pid, .. } | State::Stopping { pid, .. } => {
                Some(pid)
            }
            _ => None,
        }
    }

    /// Whether a process exists or may exist.
    pub(crate) const fn is_live(&self) -> bool {
        self.pid().is_some() || matches!(self.state, State::Launching)
    }

    /// Whether the box can be healthy with this service as it is.
    pub(crate) const fn is_well(&self) -> bool {
        !self.spec.essential || self.succeeded || matches!(self.state, State::Running { .. } | State::Done)
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        match self.state {
            State::Starting { deadline, .. } => Some(deadline),
            State::Running { watchdog, .. } => watchdog,
            State::Stopping { kill_at, .. } => kill_at,
            State::Backoff { until } => Some(until),
            _ => None,
        }
    }

    /// Whether a process that ended like this did what it was for.
    pub(crate) fn is_done_by(&self, exit: Exit) -> bool {
        exit == Exit::Code(0) && (self.spec.kind == Kind::OneShot || self.spec.optional)
    }

    /// Whether another configuration may make a difference to it, which does not run.
    pub(crate) const fn may_have_work(&self) -> bool {
        self.declined || self.spec.optional && matches!(self.state, State::Backoff { .. })
    }

    /// It did what it was for.
    pub(crate) fn succeed(&mut self) {
        self.state = State::Done;
        self.succeeded = self.spec.kind == Kind::OneShot;
        self.declined = !self.succeeded;
        self.released = true;
        self.down_since = None;
        self.backoff.reset();
    }

    /// The next watchdog deadline, counted from `now`.
    pub(crate) fn watchdog_from(&self, now: Duration) -> Option<Duration> {
        self.spec.watchdog.map(|limit| now + limit)
    }

    /// The present run is not what was wanted: nobody waits for it any longer, and a long good run before
    /// it forgives earlier failures.
    pub(crate) fn give_up_run(&mut self, now: Duration) {
        self.released = true;
        if let State::Running { since, .. } = self.state {
            self.down_since.get_or_insert(now);
            if now >= since + STABLE {
                self.backoff.reset();
            }
        }
    }

    /// The present run is over and was not what was wanted.
    pub(crate) fn fail(&mut self, now: Duration) {
        self.give_up_run(now);
        let gives_up = self.spec.kind == Kind::OneShot && self.backoff.failures() + 1 >= ONE_SHOT_ATTEMPTS;
        let delay = self.backoff.next_delay();
        self.state = if gives_up { State::Failed } else { State::Backoff { until: now + delay } };
    }
}
