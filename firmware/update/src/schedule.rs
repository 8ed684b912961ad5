//! When a box looks for releases, fetches and installs them. Monotonic time and randomness are arguments.

use std::time::Duration;

use crate::decision::{Choice, Wish};
use crate::version::Version;

/// After power came back to a whole town, not all its boxes ask at once, and none while its office boots.
const FIRST_LOOK: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(900));
/// Between looks: four times a day, spread.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(16_200), Duration::from_secs(27_000));
/// After something failed: a line that is down is often back in a minute. Doubled each time, up to an ordinary pause.
const AGAIN: Duration = Duration::from_secs(120);
/// Doublings.
const MAX_DOUBLINGS: u32 = 7;

/// What may be done without being asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Looking, where there is a repository to look at.
    pub look: bool,
    /// Downloading.
    pub fetch: bool,
    /// Installing, and restarting.
    pub install: bool,
}

/// Where the box stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is under way.
    Idle,
    /// It is looking.
    Looking,
    /// It is downloading this release.
    Fetching(Version),
    /// This one is there, and waits for the maintenance window or an operator.
    Fetched(Version),
    /// This one is being written.
    Installing(Version),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Look.
    Look(Wish),
    /// Download.
    Fetch(Version, Wish),
    /// Write it, and restart.
    Install(Version, Wish),
}

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Look now.
    Look,
    /// Look, fetch and install now, across a major version if one is named.
    Install {
        /// The major version.
        major: Option<u32>,
    },
}

/// The schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    phase: Phase,
    look_at: Duration,
    asked: Option<Ask>,
    failures: u32,
}

impl Schedule {
    /// From the start of the daemon.
    pub fn new(now: Duration, random: &mut impl FnMut() -> u32) -> Self {
        Self { phase: Phase::Idle, look_at: now + between(FIRST_LOOK, random), asked: None, failures: 0 }
    }

    /// Where the box stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When it looks next by itself.
    #[must_use]
    pub fn look_at(&self) -> Duration {
        self.look_at
    }

    /// An operator asks; whatever is fetched already is used.
    pub fn ask(&mut self, now: Duration, ask: Ask) {
        self.asked = Some(ask);
        if matches!(self.phase, Phase::Idle | Phase::Fetched(_)) {
            (self.phase, self.look_at) = (Phase::Idle, now);
        }
    }

    /// Looking or fetching was stopped: for what is asked next.
    pub fn interrupt(&mut self) {
        if matches!(self.phase, Phase::Looking | Phase::Fetching(_)) {
            self.phase = Phase::Idle;
        }
    }

    fn wish(&self) -> Wish {
        match self.asked {
            Some(Ask::Install { major }) => Wish::Operator { major },
            _ => Wish::Automatic,
        }
    }

    /// What is due, if anything: the caller does it and says how it ended.
    pub fn poll(&mut self, now: Duration, policy: Policy, window_is_open: bool) -> Option<Action> {
        match self.phase {
            Phase::Idle if now >= self.look_at && (policy.look || self.asked.is_some()) => {
                self.phase = Phase::Looking;
                Some(Action::Look(self.wish()))
            }
            // What is withdrawn while it waits must not be installed.
            Phase::Fetched(_) if now >= self.look_at && policy.look => {
                self.phase = Phase::Looking;
                Some(Action::Look(self.wish()))
            }
            Phase::Fetched(version) if self.asks_to_install() || (policy.install && window_is_open) => {
                self.phase = Phase::Installing(version);
                Some(Action::Install(version, self.wish()))
            }
            _ => None,
        }
    }

    fn asks_to_install(&self) -> bool {
        matches!(self.asked, Some(Ask::Install { .. }))
    }

    /// It has looked, and this is what the channel says; nothing when it could not look or the rules stand against it.
    pub fn looked(
        &mut self,
        now: Duration,
        choice: Option<Choice>,
        policy: Policy,
        random: &mut impl FnMut() -> u32,
    ) -> Option<Action> {
        self.phase = Phase::Idle;
        match choice {
            Some(Choice::Take(version)) if policy.fetch || self.asks_to_install() => {
                self.phase = Phase::Fetching(version);
                return Some(Action::Fetch(version, self.wish()));
            }
            Some(_) => self.rest(now, random),
            None => self.fail(now, random),
        }
        None
    }

    /// The download has ended.
    pub fn fetched(&mut self, now: Duration, success: bool, random: &mut impl FnMut() -> u32) {
        match self.phase {
            Phase::Fetching(version) if success => {
                (self.phase, self.failures) = (Phase::Fetched(version), 0);
                self.look_at = now + between(LOOK_EVERY, random);
            }
            _ => self.fail(now, random),
        }
    }

    /// Installing has failed; when it works, the box restarts.
    pub fn not_installed(&mut self, now: Duration, random: &mut impl FnMut() -> u32) {
        self.fail(now, random);
    }

    fn rest(&mut self, now: Duration, random: &mut impl FnMut() -> u32) {
        (self.phase, self.asked, self.failures) = (Phase::Idle, None, 0);
        self.look_at = now + between(LOOK_EVERY, random);
    }

    fn fail(&mut self, now: Duration, random: &mut impl FnMut() -> u32) {
        (self.phase, self.asked) = (Phase::Idle, None);
        self.look_at = now + pause((AGAIN, MAX_DOUBLINGS), &mut self.failures, random);
    }
}

