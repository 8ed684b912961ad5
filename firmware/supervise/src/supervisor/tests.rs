//! Scripts: silence before each deadline and action at it; then random failures over many seeds.

use std::collections::{HashMap, HashSet};

use super::*;

const S: Duration = Duration::from_secs(1);
const NS: Duration = Duration::from_nanos(1);

fn spec(name: &'static str, after: &[&'static str], kind: Kind) -> Spec {
    Spec {
        name,
        after: after.to_vec(),
        kind,
        essential: true,
        start_deadline: 10 * S,
        watchdog: Some(20 * S),
        stop_deadline: 3 * S,
        reloads: true,
        on_demand: false,
        optional: false,
        late: false,
        longest_pause: crate::LONGEST_PAUSE,
    }
}

const NOTIFY: Kind = Kind::Daemon(Readiness::Notify);

fn trio() -> Supervisor {
    let specs =
        vec![spec("site", &[], Kind::OneShot), spec("net", &["site"], NOTIFY), spec("dns", &["net"], NOTIFY)];
    let mut supervisor = Supervisor::new(specs, 1).unwrap();
    supervisor.handle_timeout(Duration::ZERO);
    supervisor
}

fn outputs(supervisor: &mut Supervisor) -> Vec<Output> {
    std::iter::from_fn(|| supervisor.poll_output()).collect()
}

#[track_caller]
fn expect(supervisor: &mut Supervisor, expected: &[Output]) {
    assert_eq!(outputs(supervisor), expected);
}

/// Brings all three up at time zero, as processes 10, 11, 12.
fn running() -> Supervisor {
    let mut supervisor = trio();
    supervisor.spawned(Duration::ZERO, 0, 10);
    supervisor.handle_exit(Duration::ZERO, 10, Exit::Code(0));
    for (id, pid) in [(1, 11), (2, 12)] {
        supervisor.spawned(Duration::ZERO, id, pid);
        supervisor.handle_message(Duration::ZERO, id, Message::Ready);
    }
    outputs(&mut supervisor);
    supervisor
}

#[test]
fn services_start_in_order_of_readiness() {
    let mut supervisor = trio();
    expect(&mut supervisor, &[Output::Spawn(0)]);
    supervisor.spawned(S, 0, 10);
    expect(&mut supervisor, &[]);
    supervisor.handle_exit(S, 10, Exit::Code(0));
    expect(&mut supervisor, &[Output::Kill(0), Output::Finished { id: 0, success: true }, Output::Spawn(1)]);
    supervisor.spawned(S, 1, 11);
    expect(&mut supervisor, &[]);
    supervisor.handle_message(2 * S, 1, Message::Ready);
    expect(&mut supervisor, &[Output::Spawn(2)]);
}

#[test]
fn late_services_wait_for_their_turn_whoever_asks_for_them() {
    let late = |name| Spec { essential: false, late: true, ..spec(name, &["net"], Kind::OneShot) };
    let asked = Spec { on_demand: true, ..late("asked") };
    let mut supervisor = Supervisor::new(vec![spec("net", &[], NOTIFY), late("log"), asked], 1).unwrap();
    supervisor.handle_timeout(Duration::ZERO);
    expect(&mut supervisor, &[Output::Spawn(0)]);
    supervisor.spawned(Duration::ZERO, 0, 10);
    supervisor.handle_message(S, 0, Message::Ready);
    supervisor.restart(S, 2);
    expect(&mut supervisor, &[]);
    assert_eq!([supervisor.state(1), supervisor.state(2)], [State::Waiting; 2]);
    supervisor.admit_late(2 * S);
    expect(&mut supervisor, &[Output::Spawn(1), Output::Spawn(2)]);
    supervisor.spawned(2 * S, 2, 12);
    supervisor.handle_exit(3 * S, 12, Exit::Code(0));
    outputs(&mut supervisor);
    supervisor.restart(4 * S, 2);
    expect(&mut supervisor, &[Output::Spawn(2)]);
}

#[test]
fn a_failure_releases_those_behind_it() {
    let mut supervisor = trio();
    outputs(&mut supervisor);
    supervisor.spawn_failed(S, 0, "no memory");
    let failure = Output::Failure { id: 0, reason: "no memory".into() };
    expect(&mut supervisor, &[failure, Output::Spawn(1)]);
}

