//! The children that speak with servers: users without any right, who decompress as well. They decide nothing.
//!
//! `metadata` looks at a repository as the daemon will, to know which files that takes, and leaves them in a mirror; `images`
//! downloads what it is told to, goes on where an earlier one was cut off, and makes images of it. Progress goes to standard
//! output, a line of JSON each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use kontor_update::release::{Image, Object};
use kontor_update::{Channel, Sha256Hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::child::read_order;
use super::http::{Client, HttpError};
use super::places::Places;
use super::transport::{Mirrored, refresh};
use super::{slots, store};

/// Read at a time.
const CHUNK: usize = 64 << 10;
/// Attempts in a row that bring nothing; one that brings something starts the count anew.
const ATTEMPTS: u32 = 6;
/// Between attempts: a line that comes back does so within half a minute.
const PAUSE: Duration = Duration::from_secs(5);
/// A server that sends less than this on average, over [`SLOW_AFTER`], is given up: the next attempt may find a better way. A line of
/// 64 kbit/s brings twice as much.
const SLOWEST_BYTES_S: u64 = 4 << 10;
const SLOW_AFTER: Duration = Duration::from_secs(120);
/// zstd frames with a larger window are refused: memory of a small box.
const WINDOW_LOG_MAX: u32 = 23;

/// What a child is to fetch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Order {
    /// The repository: `http://…`, `https://…`, or a folder.
    pub(super) from: String,
    /// Where everything goes.
    pub(super) work: PathBuf,
    pub(super) channel: String,
    pub(super) product: String,
    /// The trusted root.
    pub(super) root: PathBuf,
    /// When the running release was built.
    pub(super) clock_floor: u64,
    pub(super) rate_limit_kbit_s: Option<u32>,
    /// Images to be made; empty for `metadata`.
    #[serde(default)]
    pub(super) images: Vec<Image>,
}

/// A line of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Bytes that have come.
    pub(super) bytes: u64,
    /// Bytes that are needed.
    pub(super) of: u64,
}

/// `fetch metadata ORDER`, `fetch images ORDER`.
pub(super) fn run(what: &str, order: &Path) -> anyhow::Result<()> {
    let order: Order = read_order(order)?;
    match what {
        "metadata" => metadata(&order),
        "images" => Images::new(&order).fetch(),
        _ => bail!("usage: kontor updated fetch metadata|images ORDER"),
    }
}

/// Leaves in the mirror what the daemon needs to see: metadata, the channel, and manifests of the product's current releases.
fn metadata(order: &Order) -> anyhow::Result<()> {
    let places = Places::new(&order.work);
    let mirrored = Mirrored::new(&order.from, places.mirror())?;
    let runtime = super::transport::runtime()?;
    runtime.block_on(async {
        let root = fs::read(&order.root).with_context(|| order.root.display().to_string())?;
        let trusted =
            refresh(&places.memory(), &root, mirrored.base(), mirrored.clone(), order.clock_floor).await?;
        let channel: Channel = trusted.channel(&order.channel).await?;
        for current in channel.current.iter().filter(|current| current.product == order.product) {
            trusted.release(&current.product, current.version).await?;
        }
        Ok(())
    })
}

/// Downloads for some images.
struct Images<'a> {
    order: &'a Order,
    places: Places,
    client: Client,
    progress: Progress,
    said: Option<Instant>,
    throttle: Throttle,
}

impl<'a> Images<'a> {
    fn new(order: &'a Order) -> Self {
        let bytes = order.images.iter().filter_map(Image::full).map(|object| object.bytes).sum();
        Self {
            order,
            places: Places::new(&order.work),
            client: Client::new(),
            progress: Progress { bytes: 0, of: bytes },
            said: None,
            throttle: Throttle::new(order.rate_limit_kbit_s),
        }
    }

    fn fetch(&mut self) -> anyhow::Result<()> {
        for image in &self.order.images {
            let object = image.full().context("an image has no full form")?;
            let finished = self.places.image(&image.sha256);
            if finished.metadata().is_ok_and(|found| found.len() == image.bytes) {
                self.advance(object.bytes);
                continue;
            }
            let compressed = self.download(object)?;
            decompress(&compressed, image, &finished)?;
            fs::remove_file(&compressed).with_context(|| compressed.display().to_string())?;
        }
        self.say();
        Ok(())
    }

