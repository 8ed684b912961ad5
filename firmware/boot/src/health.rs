//! What becomes of a disk while the box runs: pulled, dying, silent, back again.
//!
//! Decisions only: the box observes the disk every few seconds, and [`Health`] says what to do about it and
//! what to tell people. It must never make the office wait for a disk: leases and names go on without one.

use std::fmt;
use std::time::Duration;

/// The first new attempt; a disk that was pulled and put back answers at once.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// A dying disk is not flogged: each failed attempt doubles the pause up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A disk that stays well for this long has earned the first pause again.
const PROVED: Duration = Duration::from_secs(300);

/// How `state` is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// Not at all.
    Absent,
    /// As it should be.
    Writable,
    /// The file system has given up writing after an error.
    ReadOnly,
}

/// Whether the disk answers a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It does.
    Good,
    /// It answers with an error.
    Error,
    /// Not for a while.
    Silent,
}

/// What is seen of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// Whether the disk in use is still the one that was found; always true before one was.
    pub attached: bool,
    /// Whether any disk with Kontor's partitions is there.
    pub found: bool,
    /// How `state` is mounted.
    pub mount: Mount,
    /// Whether the disk in use answers.
    pub answer: Answer,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let go of what is mounted, so that every daemon closes its files.
    Detach,
    /// Look for the disk and bring it up as at boot.
    Attach,
}

/// What is wrong, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There was a disk, and it is gone.
    Pulled,
    /// It is there, but writing to it fails.
    Failing,
    /// It is there, but does not answer.
    Silent,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, remedy) = match self {
            Self::Pulled => ("the disk is gone", "plug it in again, it is taken back by itself"),
            Self::Failing => ("the disk fails", "it is tried again by itself; if this stays, replace it"),
            Self::Silent => ("the disk does not answer", "check its cable; if this stays, replace it"),
        };
        write!(f, "{what}: leases and names go on, but NOTHING IS DURABLE until it is back; {remedy}")
    }
}

/// The disk as it has been seen so far.
#[derive(Debug, Clone)]
pub struct Health {
    trouble: Option<Trouble>,
    /// There was no disk when it looked last: one that appears is news, even for a boot without one.
    missing: bool,
    pause: Duration,
    /// Not before this is the disk brought up again.
    next_attempt: Duration,
    /// Since when it has been well.
    well_since: Option<Duration>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            trouble: None,
            missing: false,
            pause: FIRST_PAUSE,
            next_attempt: Duration::ZERO,
            well_since: None,
        }
    }
}

impl Health {
    /// What is wrong now.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// Takes in what is seen at `now` (any clock that never goes back); what to do about it.
    pub fn observe(&mut self, now: Duration, seen: Observation) -> Option<Action> {
        if !seen.attached && seen.mount != Mount::Absent {
            self.fell_ill(now, Trouble::Pulled);
            return Some(Action::Detach);
        }
        match seen.mount {
            Mount::ReadOnly => {
                self.fell_ill(now, Trouble::Failing);
                Some(Action::Detach)
            }
            Mount::Writable => {
                self.trouble = (seen.answer == Answer::Silent).then_some(Trouble::Silent);
                if seen.answer == Answer::Good {
                    self.is_well(now);
                }
                None
            }
            Mount::Absent => self.attempt(now, seen),
        }
    }

    /// Brings up what is there, when it is time: it was let go, or was not there before.
    fn attempt(&mut self, now: Duration, seen: Observation) -> Option<Action> {
        if !seen.found {
            self.missing = true;
            if self.trouble.is_some() {
                self.trouble = Some(Trouble::Pulled);
            }
            return None;
        }
        // What storage could not bring up at boot, it cannot a minute later: people have been told.
        let hopeful = self.trouble.is_some() || self.missing;
        if !hopeful || now < self.next_attempt {
            return None;
        }
        self.missing = false;
        self.next_attempt = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(Action::Attach)
    }

    fn fell_ill(&mut self, now: Duration, trouble: Trouble) {
        self.trouble = Some(trouble);
        self.well_since = None;
        self.next_attempt = now + self.pause;
    }

    fn is_well(&mut self, now: Duration) {
        let since = *self.well_since.get_or_insert(now);
        if now.saturating_sub(since) >= PROVED {
            self.pause = FIRST_PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: Observation =
        Observation { attached: true, found: true, mount: Mount::Writable, answer: Answer::Good };
    const AWAY: Observation = Observation { attached: false, found: false, mount: Mount::Absent, ..SOUND };

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_sound_disk_is_left_alone() {
        let mut health = Health::default();
        assert!((0..1000).all(|second| health.observe(s(second), SOUND).is_none()));
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn a_pulled_disk_is_let_go_at_once_and_taken_when_it_is_back() {
        let mut health = Health::default();
        health.observe(s(10), SOUND);
        let pulled = Observation { attached: false, found: false, ..SOUND };
        assert_eq!(health.observe(s(12), pulled), Some(Action::Detach));
        assert_eq!(health.trouble(), Some(Trouble::Pulled));
        assert!((14..500).all(|second| health.observe(s(second), AWAY).is_none()));
        let back = Observation { found: true, ..AWAY };
        assert_eq!(health.observe(s(500), back), Some(Action::Attach));
        assert_eq!(health.observe(s(502), SOUND), None);
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn a_dying_disk_is_tried_ever_more_rarely() {
        let mut health = Health::default();
        let dying = Observation { mount: Mount::ReadOnly, ..SOUND };
        assert_eq!(health.observe(s(0), dying), Some(Action::Detach));
        assert_eq!(health.trouble(), Some(Trouble::Failing));
        let let_go = Observation { mount: Mount::Absent, ..SOUND };
        let attempts: Vec<u64> =
            (0..200).filter(|second| health.observe(s(*second), let_go) == Some(Action::Attach)).collect();
        assert_eq!(attempts, [2, 4, 8, 16, 32, 64, 124, 184]);
        assert_eq!(health.trouble(), Some(Trouble::Failing));
    }

    #[test]
    fn a_disk_that_stayed_well_is_tried_soon_again() {
        let mut health = Health::default();
        let let_go = Observation { mount: Mount::Absent, ..SOUND };
        health.observe(s(0), Observation { mount: Mount::ReadOnly, ..SOUND });
        for second in 0..200 {
            health.observe(s(second), let_go);
        }
        for second in 200..600 {
            health.observe(s(second), SOUND);
        }
        assert_eq!(
            health.observe(s(600), Observation { mount: Mount::ReadOnly, ..SOUND }),
            Some(Action::Detach)
        );
        assert_eq!(health.observe(s(601), let_go), None, "not before the pause is over");
        assert_eq!(health.observe(s(602), let_go), Some(Action::Attach));
    }

    #[test]
    fn a_silent_disk_is_reported_and_not_touched() {
        let mut health = Health::default();
        let silent = Observation { answer: Answer::Silent, ..SOUND };
        assert_eq!(health.observe(s(1), silent), None);
        assert_eq!(health.trouble(), Some(Trouble::Silent));
        assert_eq!(health.observe(s(9), SOUND), None);
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn a_disk_that_comes_after_a_boot_without_one_is_taken() {
        let mut health = Health::default();
        let none = Observation { attached: true, found: false, mount: Mount::Absent, answer: Answer::Good };
        assert_eq!(health.observe(s(0), none), None);
        assert_eq!(health.trouble(), None, "storage has said so already");
        let late = Observation { found: true, ..none };
        assert_eq!(health.observe(s(90), late), Some(Action::Attach));
        assert!((91..500).all(|second| health.observe(s(second), late).is_none()), "it was of no use");
    }
}
