//! The lease journal on disk, behind a thread of its own.
//!
//! The thread does one job at a time and answers it. If an answer does not come in time (a dying disk), or
//! says that writing failed, leases go on in RAM, the status says so, and the whole state is written again
//! when the disk is back: nothing of it depends on what could not be appended.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use kontor_dhcp4::lease::{self, Record, Replay};

use crate::storage::Schema;

/// How long an answer may wait for the disk: well under the watchdog's 5 s, and under the 4 s after which
/// a client asks again.
const PATIENCE: Duration = Duration::from_secs(2);
/// From this size on the journal is rewritten once it has doubled: what is read at the next start must fit the
/// RAM we may use (96 MiB).
const REWRITE_BYTES: usize = 8 << 20;
/// No journal of ours is larger; of one that is, only the newest part is read.
const MAX_JOURNAL: u64 = 32 << 20;

#[derive(Debug)]
enum Job {
    Load,
    /// Opens what is there, to append to it.
    Open,
    /// Lets go of the journal when its directory is gone.
    Check,
    /// Writes this beside the journal.
    KeepDamaged(Vec<u8>),
    Append(Vec<u8>),
    Rewrite(Vec<u8>),
}

#[derive(Debug)]
enum Done {
    /// `None`: the directory does not exist (yet).
    Loaded(io::Result<Option<Vec<u8>>>),
    /// Whether the directory is there.
    Checked(bool),
    Written(io::Result<()>),
}

/// The main thread's end.
#[derive(Debug)]
pub(super) struct Store {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    /// Whether an answer is overdue.
    waiting: bool,
    loaded: bool,
    durable: bool,
    problem: Option<String>,
    damage: Vec<String>,
    lines: usize,
    /// Octets in the journal, and how many of them the last rewrite left.
    bytes: usize,
    bytes_live: usize,
}

impl Store {
    /// Starts the thread; nothing is read yet.
    pub(super) fn start(path: PathBuf) -> io::Result<Self> {
        let (jobs, jobs_in) = channel();
        let (done_out, done) = channel();
        std::thread::Builder::new().name("journal".into()).spawn(move || work(&path, &jobs_in, &done_out))?;
        let (problem, damage) = (None, Vec::new());
        Ok(Self {
            jobs,
            done,
            waiting: false,
            loaded: false,
            durable: false,
            problem,
            damage,
            lines: 0,
            bytes: 0,
            bytes_live: 0,
        })
    }

    /// Whether what has been persisted survives a power cut.
    pub(super) fn durable(&self) -> bool {
        self.durable
    }

    /// What is wrong with the journal.
    pub(super) fn problems(&self) -> impl Iterator<Item = &String> {
        self.problem.iter().chain(&self.damage)
    }

    /// Reads the journal once its directory is there; `None` before and after.
    pub(super) fn load(&mut self) -> Option<Replay> {
        if self.loaded || !self.settle() {
            return None;
        }
        match self.run(Job::Load)? {
            Done::Loaded(Ok(Some(bytes))) => {
                self.loaded = true;
                (self.bytes, self.bytes_live) = (bytes.len(), bytes.len());
                let replay = lease::replay(&bytes);
                self.damage.clone_from(&replay.problems);
                if let Some(kept) = self.keep_damaged(&replay, bytes) {
                    self.damage.push(kept);
                }
                Some(replay)
            }
            Done::Loaded(Err(error)) => {
                self.fail(format!("lease journal cannot be read: {error}"));
                None
            }
            _ => None,
        }
    }

    /// Goes on behind what [`Self::load`] has read, which spares the first leases a write; false when it has to be written
    /// anew at once.
    pub(super) fn go_on(&mut self, replay: &Replay) -> bool {
        let small = self.bytes <= REWRITE_BYTES;
        let whole = replay.lines > 0 && replay.valid_len == self.bytes && !replay.wants_compaction();
        let opened = small && whole && matches!(self.run(Job::Open), Some(Done::Written(Ok(()))));
        if opened {
            self.lines = replay.lines;
            self.durable = true;
            self.problem = None;
        }
        opened
    }

    /// A journal with damage is about to be written anew: what people may still read in it is kept.
    fn keep_damaged(&mut self, replay: &Replay, bytes: Vec<u8>) -> Option<String> {
        // A torn end is what a power cut leaves; a file of which nothing is good is damage all the same.
        if replay.problems.is_empty() && (replay.lines > 0 || bytes.is_empty()) {
            return None;
        }
        match self.run(Job::KeepDamaged(bytes))? {
            Done::Written(Ok(())) => {
                Some("the damaged lease journal is kept as leases.journal.damaged".into())
            }
            Done::Written(Err(error)) => Some(format!("the damaged lease journal cannot be kept: {error}")),
            _ => None,
        }
    }

    /// Makes records durable; without a disk this is a promise that only RAM keeps.
    pub(super) fn append(&mut self, records: &[Record]) {
        if records.is_empty() || !self.durable {
            return;
        }
        let lines: String = records.iter().map(Record::to_line).collect();
        self.lines += records.len();
        self.bytes += lines.len();
        self.write(Job::Append(lines.into_bytes()));
    }