#[test]
fn a_start_that_takes_too_long_is_killed_and_not_before() {
    let mut supervisor = running();
    supervisor.handle_exit(S, 12, Exit::Signal(11));
    outputs(&mut supervisor);
    let again = supervisor.poll_timeout().unwrap();
    supervisor.handle_timeout(again);
    expect(&mut supervisor, &[Output::Spawn(2)]);
    supervisor.spawned(again, 2, 13);
    assert_eq!(supervisor.poll_timeout(), Some(again + 10 * S));
    supervisor.handle_timeout(again + 10 * S - NS);
    expect(&mut supervisor, &[]);
    supervisor.handle_timeout(again + 10 * S);
    expect(
        &mut supervisor,
        &[Output::Failure { id: 2, reason: "not ready in time".into() }, Output::Kill(2)],
    );
    assert_eq!(supervisor.pid(2), Some(13), "it counts as alive until it is reaped");
}

#[test]
fn silence_is_a_hang_only_at_the_watchdog_deadline() {
    let mut supervisor = running();
    supervisor.handle_message(15 * S, 1, Message::Watchdog);
    supervisor.handle_message(15 * S, 2, Message::Watchdog);
    outputs(&mut supervisor);
    supervisor.handle_message(30 * S, 2, Message::Watchdog);
    supervisor.handle_timeout(35 * S - NS);
    expect(&mut supervisor, &[]);
    supervisor.handle_timeout(35 * S);
    let reason = "watchdog: no sign of life".to_owned();
    expect(&mut supervisor, &[Output::Failure { id: 1, reason }, Output::Kill(1)]);
    supervisor.handle_exit(35 * S, 11, Exit::Signal(9));
    outputs(&mut supervisor);
    let State::Backoff { until } = supervisor.state(1) else { panic!("{:?}", supervisor.state(1)) };
    assert!(until < 36 * S, "back within a second");
    supervisor.handle_timeout(until - NS);
    expect(&mut supervisor, &[]);
    supervisor.handle_timeout(until);
    expect(&mut supervisor, &[Output::Spawn(1)]);
    assert_eq!(supervisor.restarts(1), 1);
}

#[test]
fn a_killed_daemon_starts_again_at_once_and_says_how_long_it_was_away() {
    let mut supervisor = running();
    supervisor.handle_exit(S, 12, Exit::Signal(9));
    outputs(&mut supervisor);
    assert_eq!(supervisor.poll_timeout(), Some(S));
    supervisor.handle_timeout(S);
    expect(&mut supervisor, &[Output::Spawn(2)]);
    supervisor.spawned(S, 2, 13);
    supervisor.handle_message(2 * S, 2, Message::Ready);
    expect(&mut supervisor, &[Output::Recovered { id: 2, after: S }]);
    // A restart somebody asked for is no recovery.
    supervisor.restart(3 * S, 2);
    supervisor.handle_exit(3 * S, 13, Exit::Code(0));
    supervisor.spawned(3 * S, 2, 14);
    outputs(&mut supervisor);
    supervisor.handle_message(4 * S, 2, Message::Ready);
    expect(&mut supervisor, &[]);
}

#[test]
fn a_condemned_daemon_is_killed_with_its_group_and_starts_again() {
    let mut supervisor = running();
    supervisor.condemn(S, 1, "too many processes");
    let reason = "too many processes".to_owned();
    expect(&mut supervisor, &[Output::Failure { id: 1, reason }, Output::Kill(1)]);
    supervisor.condemn(S, 1, "too many processes");
    expect(&mut supervisor, &[]);
    supervisor.handle_exit(S, 11, Exit::Signal(9));
    supervisor.handle_timeout(S);
    assert!(outputs(&mut supervisor).contains(&Output::Spawn(1)));
}

#[test]
fn a_machine_that_stood_still_is_not_a_daemon_that_hangs() {
    let mut supervisor = running();
    supervisor.forgive(100 * S);
    supervisor.handle_timeout(120 * S - NS);
    assert!(!outputs(&mut supervisor).iter().any(|output| matches!(output, Output::Kill(_))));
    supervisor.handle_timeout(120 * S);
    assert!(outputs(&mut supervisor).contains(&Output::Kill(1)));
}

