//! What a box remembers of updates: the one under way, what has failed, and how it ended.
//!
//! One file, replaced as a whole. Together with the boot state it says at each boot what happened: [`Journal::after_boot`]
//! knows every power cut between two writes. The order of writes is
//!
//! - to begin: the slot is invalidated and written, the journal begins the trial, the boot state activates the slot;
//! - to succeed: the boot state calls the slot good, the journal ends the trial;
//! - to fail: the journal notes the verdict, the boot state invalidates the slot, the journal ends the trial after the restart.
//!
//! A lost or damaged journal is an empty one: then a release that is booted is simply the one that runs.

use std::collections::BTreeMap;

use kontor_migrate::Span;
use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::version::Version;

/// Failed versions that are remembered; a channel offers one at a time.
const MAX_FAILED: usize = 16;
/// Lines of the story.
const MAX_STORY: usize = 40;
/// Lines of the story that are not told again.
const RECENT: usize = 3;
/// Characters of a reason: it is for people.
const MAX_REASON: usize = 400;

/// Everything that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Journal {
    /// Drawn once; see [`crate::channel::place`].
    pub seed: u64,
    /// A release that is written and has not proved itself.
    pub trial: Option<OnTrial>,
    /// Which schemas of the state the releases in the slots read, by the slots' letters, as far as it is known.
    pub reads: BTreeMap<String, Span>,
    /// Security epochs of the releases in the slots, by the slots' letters, as far as they are known.
    pub epochs: BTreeMap<String, u32>,
    /// A release for which the state is brought to another schema before it is installed.
    pub awaited: Option<Awaited>,
    /// Releases that did not work here.
    pub failed: Vec<Failed>,
    /// What happened, newest last.
    pub story: Vec<Event>,
}

/// A release on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OnTrial {
    /// Its version.
    pub version: Version,
    /// The version before, which runs again if it fails.
    pub from: Version,
    /// The slot it is in, `a` or `b`.
    pub slot: String,
    /// What worked before.
    pub before: Health,
    /// Large files on `state` that are older than it, by their paths there.
    #[serde(default)]
    pub large: Vec<String>,
    /// Whether it came up far enough to be judged.
    #[serde(default)]
    pub judged: bool,
    /// Why it is given up, once that is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

/// A release that cannot read the state as it is; what runs can bring the state to what it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Awaited {
    /// Its version.
    pub version: Version,
    /// Schemas of the state that it reads.
    pub reads: Span,
    /// The major version that an operator had asked for.
    #[serde(default)]
    pub major: Option<u32>,
}

/// A release that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failed {
    /// Its version.
    pub version: Version,
    /// Why.
    pub reason: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// When, in seconds since 1970.
    pub at: u64,
    /// What, for people.
    pub text: String,
}

/// What the journal and the boot say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// No release is on trial.
    Ordinary,
    /// This boot is the trial of the release.
    Trial,
    /// It had proved itself already; only writing that down was cut short.
    Proven,
    /// It is given up, and still the one that runs: invalidating it was cut short.
    Condemned,
    /// It was given up, by its own verdict or by the boot loader: the other slot runs.
    FellBack,
    /// It was never booted: the power went between the journal and the boot state. It is written anew some time.
    Interrupted,
}

/// What the boot state says of the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots<'a> {
    /// The one that runs, `a` or `b`.
    pub booted: &'a str,
    /// The one that boots first.
    pub active: &'a str,
    /// Whether the one that runs has proved itself.
    pub good: bool,
}

