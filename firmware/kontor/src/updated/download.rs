//! What comes of a repository's objects: whole ones into files, which an earlier attempt may have begun, and ranges of others.
//! Counted, checked for pace, and no faster than allowed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use kontor_delta::plan::Range;
use kontor_update::release::Object;

use super::fetch::{Order, Progress, local};
use super::held::OnDisk;
use super::http::{Client, HttpError};
use super::places::Places;

/// Read at a time.
pub(super) const CHUNK: usize = 64 << 10;
/// Attempts in a row that bring nothing; one that brings something starts the count anew.
const ATTEMPTS: u32 = 6;
/// Before the next attempt; doubled as long as they bring nothing: a minute in all for a line that comes back by then.
const PAUSE: Duration = Duration::from_secs(1);
/// Brought to the disk that often: a power cut loses no more than this.
const SYNC_EVERY: u64 = 4 << 20;
/// A server that sends less than this on average, over [`SLOW_AFTER`], is given up: the next attempt may find a better way. A line of
/// 64 kbit/s brings twice as much.
const SLOWEST_BYTES_S: u64 = 4 << 10;
const SLOW_AFTER: Duration = Duration::from_secs(120);

/// Why something did not come.
#[derive(Debug)]
pub(super) enum Failure {
    /// The disk: trying again is in vain.
    Local(anyhow::Error),
    /// Server or line: later perhaps.
    Remote(anyhow::Error),
    /// The server has less than it should: later perhaps, and otherwise as [`Self::Form`].
    Short(anyhow::Error),
    /// This object is not what it should be, or not to be had so: another form of the image may do.
    Form(anyhow::Error),
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        let (Failure::Local(error) | Failure::Remote(error) | Failure::Short(error) | Failure::Form(error)) =
            failure;
        error
    }
}

/// Downloads from one repository.
pub(super) struct Downloads {
    from: String,
    objects: PathBuf,
    client: Client,
    pub(super) progress: Progress,
    said: Option<Instant>,
    throttle: Throttle,
    pace: Pace,
}

impl Downloads {
    /// `full` is what the full forms of everything have.
    pub(super) fn new(order: &Order, full: u64) -> Self {
        Self {
            from: order.from.clone(),
            objects: Places::new(&order.work).objects(),
            client: Client::new(),
            progress: Progress { bytes: 0, of: full, full },
            said: None,
            throttle: Throttle::new(order.rate_limit_kbit_s),
            pace: Pace::default(),
        }
    }

    /// So much less, or more, is needed than was thought.
    pub(super) fn expect(&mut self, thought: u64, now: u64) {
        self.progress.of = (self.progress.of + now).saturating_sub(thought);
    }

    /// Where a download is, or will be.
    pub(super) fn path(&self, object: &Object) -> PathBuf {
        self.objects.join(object.sha256.as_str())
    }

    /// How much of an object an earlier attempt has brought.
    pub(super) fn have(&self, object: &Object) -> u64 {
        let have = self.path(object).metadata().map_or(0, |found| found.len());
        if have > object.bytes { 0 } else { have }
    }

    /// The object as a file, checked.
    pub(super) fn object(&mut self, object: &Object) -> Result<PathBuf, Failure> {
        let path = self.path(object);
        let local =
            |error: io::Error| Failure::Local(anyhow::Error::new(error).context(path.display().to_string()));
        let mut have = self.have(object);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(&path).map_err(local)?;
        file.set_len(have).map_err(local)?;
        let mut fruitless = 0;
        while have < object.bytes {
            let before = have;
            let Err(failure) = self.attempt(object, &mut file, &mut have) else { break };
            self.pause(failure, have != before, &mut fruitless)?;
            eprintln!("broken off at {have} of {} bytes, going on", object.bytes);
        }
        file.sync_all().map_err(local)?;
        let found = OnDisk(file).hash(object.bytes).map_err(Failure::Local)?;
        if found != object.sha256 {
            // What came is of no use, now or later.
            fs::remove_file(&path).map_err(local)?;
            let what = anyhow!("rule hash: what the server has as {} has another hash", object.sha256);
            return Err(Failure::Form(what));
        }
        Ok(path)
    }