#[test]
fn a_daemon_that_ends_with_success_has_failed() {
    let mut supervisor = running();
    supervisor.handle_exit(S, 11, Exit::Code(0));
    let reason = "exited with code 0".to_owned();
    expect(&mut supervisor, &[Output::Kill(1), Output::Failure { id: 1, reason }]);
    assert!(matches!(supervisor.state(1), State::Backoff { .. }));
}

#[test]
fn a_long_good_run_forgives_earlier_failures() {
    let mut supervisor = running();
    let mut now = S;
    for pid in 100..110 {
        let current = supervisor.pid(2).unwrap();
        supervisor.handle_exit(now, current, Exit::Code(1));
        let State::Backoff { until } = supervisor.state(2) else { panic!() };
        now = until;
        supervisor.handle_timeout(now);
        supervisor.spawned(now, 2, pid);
        supervisor.handle_message(now, 2, Message::Ready);
    }
    let end = now + 60 * S;
    supervisor.handle_exit(end, 109, Exit::Code(1));
    let State::Backoff { until } = supervisor.state(2) else { panic!() };
    assert!(until - end < S);
}

#[test]
fn a_one_shot_is_given_up_after_five_attempts() {
    let mut supervisor = trio();
    let mut now = S;
    for attempt in 0..5 {
        let spawned = outputs(&mut supervisor).contains(&Output::Spawn(0));
        assert!(spawned, "attempt {attempt}");
        supervisor.spawned(now, 0, 50 + attempt);
        supervisor.handle_exit(now, 50 + attempt, Exit::Code(1));
        if let State::Backoff { until } = supervisor.state(0) {
            now = until;
            supervisor.handle_timeout(now);
        }
    }
    assert_eq!(supervisor.state(0), State::Failed);
    assert!(outputs(&mut supervisor).contains(&Output::Finished { id: 0, success: false }));
    supervisor.restart(now, 0);
    expect(&mut supervisor, &[Output::Spawn(0)]);
}

/// One optional daemon, which runs when it is asked for, as process 10.
fn optional() -> Supervisor {
    let spec = Spec { essential: false, on_demand: true, optional: true, ..spec("samba", &[], NOTIFY) };
    let mut supervisor = Supervisor::new(vec![spec], 1).unwrap();
    supervisor.handle_timeout(Duration::ZERO);
    supervisor.reload();
    expect(&mut supervisor, &[]);
    supervisor.restart(Duration::ZERO, 0);
    supervisor.spawned(Duration::ZERO, 0, 10);
    outputs(&mut supervisor);
    supervisor
}

#[test]
fn who_has_nothing_to_do_is_done_until_the_configuration_changes() {
    let mut supervisor = optional();
    supervisor.handle_exit(S, 10, Exit::Code(0));
    expect(&mut supervisor, &[Output::Kill(0)]);
    assert_eq!(supervisor.state(0), State::Done);
    supervisor.reload();
    expect(&mut supervisor, &[Output::Spawn(0)]);
    supervisor.reload();
    expect(&mut supervisor, &[]);
    supervisor.spawned(2 * S, 0, 11);
    supervisor.handle_message(2 * S, 0, Message::Ready);
    // Told by SIGHUP that there is nothing left to do.
    supervisor.handle_exit(3 * S, 11, Exit::Code(0));
    expect(&mut supervisor, &[Output::Signal(0, 11, SignalKind::Reload), Output::Kill(0)]);
    assert_eq!(supervisor.state(0), State::Done);
    supervisor.shut_down(4 * S);
    expect(&mut supervisor, &[Output::AllStopped]);
    supervisor.reload();
    expect(&mut supervisor, &[]);
}

#[test]
fn another_configuration_may_be_what_a_failing_one_waits_for() {
    let mut supervisor = optional();
    for pid in 10..13 {
        supervisor.handle_exit(S, pid, Exit::Code(1));
        supervisor.handle_timeout(1000 * S);
        supervisor.spawned(S, 0, pid + 1);
    }
    supervisor.handle_exit(S, 13, Exit::Code(1));
    outputs(&mut supervisor);
    assert!(matches!(supervisor.state(0), State::Backoff { .. }));
    supervisor.reload();
    expect(&mut supervisor, &[Output::Spawn(0)]);
}

