//! What works on a box, before an update and after it.
//!
//! What worked before must work after; what did not is not blamed on the release. Each thing has a name that stays the same
//! from release to release, because one release writes down what another compares.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The names of what works: `service dhcpd`, `network office`, `uplink`, `names`, `disk`, `component samba` …
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Health {
    works: BTreeSet<String>,
}

/// What is to be thought of a release that has been booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that worked before works.
    Good,
    /// Some of it does not yet.
    Wait(Vec<String>),
    /// Some of it does not, and its time is over or it has given up.
    Bad(Vec<String>),
}

/// What a box looks like while a release is on trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trial {
    /// What works.
    pub now: Health,
    /// What has given up: waiting longer is in vain.
    pub given_up: BTreeSet<String>,
    /// What this release cannot tell: an older one knew more.
    pub unknown: BTreeSet<String>,
    /// Seconds since the kernel started.
    pub uptime_s: u64,
}

/// The gateway has this long to come up: three boots that fail with it, and the one of the old release, stay below what an office
/// notices as an outage of its provider. A slow machine with a slow disk needs a minute.
pub const GATEWAY_S: u64 = 120;
/// Components have longer: one brings its state to a new form first, and nobody is without a network meanwhile.
pub const COMPONENT_S: u64 = 900;
/// Names of components begin so.
pub const COMPONENT: &str = "component ";
/// Names of tunnels to other offices begin so: `tunnel hq/headquarters`.
pub const TUNNEL: &str = "tunnel ";

impl Health {
    /// With one more thing that works.
    pub fn add(&mut self, name: impl Into<String>) {
        self.works.insert(name.into());
    }

    /// Whether it works.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.works.contains(name)
    }

    /// Everything that works.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.works.iter().map(String::as_str)
    }
}

/// Compares what worked before with what a box looks like now.
#[must_use]
pub fn judge(before: &Health, trial: &Trial) -> Verdict {
    let missing: Vec<&String> =
        before.works.difference(&trial.now.works).filter(|name| !trial.unknown.contains(*name)).collect();
    if missing.is_empty() {
        return Verdict::Good;
    }
    let is_late = |name: &str| {
        let limit = if name.starts_with(COMPONENT) { COMPONENT_S } else { GATEWAY_S };
        trial.uptime_s >= limit
    };
    let lost: Vec<String> = missing
        .iter()
        .filter(|name| trial.given_up.contains(**name) || is_late(name))
        .map(|name| (*name).clone())
        .collect();
    if lost.is_empty() { Verdict::Wait(missing.into_iter().cloned().collect()) } else { Verdict::Bad(lost) }
}

/// Everything must work for so long without a break: a daemon that starts, serves and dies is not one that works.
pub const STEADY: Duration = Duration::from_secs(10);
/// A release is given up when something is still missing so long after it was found missing; a lost datagram is no reason.
pub const LASTING: Duration = Duration::from_secs(20);

/// One look after the other at a release on trial.
#[derive(Debug, Clone, Default)]
pub struct Looks {
    good_since: Option<Duration>,
    not_bad_since: Option<Duration>,
    bad_since: Option<Duration>,
}

/// What the looks so far come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sentence {
    /// Look again.
    Undecided,
    /// The release works.
    Good,
    /// It does not; what is missing.
    Bad(Vec<String>),
}

