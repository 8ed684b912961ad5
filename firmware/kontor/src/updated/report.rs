//! Tells the centre what updates are doing: the document is written here, and sent by a child without any right.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kontor_update::check_in::{self, CheckIn, CheckIns};
use kontor_update::{Facts, Journal};
use serde::{Deserialize, Serialize};

use super::child::{As, Child, read_order};
use super::http::Client;
use super::store;

/// What a child is to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Order {
    centre: String,
    document: CheckIn,
}

/// `report ORDER`.
pub(super) fn run(order: &Path) -> anyhow::Result<()> {
    let order: Order = read_order(order)?;
    Client::new().post(&order.centre, &serde_json::to_vec(&order.document)?)?;
    Ok(())
}

/// What the centre has been told, and the child that tells it more.
pub(super) struct Reporter {
    schedule: CheckIns,
    child: Option<(Child, CheckIn)>,
    /// Why it is not told.
    pub(super) problem: Option<String>,
}

impl Reporter {
    pub(super) fn new(now: Duration, random: &mut impl FnMut() -> u32) -> Self {
        Self { schedule: CheckIns::new(now, random), child: None, problem: None }
    }

    /// Hears the child, and starts one when there is something to tell. `run` is the daemon's folder under /run.
    pub(super) fn turn(
        &mut self,
        now: Duration,
        centre: &str,
        document: CheckIn,
        run: &Path,
        random: &mut impl FnMut() -> u32,
    ) {
        if let Some((mut child, told)) = self.child.take() {
            match child.turn() {
                None => self.child = Some((child, told)),
                Some(true) => {
                    self.problem = None;
                    self.schedule.told(now, told, random);
                }
                Some(false) => self.failed(now, child.reason(), random),
            }
        } else if self.schedule.is_due(now, &document) {
            match start(centre, &document, run) {
                Ok(child) => self.child = Some((child, document)),
                Err(error) => self.failed(now, format!("{error:#}"), random),
            }
        }
    }

    /// There is no centre any more.
    pub(super) fn give_up(&mut self) {
        (self.child, self.problem) = (None, None);
    }

    fn failed(&mut self, now: Duration, reason: String, random: &mut impl FnMut() -> u32) {
        eprintln!("error: the centre is not told: {reason}");
        self.problem = Some(reason);
        self.schedule.not_told(now, random);
    }
}

/// What is known of the box itself, and what has happened; the rest is the daemon's to say.
pub(super) fn document(facts: &Facts, journal: Journal) -> CheckIn {
    CheckIn {
        schema: check_in::SCHEMA,
        at: store::now(),
        id: format!("{:016x}", journal.seed),
        name: String::new(),
        product: facts.product.clone(),
        board: facts.board.clone(),
        version: facts.version,
        channel: String::new(),
        phase: String::new(),
        failed: journal.failed,
        story: journal.story,
    }
}

/// In a folder of its own: another child has its order at the same time.
fn start(centre: &str, document: &CheckIn, run: &Path) -> anyhow::Result<Child> {
    let folder = run.join("report");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let order = Order { centre: centre.to_owned(), document: document.clone() };
    Child::start(As::Fetcher, &["report"], &order, Vec::new(), &folder)
}