    /// After a failure: whether to try again, when a moment has passed.
    pub(super) fn pause(
        &mut self,
        failure: Failure,
        fruitful: bool,
        fruitless: &mut u32,
    ) -> Result<(), Failure> {
        *fruitless = if fruitful { 0 } else { *fruitless + 1 };
        match failure {
            // What has come is kept; the next look may find a better way.
            failure if self.pace.is_too_slow => Err(failure),
            // A stick's files do not grow.
            Failure::Short(error) if *fruitless >= ATTEMPTS || local(&self.from).is_some() => {
                Err(Failure::Form(error))
            }
            Failure::Remote(error) | Failure::Short(error) if *fruitless < ATTEMPTS => {
                eprintln!("{error:#}");
                self.pace.wait(|| std::thread::sleep(PAUSE * 2_u32.pow(*fruitless)));
                Ok(())
            }
            failure => Err(failure),
        }
    }

    /// One connection: as much as it brings.
    fn attempt(&mut self, object: &Object, file: &mut File, have: &mut u64) -> Result<(), Failure> {
        let disk = |error: io::Error| Failure::Local(error.into());
        let (from, body) = self.open(object, *have)?;
        if from == 0 && *have > 0 {
            file.set_len(0).map_err(disk)?;
            *have = 0;
        }
        let mut body = Metered::new(body, self);
        let mut chunk = vec![0; CHUNK];
        while *have < object.bytes {
            let limit = CHUNK.min(usize::try_from(object.bytes - *have).unwrap_or(CHUNK));
            match body.read(&mut chunk[..limit]) {
                Ok(0) => return Err(Failure::Short(anyhow!("the transfer ended early"))),
                Ok(length) => {
                    file.write_all(&chunk[..length]).map_err(disk)?;
                    let before = *have / SYNC_EVERY;
                    *have += length as u64;
                    if *have / SYNC_EVERY > before {
                        file.sync_data().map_err(disk)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Remote(error.into())),
            }
        }
        Ok(())
    }

    /// An object from this byte on, or from its beginning.
    fn open(&mut self, object: &Object, from: u64) -> Result<(u64, Box<dyn Read + Send>), Failure> {
        if let Some(folder) = local(&self.from) {
            return Ok((from, Box::new(part_of_file(folder, object, from)?)));
        }
        let url = self.url(object);
        let answer = self.pace.wait(|| self.client.get(&url, from)).map_err(refused)?;
        Ok((answer.from, answer.body))
    }

    /// A part of an object.
    pub(super) fn range(
        &mut self,
        object: &Object,
        range: Range,
    ) -> Result<Metered<'_, io::Take<Box<dyn Read + Send>>>, Failure> {
        let body: Box<dyn Read + Send> = match local(&self.from) {
            Some(folder) => Box::new(part_of_file(folder, object, range.offset)?),
            None => {
                let url = self.url(object);
                let part = self.pace.wait(|| self.client.get_range(&url, range.offset, range.length));
                part.map_err(refused)?
            }
        };
        Ok(Metered::new(body.take(range.length), self))
    }

    fn url(&self, object: &Object) -> String {
        format!("{}/{}", self.from, name(object))
    }

    fn advance(&mut self, bytes: u64) {
        self.progress.bytes += bytes;
        if self.said.is_none_or(|said| said.elapsed() >= Duration::from_secs(1)) {
            self.say();
        }
    }

    pub(super) fn say(&mut self) {
        self.said = Some(Instant::now());
        println!("{}", serde_json::to_string(&self.progress).unwrap_or_default());
    }
}

fn name(object: &Object) -> String {
    format!("objects/{}", object.sha256)
}