    /// Notices that the disk has gone: an open file would keep its file system, and so its return, in the way.
    pub(super) fn check(&mut self) {
        if self.durable && self.settle() && matches!(self.run(Job::Check), Some(Done::Checked(false))) {
            self.fail("the state partition is gone".into());
        }
    }

    /// Whether the whole state should be written: after trouble, or when the journal has grown.
    pub(super) fn wants_rewrite(&self, live: usize) -> bool {
        let doubled = self.bytes > REWRITE_BYTES && self.bytes > self.bytes_live.saturating_mul(2);
        self.loaded && (!self.durable || doubled || lease::wants_compaction(self.lines, live))
    }

    /// Writes the whole state in place of the journal.
    pub(super) fn rewrite(&mut self, records: &[Record]) {
        if !self.loaded || !self.settle() {
            return;
        }
        let lines: String = records.iter().map(Record::to_line).collect();
        self.lines = records.len();
        (self.bytes, self.bytes_live) = (lines.len(), lines.len());
        self.durable = true;
        self.write(Job::Rewrite(lines.into_bytes()));
    }

    fn write(&mut self, job: Job) {
        match self.run(job) {
            Some(Done::Written(Ok(()))) => self.problem = None,
            Some(Done::Written(Err(error))) => self.fail(format!("lease journal cannot be written: {error}")),
            _ => {}
        }
    }

    /// One job and its answer; `None` when it does not come in time.
    fn run(&mut self, job: Job) -> Option<Done> {
        let sent = self.jobs.send(job).is_ok();
        match self.done.recv_timeout(PATIENCE) {
            Ok(done) => Some(done),
            Err(RecvTimeoutError::Timeout) if sent => {
                self.waiting = true;
                self.fail("the disk with the lease journal does not answer".into());
                None
            }
            Err(_) => {
                self.fail("the journal's thread is gone".into());
                None
            }
        }
    }

    /// Takes an overdue answer; false while it is still overdue.
    fn settle(&mut self) -> bool {
        if self.waiting && self.done.try_recv().is_ok() {
            self.waiting = false;
        }
        !self.waiting
    }

    fn fail(&mut self, problem: String) {
        self.durable = false;
        if self.problem.as_ref() != Some(&problem) {
            eprintln!("{problem}; leases are kept in RAM only");
        }
        self.problem = Some(problem);
    }
}

/// The journal, open, and the schema in which it is written.
struct Open {
    file: File,
    schema: Schema,
}

fn work(path: &Path, jobs: &Receiver<Job>, done: &Sender<Done>) {
    let mut file = None;
    for job in jobs {
        let answer = match job {
            Job::Load => Done::Loaded(read(path)),
            Job::Open => Done::Written(open(path).map(|open| file = Some(open))),
            Job::Check => {
                let there = has_directory(path);
                file = file.filter(|_| there);
                Done::Checked(there)
            }
            Job::KeepDamaged(bytes) => Done::Written(keep_damaged(path, &bytes)),
            Job::Append(bytes) => Done::Written(append(path, &mut file, &bytes)),
            Job::Rewrite(bytes) => Done::Written(rewrite(path, &bytes).map(|fresh| file = Some(fresh))),
        };
        if done.send(answer).is_err() {
            return;
        }
    }
}

fn has_directory(path: &Path) -> bool {
    path.parent().is_some_and(Path::is_dir)
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !has_directory(path) {
        return Ok(None);
    }
    let schema = Schema::of(path)?;
    let mut bytes = Vec::new();
    if path.is_dir() {
        // The next rewrite sets it aside.
        return Ok(Some(bytes));
    }
    match File::open(path) {
        Ok(mut file) => {
            let older = file.metadata()?.len().saturating_sub(MAX_JOURNAL);
            file.seek(SeekFrom::Start(older))?;
            file.take(MAX_JOURNAL).read_to_end(&mut bytes)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(Some(schema.read(path, &bytes)))
}

fn keep_damaged(path: &Path, bytes: &[u8]) -> io::Result<()> {
    kontor_sys::file::write_durable(&kontor_sys::file::damaged(path)?, bytes)
}

fn append(path: &Path, file: &mut Option<Open>, bytes: &[u8]) -> io::Result<()> {
    let open = file.as_mut().ok_or_else(|| io::Error::other("not open"))?;
    let bytes = open.schema.write(path, bytes);
    let result = open.file.write_all(&bytes).and_then(|()| open.file.sync_data());
    if result.is_err() {
        // Half a line may be there; only a rewrite helps.
        *file = None;
    }
    result
}

fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<Open> {
    if !has_directory(path) {
        return Err(io::Error::other("the state partition is not there"));
    }
    kontor_sys::file::write_durable(path, &Schema::of(path)?.write(path, bytes))?;
    open(path)
}

fn open(path: &Path) -> io::Result<Open> {
    Ok(Open { file: OpenOptions::new().append(true).open(path)?, schema: Schema::of(path)? })
}

#[cfg(test)]
mod tests;
