//! PCs that write to a share, each in its way, and note what the server has made durable.

use std::collections::VecDeque;

use anyhow::Result;
use qemu_tests::World;
use qemu_tests::block::trace::Random;
use qemu_tests::promise::{Promises, Run};
use qemu_tests::smb::{Answer, Disposition, FileId, Operation, SmbSession};

/// The file that nobody asks to be durable.
pub(super) const BULK: &str = "bulk";
/// Blocks of one write of it, and how many such writes it has before it begins anew.
const BULK_RUN: u64 = 15;
const BULK_RUNS: u64 = 256;
const BULK_AT_A_TIME: u64 = 8;
/// Blocks of the table, and how many of them change at a time.
const TABLE: u64 = 32;
const TABLE_AT_A_TIME: u64 = 3;
const CONTRACT: u64 = 6;
/// Most blocks of a letter, and of an addition to the ledger.
const MOST_ADDED: u64 = 4;

/// What somebody does over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Adds to the end of one file.
    Ledger,
    /// Makes one file after the other.
    Letters,
    /// Changes blocks here and there in one file.
    Table,
    /// Saves one file again and again as office programs do: beside the old one, which the new one then replaces.
    Contract,
    /// Writes as much as there is, and never asks for durability.
    Bulk,
}

pub(super) const HABITS: [Habit; 5] =
    [Habit::Ledger, Habit::Letters, Habit::Table, Habit::Contract, Habit::Bulk];

/// A PC with its session.
pub(super) struct Writer {
    session: SmbSession,
    habit: Habit,
    turns: u64,
    /// Length of the ledger.
    written: u64,
    random: Random,
    job: Job,
    open: Option<FileId>,
    asked: Step,
}

/// One round of a habit: a file that is opened, what is done with it, and what is promised in the end.
#[derive(Debug, Default)]
struct Job {
    path: String,
    /// The name by which its blocks know it.
    file: String,
    replaces: bool,
    steps: VecDeque<Step>,
    promise: Vec<Run>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Write(Run),
    Flush,
    Replace,
    /// A flush after which everything of the job must be there.
    Promise,
    Close,
}

impl Writer {
    pub(super) fn new(session: SmbSession, habit: Habit) -> Self {
        let (random, job) = (Random::new(habit as u64), Job::default());
        Self { session, habit, turns: 0, written: 0, random, job, open: None, asked: Step::Close }
    }

    /// Begins the first round.
    pub(super) fn begin(&mut self, world: &mut World) -> Result<()> {
        self.next(world)
    }

    /// Goes on as far as there are answers.
    pub(super) fn go_on(
        &mut self,
        world: &mut World,
        promises: &mut Promises,
        position: impl Fn() -> usize,
    ) -> Result<()> {
        while let Some(answer) = world.smb_answer(&mut self.session)? {
            self.take(answer, promises, &position)?;
            self.next(world)?;
        }
        Ok(())
    }

    fn take(&mut self, answer: Answer, promises: &mut Promises, position: impl Fn() -> usize) -> Result<()> {
        let answer = answer.success(&format!("{:?} of {}", self.asked, self.job.path))?;
        match self.asked {
            Step::Open => self.open = Some(answer.file()?),
            Step::Close => self.open = None,
            Step::Promise => {
                let position = position();
                for run in &self.job.promise {
                    promises.note(&self.job.file, *run, self.job.replaces, position);
                }
            }
            Step::Write(_) | Step::Flush | Step::Replace => {}
        }
        Ok(())
    }

    fn next(&mut self, world: &mut World) -> Result<()> {
        let Some(file) = self.open else {
            self.job = self.next_job();
            self.turns += 1;
            self.asked = Step::Open;
            let disposition = if self.job.replaces { Disposition::OverwriteIf } else { Disposition::OpenIf };
            let open = Operation::Create { name: &self.job.path, disposition };
            return world.smb_ask(&mut self.session, &open);
        };
        self.asked = self.job.steps.pop_front().unwrap_or(Step::Close);
        let data = match self.asked {
            Step::Write(run) => run.content(&self.job.file),
            _ => Vec::new(),
        };
        let operation = match self.asked {
            Step::Write(run) => Operation::Write { file, offset: run.offset(), data: &data },
            Step::Flush | Step::Promise => Operation::Flush { file },
            Step::Replace => Operation::Rename { file, to: &self.job.file },
            Step::Open | Step::Close => Operation::Close { file },
        };
        world.smb_ask(&mut self.session, &operation)
    }

    fn next_job(&mut self) -> Job {
        let version = self.turns;
        match self.habit {
            Habit::Ledger => {
                let count = 1 + self.random.below(MOST_ADDED);
                let first = self.written;
                self.written += count;
                Job::kept("ledger".into(), vec![Run { first, count, version }])
            }
            Habit::Letters => {
                let count = 1 + self.random.below(MOST_ADDED);
                Job::kept(format!("letter-{version}"), vec![Run { first: 0, count, version }])
            }
            Habit::Table if version == 0 => {
                Job::kept("table".into(), vec![Run { first: 0, count: TABLE, version }])
            }
            Habit::Table => {
                let mut place = || Run { first: self.random.below(TABLE), count: 1, version };
                Job::kept("table".into(), (0..TABLE_AT_A_TIME).map(|_| place()).collect())
            }
            Habit::Contract => Job::replacing("contract", Run { first: 0, count: CONTRACT, version }),
            Habit::Bulk => Job::bulk(version),
        }
    }
}

impl Job {
    /// Written and made durable under its own name; a run is one write, so short ones only.
    fn kept(file: String, runs: Vec<Run>) -> Self {
        let writes = runs.iter().flat_map(|run| run.pieces(BULK_RUN)).map(Step::Write);
        let steps = writes.chain([Step::Promise]).collect();
        Self { path: file.clone(), file, replaces: false, steps, promise: runs }
    }

    /// Durable before it takes the old one's place, and once more in it.
    fn replacing(file: &str, run: Run) -> Self {
        let steps = [Step::Write(run), Step::Flush, Step::Replace, Step::Promise].into();
        Self { path: format!("~{file}.tmp"), file: file.into(), replaces: true, steps, promise: vec![run] }
    }

    fn bulk(version: u64) -> Self {
        let first = version * BULK_AT_A_TIME % BULK_RUNS * BULK_RUN;
        let run = Run { first, count: BULK_AT_A_TIME * BULK_RUN, version };
        let steps = run.pieces(BULK_RUN).map(Step::Write).collect();
        Self { path: BULK.into(), file: BULK.into(), steps, ..Self::default() }
    }
}