impl Journal {
    /// Reads one; garbage is an empty one, and said to be garbage.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> (Self, Option<String>) {
        match serde_json::from_slice(bytes) {
            Ok(journal) => (journal, None),
            Err(error) => (Self::default(), Some(error.to_string())),
        }
    }

    /// As it is written.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// What this boot is.
    #[must_use]
    pub fn after_boot(&self, slots: Slots<'_>) -> Boot {
        let Some(trial) = &self.trial else { return Boot::Ordinary };
        let (runs, condemned) = (trial.slot == slots.booted, trial.verdict.is_some());
        match (runs, condemned) {
            (true, true) => Boot::Condemned,
            (true, false) if slots.good => Boot::Proven,
            (true, false) => Boot::Trial,
            (false, true) => Boot::FellBack,
            // Only activating it makes it the active one, and the boot loader leaves that as it is.
            (false, false) if trial.slot == slots.active => Boot::FellBack,
            (false, false) => Boot::Interrupted,
        }
    }

    /// The release on trial is given up, before anything is done about it.
    pub fn condemn(&mut self, reason: &str) {
        if let Some(trial) = &mut self.trial {
            trial.verdict = Some(reason.chars().take(MAX_REASON).collect());
        }
    }

    /// It was never booted.
    pub fn interrupted(&mut self, at: u64) {
        if let Some(trial) = self.trial.take() {
            self.tell(
                at,
                format!("the power went while {} was being written; it will be written again", trial.version),
            );
        }
    }

    /// Adds a line to the story, unless it was told a moment ago: a release that waits is looked at four times a day.
    pub fn tell(&mut self, at: u64, text: impl Into<String>) {
        let text: String = text.into().chars().take(MAX_REASON).collect();
        if self.story.iter().rev().take(RECENT).any(|event| event.text == text) {
            return;
        }
        self.story.push(Event { at, text });
        let excess = self.story.len().saturating_sub(MAX_STORY);
        self.story.drain(..excess);
    }

    /// A release has been written and is about to be booted.
    pub fn begin(&mut self, at: u64, trial: OnTrial) {
        self.failed.retain(|failed| failed.version != trial.version);
        self.tell(at, format!("{} is written to slot {}; restarting", trial.version, trial.slot));
        self.trial = Some(trial);
        self.awaited = None;
    }

    /// The state has to be brought to what a release reads, at the next boot; then the release can be installed.
    pub fn wait_for_schema(&mut self, at: u64, awaited: Awaited) {
        let Awaited { version, reads, .. } = &awaited;
        self.tell(
            at,
            format!(
                "{version} reads schema {reads} of what this box keeps, which is brought to that; restarting"
            ),
        );
        self.awaited = Some(awaited);
    }

    /// Something else than this release is to be installed, or nothing: what is kept for it need not wait any longer.
    pub fn wait_only_for(&mut self, version: Option<Version>) {
        self.awaited.take_if(|awaited| Some(awaited.version) != version);
    }

    /// An operator goes back to the release in the other slot.
    pub fn go_back(&mut self, at: u64, running: Version, reason: &str) {
        self.tell(at, format!("an operator has gone back from {running} to the other slot; restarting"));
        self.reject(at, running, reason);
    }

    /// The release on trial works.
    pub fn succeed(&mut self, at: u64) {
        if let Some(trial) = self.trial.take() {
            self.tell(
                at,
                format!("{} runs; everything that worked with {} works", trial.version, trial.from),
            );
        }
    }

    /// The release on trial does not work: the verdict is the reason, or, where the boot loader gave it up, `otherwise`.
    pub fn fail(&mut self, at: u64, otherwise: &str) {
        let Some(trial) = self.trial.take() else { return };
        let reason = trial.verdict.unwrap_or_else(|| otherwise.to_owned());
        self.tell(at, format!("{} does not work, back to {}: {reason}", trial.version, trial.from));
        self.remember(Failed { version: trial.version, reason, at });
    }

    /// A release contradicts itself: it is not even booted, and not tried again.
    pub fn reject(&mut self, at: u64, version: Version, reason: &str) {
        self.remember(Failed { version, reason: reason.to_owned(), at });
    }

    fn remember(&mut self, mut failed: Failed) {
        failed.reason = failed.reason.chars().take(MAX_REASON).collect();
        self.failed.retain(|other| other.version != failed.version);
        self.failed.push(failed);
        let excess = self.failed.len().saturating_sub(MAX_FAILED);
        self.failed.drain(..excess);
    }

    /// The versions that have failed.
    #[must_use]
    pub fn failed_versions(&self) -> Vec<Version> {
        self.failed.iter().map(|failed| failed.version).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial() -> OnTrial {
        OnTrial {
            version: "0.2.0".parse().unwrap(),
            from: "0.1.0".parse().unwrap(),
            slot: "b".into(),
            before: Health::default(),
            large: Vec::new(),
            judged: false,
            verdict: None,
        }
    }

    #[test]
    fn every_cut_between_two_writes_is_told_apart() {
        let mut journal = Journal::default();
        let check = |journal: &Journal, booted, active, good, expect| {
            assert_eq!(journal.after_boot(Slots { booted, active, good }), expect);
        };
        check(&journal, "a", "a", true, Boot::Ordinary);
        journal.begin(1, trial());
        check(&journal, "a", "a", true, Boot::Interrupted);
        check(&journal, "b", "b", false, Boot::Trial);
        check(&journal, "b", "b", true, Boot::Proven);
        check(&journal, "a", "b", true, Boot::FellBack);
        journal.condemn("names are not answered");
        check(&journal, "b", "b", false, Boot::Condemned);
        check(&journal, "b", "a", false, Boot::Condemned);
        check(&journal, "a", "a", true, Boot::FellBack);
        let mut other = journal.clone();
        other.fail(2, "it did not start");
        check(&other, "a", "a", true, Boot::Ordinary);
        assert_eq!(other.failed[0].reason, "names are not answered");
        journal.interrupted(2);
        assert_eq!((journal.trial, journal.failed.len()), (None, 0));
    }

    #[test]
    fn a_release_that_contradicts_itself_is_remembered_without_a_trial() {
        let mut journal = Journal::default();
        journal.reject(1, trial().version, "component samba: rule seal");
        assert_eq!((journal.trial.clone(), journal.failed_versions()), (None, vec![trial().version]));
        assert_eq!(journal.failed[0].reason, "component samba: rule seal");
    }

    #[test]
    fn a_failure_is_remembered_until_it_is_tried_again() {
        let mut journal = Journal::default();
        journal.begin(1, trial());
        journal.fail(2, "names are not answered");
        assert_eq!((journal.trial.clone(), journal.failed_versions()), (None, vec![trial().version]));
        let last = &journal.story.last().unwrap().text;
        assert_eq!(last, "0.2.0 does not work, back to 0.1.0: names are not answered");
        journal.begin(3, trial());
        journal.succeed(4);
        assert_eq!((journal.trial.clone(), journal.failed.len()), (None, 0));
        let (read, damage) = Journal::parse(&journal.to_json());
        assert_eq!((read, damage), (journal, None));
    }

    #[test]
    fn the_state_waits_for_one_release_and_no_longer() {
        let mut journal = Journal::default();
        let awaited = Awaited { version: trial().version, reads: Span { oldest: 1, newest: 1 }, major: None };
        journal.wait_for_schema(1, awaited.clone());
        journal.wait_only_for(Some(trial().version));
        assert_eq!(journal.awaited, Some(awaited.clone()));
        journal.begin(2, trial());
        assert_eq!(journal.awaited, None);
        journal.wait_for_schema(3, awaited);
        journal.wait_only_for(None);
        assert_eq!(journal.awaited, None);
        journal.go_back(4, trial().version, "asked for");
        assert_eq!(journal.failed_versions(), [trial().version]);
    }

    #[test]
    fn it_never_grows_without_end() {
        let mut journal = Journal::default();
        for build in 0..100 {
            let version = Version { build, ..trial().version };
            journal.begin(1, OnTrial { version, ..trial() });
            journal.fail(2, &"x".repeat(10_000));
        }
        assert_eq!((journal.failed.len(), journal.story.len()), (MAX_FAILED, MAX_STORY));
        assert!(journal.to_json().len() < 40_000);
    }

    #[test]
    fn garbage_is_an_empty_journal() {
        for bytes in [&b""[..], b"{", b"\0\0\0", b"{\"trial\": 7}"] {
            let (journal, damage) = Journal::parse(bytes);
            assert_eq!(journal, Journal::default());
            assert!(damage.is_some());
        }
    }
}
