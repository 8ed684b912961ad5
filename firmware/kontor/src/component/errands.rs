//! What is done for a component from outside while it runs, each by a process of its own: a disk may hang, and headquarters
//! may not answer.

use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime};

use kontor_supervise::Message;

use super::Places;
use super::image::Root;
use super::office::Office;
use super::seeded::Seeded;
use super::snapshots::until_next;

/// All of them, for one session of a component.
pub(super) struct Errands {
    component: String,
    /// When the next snapshots are due, where there are any.
    snapshots_due: Option<Instant>,
    snapshots: Option<Child>,
    /// Where shares are subvolumes, which can have limits.
    on_a_box: bool,
    quotas: Option<Child>,
    quotas_again: bool,
    seeded: Seeded,
}

impl Errands {
    pub(super) fn new(places: &Places, office: &Office) -> Self {
        let on_a_box = matches!(places.root, Root::Image(_));
        let snapshots_due = (on_a_box && !office.snapshots.is_empty())
            .then(|| Instant::now() + until_next(SystemTime::now()));
        Self {
            component: places.name.clone(),
            snapshots_due,
            snapshots: None,
            on_a_box,
            quotas: None,
            quotas_again: false,
            seeded: Seeded::new(places),
        }
    }

    /// When [`Self::turn`] has something to do, if nobody ends before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.snapshots_due
    }

    /// What the component says of itself.
    pub(super) fn hear(&mut self, message: &Message) {
        match message {
            // The directories of its shares are there now.
            Message::Ready => {
                self.set_quotas();
                self.seeded.hear_ready();
            }
            Message::Status(text) => self.seeded.hear(text),
            Message::Watchdog | Message::Extend(_) => {}
        }
    }

    /// One in which nothing has changed that the component itself must be told.
    pub(super) fn hear_of_new_site(&mut self) {
        self.set_quotas();
    }

    fn set_quotas(&mut self) {
        // One that works already may have read the site file as it was.
        self.quotas_again = self.quotas.is_some();
        if self.on_a_box && !self.quotas_again {
            self.quotas = self.start("quotas");
        }
    }

    /// Somebody may have ended, and the hour may be full.
    pub(super) fn turn(&mut self) {
        self.seeded.turn();
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if self.quotas.take_if(ended).is_some() && self.quotas_again {
            self.set_quotas();
        }
        self.snapshots.take_if(ended);
        if self.snapshots_due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.snapshots_due = Some(Instant::now() + until_next(SystemTime::now()));
        if self.snapshots.is_some() {
            eprintln!("error: the snapshots of an hour ago are not done yet");
        } else {
            self.snapshots = self.start("snapshot");
        }
    }

    fn start(&self, errand: &str) -> Option<Child> {
        let words = ["component", errand, &self.component];
        let child = Command::new("/proc/self/exe").args(words).stdin(Stdio::null()).spawn();
        child.inspect_err(|error| eprintln!("error: {errand}: {error}")).ok()
    }
}