    /// The object as a file, checked.
    fn download(&mut self, object: &Object) -> anyhow::Result<PathBuf> {
        let path = self.places.objects().join(object.sha256.as_str());
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(&path);
        let mut file = file.with_context(|| path.display().to_string())?;
        let mut have = file.metadata()?.len();
        if have > object.bytes {
            file.set_len(0)?;
            have = 0;
        }
        self.advance(have);
        let mut fruitless = 0;
        while have < object.bytes {
            let before = have;
            match self.attempt(object, &mut file, &mut have) {
                Ok(()) => {}
                Err(Failure::Local(error)) => return Err(error).with_context(|| path.display().to_string()),
                Err(Failure::Remote(error)) if have == before && fruitless + 1 >= ATTEMPTS => {
                    return Err(error);
                }
                Err(Failure::Remote(error)) => {
                    eprintln!("broken off at {have} of {} bytes, going on: {error:#}", object.bytes);
                    fruitless = if have == before { fruitless + 1 } else { 0 };
                    std::thread::sleep(PAUSE);
                }
            }
        }
        file.sync_all()?;
        file.rewind()?;
        let found = slots::hash(&mut file, object.bytes)?;
        if found != object.sha256 {
            // What came is of no use, now or later.
            fs::remove_file(&path)?;
            bail!("rule hash: what the server has as {} has another hash", object.sha256);
        }
        Ok(path)
    }

    /// One connection: as much as it brings.
    fn attempt(&mut self, object: &Object, file: &mut File, have: &mut u64) -> Result<(), Failure> {
        let mut answer = self.open(object, *have).map_err(Failure::Remote)?;
        if answer.0 == 0 && *have > 0 {
            file.set_len(0).map_err(Failure::Local)?;
            self.progress.bytes = self.progress.bytes.saturating_sub(*have);
            *have = 0;
        }
        let mut pace = Pace::new();
        let mut chunk = vec![0; CHUNK];
        while *have < object.bytes {
            let limit = CHUNK.min(usize::try_from(object.bytes - *have).unwrap_or(CHUNK));
            let length = match answer.1.read(&mut chunk[..limit]) {
                Ok(0) => return Err(Failure::Remote(anyhow::anyhow!("the transfer ended early"))),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Remote(error.into())),
            };
            file.write_all(&chunk[..length]).map_err(Failure::Local)?;
            *have += length as u64;
            self.advance(length as u64);
            pace.came(length as u64).map_err(Failure::Remote)?;
            self.throttle.came(length as u64);
        }
        Ok(())
    }

    fn open(&self, object: &Object, from: u64) -> anyhow::Result<(u64, Box<dyn Read + Send>)> {
        let name = format!("objects/{}", object.sha256);
        if let Some(folder) = local(&self.order.from) {
            let mut file = File::open(folder.join(&name)).with_context(|| name.clone())?;
            file.seek(SeekFrom::Start(from))?;
            return Ok((from, Box::new(file)));
        }
        match self.client.get(&format!("{}/{name}", self.order.from), from) {
            Ok(answer) => Ok((answer.from, answer.body)),
            Err(error @ HttpError::NotFound(_)) => Err(error).context("the repository is incomplete"),
            Err(error) => Err(error.into()),
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.progress.bytes += bytes;
        if self.said.is_none_or(|said| said.elapsed() >= Duration::from_secs(1)) {
            self.say();
        }
    }

    fn say(&mut self) {
        self.said = Some(Instant::now());
        println!("{}", serde_json::to_string(&self.progress).unwrap_or_default());
    }
}

/// What ended an attempt.
enum Failure {
    /// The disk: trying again is in vain.
    Local(io::Error),
    /// Server or line.
    Remote(anyhow::Error),
}

/// A repository that is a folder.
pub(super) fn local(from: &str) -> Option<&Path> {
    from.starts_with('/').then(|| Path::new(from))
}

/// Makes the image of its full form.
fn decompress(compressed: &Path, image: &Image, finished: &Path) -> anyhow::Result<()> {
    let part = finished.with_extension("part");
    let input = File::open(compressed).with_context(|| compressed.display().to_string())?;
    let mut decoder = zstd::Decoder::new(BufReader::with_capacity(CHUNK, input))?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut output = File::create(&part).with_context(|| part.display().to_string())?;
    let (mut hash, mut length, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let read = decoder.read(&mut chunk).context("the object is no zstd stream")?;
        if read == 0 {
            break;
        }
        length += read as u64;
        ensure!(length <= image.bytes, "rule length: the image is longer than the release says");
        hash.update(&chunk[..read]);
        output.write_all(&chunk[..read]).with_context(|| part.display().to_string())?;
    }
    let found = Sha256Hex::from_bytes(&hash.finalize().into());
    ensure!(
        length == image.bytes && found == image.sha256,
        "rule hash: the image is not what the release says"
    );
    output.sync_all()?;
    fs::rename(&part, finished).with_context(|| finished.display().to_string())?;
    File::open(finished.parent().context("no folder")?)?.sync_all()?;
    Ok(())
}

/// Whether a server is worth waiting for.
struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    fn came(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.bytes += bytes;
        let elapsed = self.since.elapsed();
        if elapsed < SLOW_AFTER {
            return Ok(());
        }
        let rate = self.bytes / elapsed.as_secs().max(1);
        ensure!(rate >= SLOWEST_BYTES_S, "rule slow retrieval: the server sends {rate} bytes a second");
        *self = Self::new();
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

/// The time, as metadata is checked against it.
pub(super) fn clock(floor: u64) -> kontor_trust::Clock {
    kontor_trust::Clock { now: store::now(), floor }
}