/// After one more failure: up to `again`, doubled with each of them, `most` times.
pub(crate) fn pause(
    (again, most): (Duration, u32),
    failures: &mut u32,
    random: &mut impl FnMut() -> u32,
) -> Duration {
    let longest = again * 2_u32.pow((*failures).min(most));
    *failures = failures.saturating_add(1);
    between((longest / 2, longest), random)
}

/// A random time between two.
pub(crate) fn between((least, most): (Duration, Duration), random: &mut impl FnMut() -> u32) -> Duration {
    least + (most - least).mul_f64(f64::from(random()) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Policy = Policy { look: true, fetch: true, install: true };
    const VERSION: Version = Version { major: 0, minor: 2, build: 0 };
    const OPERATOR: Wish = Wish::Operator { major: None };

    fn middle() -> impl FnMut() -> u32 {
        || u32::MAX / 2
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_automatic_update_waits_for_its_window() {
        let mut schedule = Schedule::new(seconds(10), &mut middle());
        let first = schedule.look_at();
        assert!(first > seconds(310) && first < seconds(910));
        assert_eq!(schedule.poll(first - seconds(1), ALL, true), None);
        assert_eq!(schedule.poll(first, ALL, true), Some(Action::Look(Wish::Automatic)));
        assert_eq!(schedule.poll(first, ALL, true), None, "once");
        let fetch = schedule.looked(first, Some(Choice::Take(VERSION)), ALL, &mut middle());
        assert_eq!(fetch, Some(Action::Fetch(VERSION, Wish::Automatic)));
        schedule.fetched(first, true, &mut middle());
        assert_eq!(schedule.poll(seconds(5_000), ALL, false), None);
        let install = schedule.clone().poll(seconds(5_000), ALL, true);
        assert_eq!(install, Some(Action::Install(VERSION, Wish::Automatic)));
        assert_eq!(schedule.poll(seconds(100_000), ALL, true), Some(Action::Look(Wish::Automatic)), "again");
        assert!(schedule.looked(seconds(100_000), Some(Choice::Take(VERSION)), ALL, &mut middle()).is_some());
        schedule.fetched(seconds(100_001), true, &mut middle());
        let install = schedule.poll(seconds(100_001), ALL, true);
        assert_eq!(install, Some(Action::Install(VERSION, Wish::Automatic)));
        assert_eq!(schedule.phase(), Phase::Installing(VERSION));
    }

    #[test]
    fn nothing_is_done_that_the_policy_does_not_allow() {
        let mut schedule = Schedule::new(seconds(0), &mut middle());
        let nothing = Policy::default();
        assert_eq!(schedule.poll(seconds(100_000), nothing, true), None);
        let look = Policy { look: true, ..nothing };
        assert!(schedule.poll(seconds(100_000), look, true).is_some());
        assert_eq!(schedule.looked(seconds(100_000), Some(Choice::Take(VERSION)), look, &mut middle()), None);
        assert!(schedule.look_at() > seconds(116_000));
        let fetch = Policy { fetch: true, ..look };
        assert!(schedule.poll(seconds(200_000), fetch, true).is_some());
        assert!(
            schedule.looked(seconds(200_000), Some(Choice::Take(VERSION)), fetch, &mut middle()).is_some()
        );
        schedule.fetched(seconds(200_000), true, &mut middle());
        assert_eq!(schedule.poll(seconds(201_000), fetch, true), None, "it waits for an operator");
    }

    #[test]
    fn an_operator_waits_for_nothing() {
        let mut schedule = Schedule::new(seconds(0), &mut middle());
        schedule.ask(seconds(5), Ask::Install { major: None });
        assert_eq!(schedule.poll(seconds(5), Policy::default(), false), Some(Action::Look(OPERATOR)));
        let choice = Some(Choice::Take(VERSION));
        let fetch = schedule.looked(seconds(6), choice, Policy::default(), &mut middle());
        assert_eq!(fetch, Some(Action::Fetch(VERSION, OPERATOR)));
        schedule.fetched(seconds(7), true, &mut middle());
        let install = schedule.poll(seconds(7), Policy::default(), false);
        assert_eq!(install, Some(Action::Install(VERSION, OPERATOR)));
        schedule.not_installed(seconds(8), &mut middle());
        assert_eq!(schedule.poll(seconds(9), Policy::default(), true), None, "asked once, tried once");
    }

    #[test]
    fn what_an_operator_asks_for_takes_the_place_of_a_download() {
        let mut schedule = Schedule::new(seconds(0), &mut middle());
        schedule.ask(seconds(1), Ask::Look);
        assert_eq!(schedule.poll(seconds(1), ALL, false), Some(Action::Look(Wish::Automatic)));
        schedule.looked(seconds(2), Some(Choice::Take(VERSION)), ALL, &mut middle());
        assert_eq!(schedule.phase(), Phase::Fetching(VERSION));
        schedule.interrupt();
        schedule.ask(seconds(3), Ask::Install { major: None });
        assert_eq!(schedule.poll(seconds(3), ALL, false), Some(Action::Look(OPERATOR)));
    }

    #[test]
    fn what_fails_is_tried_again_later_and_later() {
        let mut schedule = Schedule::new(seconds(0), &mut middle());
        let mut now = schedule.look_at();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(schedule.poll(now, ALL, false).is_some());
            schedule.looked(now, None, ALL, &mut middle());
            pauses.push((schedule.look_at() - now).as_secs());
            now = schedule.look_at();
        }
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
        assert!(pauses[0] <= 120 && pauses[7] > 10_000 && pauses[7] <= 19_200, "{pauses:?}");
    }
}