impl Looks {
    /// Another look, by the monotonic clock.
    pub fn add(&mut self, now: Duration, verdict: Verdict) -> Sentence {
        let for_long =
            |since: &mut Option<Duration>, limit| now.saturating_sub(*since.get_or_insert(now)) >= limit;
        let missing = match verdict {
            Verdict::Good if for_long(&mut self.good_since, STEADY) => return Sentence::Good,
            Verdict::Good => None,
            Verdict::Wait(_) => {
                self.good_since = None;
                None
            }
            Verdict::Bad(missing) => {
                self.good_since = None;
                Some(missing)
            }
        };
        match missing {
            // A daemon that is well for a moment between two deaths has not forgiven anything.
            None if for_long(&mut self.not_bad_since, STEADY) => self.bad_since = None,
            None => {}
            Some(missing) => {
                self.not_bad_since = None;
                if for_long(&mut self.bad_since, LASTING) {
                    return Sentence::Bad(missing);
                }
            }
        }
        Sentence::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(names: &[&str]) -> Health {
        let mut health = Health::default();
        names.iter().for_each(|name| health.add(*name));
        health
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[track_caller]
    fn check(trial: &Trial, expect: Verdict) {
        let before = health(&["uplink", "service dnsd", "component samba"]);
        assert_eq!(judge(&before, trial), expect);
    }

    #[test]
    fn what_worked_before_must_work_after() {
        let all = ["uplink", "service dnsd", "component samba", "service new"];
        check(&Trial { now: health(&all), ..Trial::default() }, Verdict::Good);
        let mut trial = Trial { now: health(&all[..2]), uptime_s: COMPONENT_S - 1, ..Trial::default() };
        check(&trial, Verdict::Wait(vec!["component samba".into()]));
        trial.uptime_s = COMPONENT_S;
        check(&trial, Verdict::Bad(vec!["component samba".into()]));
    }

    #[test]
    fn the_gateway_has_less_time_than_components() {
        let mut trial = Trial { now: health(&["uplink"]), uptime_s: GATEWAY_S - 1, ..Trial::default() };
        check(&trial, Verdict::Wait(vec!["component samba".into(), "service dnsd".into()]));
        trial.uptime_s = GATEWAY_S;
        check(&trial, Verdict::Bad(vec!["service dnsd".into()]));
    }

    #[test]
    fn nobody_waits_for_what_has_given_up() {
        let given_up = set(&["component samba", "service other"]);
        let now = health(&["uplink", "service dnsd"]);
        check(&Trial { now, given_up, ..Trial::default() }, Verdict::Bad(vec!["component samba".into()]));
    }

    #[test]
    fn what_a_release_cannot_tell_is_not_held_against_it() {
        let trial = Trial {
            now: health(&["service dnsd", "component samba"]),
            unknown: set(&["uplink"]),
            uptime_s: 10_000,
            ..Trial::default()
        };
        check(&trial, Verdict::Good);
    }

    fn verdict(kind: char) -> Verdict {
        match kind {
            'g' => Verdict::Good,
            'w' => Verdict::Wait(vec!["component samba".into()]),
            _ => Verdict::Bad(vec!["names".into()]),
        }
    }

    /// A look each second; when the sentence came, and which it was.
    fn sentence(looks: impl Iterator<Item = char>) -> Option<(u64, Sentence)> {
        let mut all = Looks::default();
        (0..).zip(looks).find_map(|(second, kind)| {
            let sentence = all.add(Duration::from_secs(second), verdict(kind));
            (sentence != Sentence::Undecided).then_some((second, sentence))
        })
    }

    #[test]
    fn a_release_is_good_when_it_is_so_for_a_while() {
        assert_eq!(sentence("gggggggggg".chars()), None);
        assert_eq!(sentence("ggggggggggg".chars()), Some((10, Sentence::Good)));
        assert_eq!(sentence("gggggwggggggggggg".chars()), Some((16, Sentence::Good)));
        assert_eq!(sentence("w".repeat(500).chars()), None);
    }

    #[test]
    fn one_that_flaps_is_bad_and_a_lost_answer_is_not() {
        let bad = Sentence::Bad(vec!["names".into()]);
        assert_eq!(sentence("b".repeat(21).chars()), Some((20, bad.clone())));
        // Nineteen seconds dead, two alive, again and again.
        let flapping = format!("{}gg", "b".repeat(19)).repeat(5);
        assert_eq!(sentence(flapping.chars()), Some((21, bad)));
        // A component takes its time, and now and then an answer is lost.
        let lossy = format!("{}b", "w".repeat(30)).repeat(20);
        assert_eq!(sentence(lossy.chars()), None);
    }
}