#[test]
fn reload_reaches_a_starting_daemon_when_it_is_ready() {
    let mut supervisor = running();
    supervisor.restart(S, 2);
    expect(&mut supervisor, &[Output::Signal(2, 12, SignalKind::Terminate)]);
    supervisor.handle_exit(S, 12, Exit::Code(0));
    expect(&mut supervisor, &[Output::Kill(2), Output::Spawn(2)]);
    supervisor.spawned(S, 2, 13);
    supervisor.reload();
    expect(&mut supervisor, &[Output::Signal(1, 11, SignalKind::Reload)]);
    supervisor.handle_message(S, 2, Message::Ready);
    expect(&mut supervisor, &[Output::Signal(2, 13, SignalKind::Reload)]);
}

#[test]
fn a_service_on_demand_runs_only_when_asked() {
    let mut later = spec("clock", &[], Kind::OneShot);
    later.on_demand = true;
    let mut supervisor = Supervisor::new(vec![later], 1).unwrap();
    supervisor.handle_timeout(Duration::ZERO);
    expect(&mut supervisor, &[]);
    supervisor.restart(S, 0);
    expect(&mut supervisor, &[Output::Spawn(0)]);
}

#[test]
fn a_one_shot_that_worked_once_and_fails_later_is_no_illness() {
    let mut supervisor = running();
    supervisor.handle_timeout(5 * S);
    assert!(supervisor.health().proven());
    supervisor.restart(6 * S, 0);
    let mut now = 6 * S;
    while supervisor.state(0) != State::Failed {
        supervisor.spawned(now, 0, 20);
        supervisor.handle_exit(now, 20, Exit::Code(1));
        now += 60 * S;
        for (id, message) in [(1, Message::Watchdog), (2, Message::Watchdog)] {
            supervisor.handle_message(now, id, message);
        }
        supervisor.handle_timeout(now);
    }
    // Daemons run, the site of before is in force: a reboot would help nobody.
    assert!(supervisor.health().feeds_watchdog(now + 1000 * S));
}

#[test]
fn a_one_shot_that_cannot_even_be_started_ends_too() {
    let mut supervisor = trio();
    let mut now = S;
    while supervisor.state(0) != State::Failed {
        supervisor.spawn_failed(now, 0, "no memory");
        now += 60 * S;
        supervisor.handle_timeout(now);
    }
    assert!(outputs(&mut supervisor).contains(&Output::Finished { id: 0, success: false }));
}

#[test]
fn the_box_proves_itself_once() {
    let mut supervisor = running();
    assert_eq!(supervisor.poll_timeout(), Some(5 * S));
    supervisor.handle_timeout(5 * S - NS);
    expect(&mut supervisor, &[]);
    supervisor.handle_timeout(5 * S);
    expect(&mut supervisor, &[Output::Proven]);
    supervisor.handle_timeout(6 * S);
    expect(&mut supervisor, &[]);
}

#[test]
fn shutdown_goes_backwards_and_kills_what_hangs() {
    let mut supervisor = running();
    supervisor.shut_down(S);
    expect(&mut supervisor, &[Output::Signal(2, 12, SignalKind::Terminate)]);
    supervisor.handle_exit(S, 12, Exit::Code(0));
    expect(&mut supervisor, &[Output::Kill(2), Output::Signal(1, 11, SignalKind::Terminate)]);
    supervisor.handle_timeout(4 * S - NS);
    expect(&mut supervisor, &[]);
    supervisor.handle_timeout(4 * S);
    let reason = "did not end in time, killed".to_owned();
    expect(&mut supervisor, &[Output::Failure { id: 1, reason }, Output::Kill(1)]);
    supervisor.handle_exit(5 * S, 11, Exit::Signal(9));
    expect(&mut supervisor, &[Output::Kill(1), Output::AllStopped]);
    assert_eq!(supervisor.poll_timeout(), None);
    supervisor.restart(6 * S, 1);
    expect(&mut supervisor, &[]);
}

#[test]
fn declarations_are_checked() {
    let double = vec![spec("a", &[], NOTIFY), spec("a", &[], NOTIFY)];
    assert_eq!(Supervisor::new(double, 0).unwrap_err(), SpecError::Duplicate("a"));
    let cycle = vec![spec("a", &["b"], NOTIFY), spec("b", &["a"], NOTIFY)];
    assert_eq!(Supervisor::new(cycle, 0).unwrap_err(), SpecError::After("a", "b"));
}

