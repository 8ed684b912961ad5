//! What a box tells the centre of those who look after it: a small document, sent when something has happened and once a day.
//!
//! Nothing depends on its being received. Monotonic time and randomness are arguments of [`CheckIns`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::{Event, Failed};
use crate::schedule::{between, pause};
use crate::version::Version;

/// Of the document.
pub const SCHEMA: u32 = 1;
/// After power came back to a whole town, not all its boxes speak at once.
const FIRST: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
/// What happens at the same time is told together.
const PAUSE: Duration = Duration::from_secs(10);
/// A box of which nothing is heard for longer is one to look after.
const DAILY: (Duration, Duration) = (Duration::from_secs(72_000), Duration::from_secs(86_400));
/// After a centre has not answered: doubled each time.
const AGAIN: Duration = Duration::from_secs(120);
/// Doublings: two hours.
const MAX_DOUBLINGS: u32 = 6;

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckIn {
    /// [`SCHEMA`]. A later one adds keys; a centre ignores those it does not know.
    pub schema: u32,
    /// When it was written, in seconds since 1970, by the box's clock.
    pub at: u64,
    /// Which box: 16 hexadecimal digits, drawn once, lost only with its disk.
    pub id: String,
    /// Its host name.
    pub name: String,
    /// The product that runs.
    pub product: String,
    /// What machine it is.
    pub board: String,
    /// The version that runs.
    pub version: Version,
    /// The channel that is followed.
    pub channel: String,
    /// What updates are doing, for people.
    pub phase: String,
    /// Releases that did not work here.
    pub failed: Vec<Failed>,
    /// What happened, newest last.
    pub story: Vec<Event>,
}

impl CheckIn {
    /// Whether there is something in it that the other one does not say.
    fn is_news(&self, told: &Self) -> bool {
        (self.version, &self.name, &self.failed, &self.story)
            != (told.version, &told.name, &told.failed, &told.story)
    }
}

/// When the document is sent.
#[derive(Debug, Clone)]
pub struct CheckIns {
    told: Option<CheckIn>,
    /// Not before, whatever happens.
    free_at: Duration,
    /// Then, whether anything happens or not.
    daily_at: Duration,
    failures: u32,
}

impl CheckIns {
    /// From the start of the daemon.
    pub fn new(now: Duration, random: &mut impl FnMut() -> u32) -> Self {
        let first = now + between(FIRST, random);
        Self { told: None, free_at: first, daily_at: first, failures: 0 }
    }

    /// Whether this document, or one that says the same, is to be sent now.
    #[must_use]
    pub fn is_due(&self, now: Duration, document: &CheckIn) -> bool {
        let is_news = self.told.as_ref().is_none_or(|told| document.is_news(told));
        now >= self.free_at && (is_news || now >= self.daily_at)
    }

    /// The centre has it.
    pub fn told(&mut self, now: Duration, document: CheckIn, random: &mut impl FnMut() -> u32) {
        (self.told, self.failures) = (Some(document), 0);
        self.free_at = now + PAUSE;
        self.daily_at = now + between(DAILY, random);
    }

    /// It has not.
    pub fn not_told(&mut self, now: Duration, random: &mut impl FnMut() -> u32) {
        self.free_at = now + pause((AGAIN, MAX_DOUBLINGS), &mut self.failures, random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn middle() -> impl FnMut() -> u32 {
        || u32::MAX / 2
    }

    fn document() -> CheckIn {
        CheckIn {
            schema: SCHEMA,
            at: 1_795_824_000,
            id: "00c0ffee00c0ffee".into(),
            name: "gate".into(),
            product: "branch".into(),
            board: "qemu".into(),
            version: "0.1.0".parse().unwrap(),
            channel: "stable".into(),
            phase: "nothing is under way".into(),
            failed: Vec::new(),
            story: vec![Event { at: 1_795_823_000, text: "0.1.0 runs".into() }],
        }
    }

    #[test]
    fn news_is_told_soon_and_nothing_at_least_daily() {
        let mut check_ins = CheckIns::new(seconds(0), &mut middle());
        let mut document = document();
        assert!(!check_ins.is_due(seconds(9), &document) && check_ins.is_due(seconds(60), &document));
        check_ins.told(seconds(120), document.clone(), &mut middle());
        document.phase = "looking for releases".into();
        document.at += 60;
        assert!(!check_ins.is_due(seconds(70_000), &document), "no news");
        assert!(check_ins.is_due(seconds(86_520), &document), "a sign of life");
        document.story.push(Event { at: 1_795_824_100, text: "0.2.0 is there, fetching it".into() });
        assert!(!check_ins.is_due(seconds(125), &document) && check_ins.is_due(seconds(130), &document));
    }

    #[test]
    fn a_centre_that_does_not_answer_is_asked_less_and_less() {
        let mut check_ins = CheckIns::new(seconds(0), &mut middle());
        let document = document();
        let (mut now, mut pauses) = (seconds(120), Vec::new());
        for _ in 0..9 {
            check_ins.not_told(now, &mut middle());
            pauses.push((check_ins.free_at - now).as_secs());
            assert!(!check_ins.is_due(now, &document));
            now = check_ins.free_at;
            assert!(check_ins.is_due(now, &document));
        }
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
        assert_eq!((pauses[0], pauses[8]), (89, 5759));
    }

    #[test]
    fn the_document_is_as_documented() {
        let page = include_str!("../../../docs/releases.md");
        let example = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let read: CheckIn = serde_json::from_str(example).unwrap();
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(example).unwrap());
    }
}