fn part_of_file(folder: &Path, object: &Object, from: u64) -> Result<File, Failure> {
    let path = folder.join(name(object));
    let opened = File::open(&path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        Ok(file)
    });
    opened.with_context(|| path.display().to_string()).map_err(Failure::Form)
}

fn refused(error: HttpError) -> Failure {
    match error {
        HttpError::NotFound(_) => {
            Failure::Form(anyhow::Error::new(error).context("the repository is incomplete"))
        }
        HttpError::NoRanges(_) => Failure::Form(error.into()),
        // Some stores answer so for what they do not have; and a file may be shorter than it should be.
        HttpError::Status(_, 403 | 416) => Failure::Short(error.into()),
        _ => Failure::Remote(error.into()),
    }
}

/// Bytes that come over the line.
pub(super) struct Metered<'a, R> {
    body: R,
    downloads: &'a mut Downloads,
    /// Whether the line has ended it, and not whoever reads.
    pub(super) ended: bool,
}

impl<'a, R: Read> Metered<'a, R> {
    fn new(body: R, downloads: &'a mut Downloads) -> Self {
        Self { body, downloads, ended: false }
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // In pieces, so that what is allowed is kept to evenly.
        let limit = buffer.len().min(CHUNK);
        let read = self.downloads.pace.wait(|| self.body.read(&mut buffer[..limit]));
        if matches!(&read, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
            return read;
        }
        self.ended |= limit > 0 && !matches!(read, Ok(1..));
        let length = read?;
        self.downloads.advance(length as u64);
        self.downloads.throttle.came(length as u64);
        self.downloads.pace.came(length as u64).map_err(|slow| {
            self.ended = true;
            io::Error::other(slow)
        })?;
        Ok(length)
    }
}

/// Whether a server is worth waiting for, connections that it cuts and pauses between them included; what the box does with the bytes
/// is not the server's fault.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
    is_too_slow: bool,
}

impl Pace {
    /// Waits for the server.
    fn wait<T>(&mut self, what: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = what();
        self.waited += start.elapsed();
        result
    }

    fn came(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.bytes += bytes;
        if self.waited < SLOW_AFTER {
            return Ok(());
        }
        let rate = self.bytes / self.waited.as_secs().max(1);
        self.is_too_slow = rate < SLOWEST_BYTES_S;
        ensure!(!self.is_too_slow, "rule slow retrieval: the server sends {rate} bytes a second");
        *self = Self::default();
        Ok(())
    }
}

/// Takes no more of the line than it may.
struct Throttle {
    bytes_s: Option<u64>,
    since: Instant,
    bytes: u64,
}

impl Throttle {
    fn new(kbit_s: Option<u32>) -> Self {
        Self { bytes_s: kbit_s.map(|rate| u64::from(rate) * 125), since: Instant::now(), bytes: 0 }
    }

    fn came(&mut self, bytes: u64) {
        let Some(bytes_s) = self.bytes_s else { return };
        self.bytes += bytes;
        let due = Duration::from_micros(self.bytes.saturating_mul(1_000_000) / bytes_s.max(1));
        if let Some(early) = due.checked_sub(self.since.elapsed()) {
            std::thread::sleep(early);
        } else {
            // Time in which nothing came is not caught up with.
            (self.since, self.bytes) = (Instant::now(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_too_slow_by_what_it_has_been_waited_for() {
        let after = |waited, bytes| Pace { waited, bytes, ..Pace::default() };
        assert!(after(SLOW_AFTER - Duration::from_secs(1), 0).came(1).is_ok(), "not yet");
        let mut pace = after(SLOW_AFTER, SLOWEST_BYTES_S * SLOW_AFTER.as_secs());
        assert!(pace.came(1).is_ok() && pace.bytes == 0, "counted anew");
        let mut pace = after(SLOW_AFTER, 1000);
        let error = pace.came(1).unwrap_err().to_string();
        assert!(
            pace.is_too_slow && error.contains("rule slow retrieval: the server sends 8 bytes"),
            "{error}"
        );
    }
}