/// A world in which anything may fail at any time; it checks the invariants at every step.
struct World {
    supervisor: Supervisor,
    random: fastrand::Rng,
    now: Duration,
    next_pid: u32,
    processes: HashMap<u32, Id>,
    doomed: HashSet<u32>,
    stopped: bool,
    trouble: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let specs = vec![
            spec("modules", &[], Kind::Daemon(Readiness::Immediate)),
            spec("storage", &["modules"], Kind::OneShot),
            spec("site", &[], Kind::OneShot),
            spec("netd", &["site"], NOTIFY),
            spec("dnsd", &["site", "netd"], NOTIFY),
            spec("console", &["modules", "dnsd"], NOTIFY),
        ];
        Self {
            supervisor: Supervisor::new(specs, seed).unwrap(),
            random: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            next_pid: 100,
            processes: HashMap::new(),
            doomed: HashSet::new(),
            stopped: false,
            trouble: 30,
        }
    }

    fn chance(&mut self) -> bool {
        self.random.u32(0..100) < self.trouble
    }

    fn obey(&mut self) {
        while let Some(output) = self.supervisor.poll_output() {
            match output {
                Output::Spawn(id) => self.spawn(id),
                Output::Kill(id) => {
                    self.doomed
                        .extend(self.processes.iter().filter(|(_, of)| **of == id).map(|(pid, _)| *pid));
                }
                Output::Signal(_, pid, SignalKind::Terminate) if !self.chance() => {
                    self.doomed.insert(pid);
                }
                Output::AllStopped => self.stopped = true,
                _ => {}
            }
        }
    }

    fn spawn(&mut self, id: Id) {
        assert!(!self.stopped, "nothing starts after the end");
        assert!(self.processes.values().all(|of| *of != id), "a second process for {id}");
        if self.chance() {
            return self.supervisor.spawn_failed(self.now, id, "no memory");
        }
        self.next_pid += 1;
        self.processes.insert(self.next_pid, id);
        self.supervisor.spawned(self.now, id, self.next_pid);
    }

    fn reap(&mut self, pid: u32, exit: Exit) {
        self.processes.remove(&pid);
        self.doomed.remove(&pid);
        assert!(self.supervisor.handle_exit(self.now, pid, exit));
    }

    fn step(&mut self) {
        self.obey();
        if let Some(pid) = self.doomed.iter().min().copied() {
            return self.reap(pid, Exit::Signal(9));
        }
        let soon = self.now + Duration::from_millis(self.random.u64(1..3000));
        let timeout = self.supervisor.poll_timeout().unwrap_or(soon);
        assert!(timeout >= self.now || timeout <= soon);
        self.now = self.now.max(timeout.min(soon));
        self.supervisor.handle_timeout(self.now);
        let mut processes: Vec<(u32, Id)> = self.processes.iter().map(|(pid, id)| (*pid, *id)).collect();
        processes.sort_unstable();
        for (pid, id) in processes {
            let one_shot = self.supervisor.spec(id).kind == Kind::OneShot;
            if one_shot && !self.chance() {
                self.reap(pid, Exit::Code(0));
            } else if self.chance() && self.chance() {
                self.reap(pid, Exit::Code(1));
            } else if !self.chance() {
                self.supervisor.handle_message(self.now, id, Message::Ready);
                self.supervisor.handle_message(self.now, id, Message::Watchdog);
            }
            self.obey();
        }
    }

    fn healthy(&self) -> bool {
        (0..self.supervisor.len()).all(|id| {
            matches!(self.supervisor.state(id), State::Running { .. } | State::Done | State::Failed)
        })
    }
}

#[test]
fn whatever_fails_it_recovers_when_the_trouble_ends_and_stops_when_told() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..200 {
            world.step();
        }
        world.trouble = 0;
        let calm = (0..400).any(|_| {
            world.step();
            world.healthy()
        });
        assert!(calm, "seed {seed}: still ill after the trouble");
        world.trouble = 50;
        world.supervisor.shut_down(world.now);
        let begin = world.now;
        for _ in 0..400 {
            world.step();
        }
        assert!(world.stopped, "seed {seed}: never stopped");
        assert!(world.processes.is_empty(), "seed {seed}: left {:?}", world.processes);
        assert!(world.now - begin < 3000 * S);
    }
}
