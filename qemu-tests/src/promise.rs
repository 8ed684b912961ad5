//! What a file server has promised to keep: blocks of files that say themselves what they are, and since when.
//!
//! A block begins with a line, its file, number and version; the rest of it is noise that follows from that line. So a
//! reader needs nothing else to tell a whole block from a torn, a foreign or an older one.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use crate::block::trace::Random;

/// Length of a block.
pub const BLOCK: usize = 4096;

/// Blocks of one version that follow one another in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// What is to be there is this version, or a younger one.
    pub version: u64,
}

impl Run {
    /// Where in its file it begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.first * BLOCK as u64
    }

    /// The same in pieces of at most `count` blocks.
    pub fn pieces(self, count: u64) -> impl Iterator<Item = Self> {
        let end = self.first + self.count;
        let starts = (self.first..end).step_by(usize::try_from(count).unwrap_or(usize::MAX));
        starts.map(move |first| Self { first, count: count.min(end - first), ..self })
    }

    /// Its bytes in `file`.
    #[must_use]
    pub fn content(&self, file: &str) -> Vec<u8> {
        (self.first..self.first + self.count).flat_map(|number| block(file, number, self.version)).collect()
    }
}

/// Everything promised.
#[derive(Debug, Default)]
pub struct Promises(Vec<Promise>);

#[derive(Debug)]
struct Promise {
    file: String,
    run: Run,
    /// Whether the file is to be of one piece: nothing beside these blocks, and all of one version.
    whole: bool,
    position: usize,
}

/// What must be in one file.
#[derive(Debug, Default)]
struct Expected {
    /// Number of each block, and the oldest version it may have.
    blocks: BTreeMap<u64, u64>,
    whole: bool,
}

impl Promises {
    /// Notes that the server has made this durable, by the time at which so many events of the disk had been.
    pub fn note(&mut self, file: &str, run: Run, whole: bool, position: usize) {
        self.0.push(Promise { file: file.to_owned(), run, whole, position });
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Names of the files that something was promised of by `position`.
    #[must_use]
    pub fn files(&self, position: usize) -> Vec<String> {
        self.expected(position).into_keys().map(str::to_owned).collect()
    }

    /// Everything promised by `position` is in these files; how many blocks that are.
    ///
    /// # Errors
    /// With the first one that is lost.
    pub fn check(&self, position: usize, files: &BTreeMap<String, Vec<u8>>) -> Result<usize> {
        let mut checked = 0;
        for (file, expected) in self.expected(position) {
            let content = files.get(file).with_context(|| format!("{file} is lost"))?;
            checked += expected.check(file, content).with_context(|| file.to_owned())?;
        }
        Ok(checked)
    }

    fn expected(&self, position: usize) -> BTreeMap<&str, Expected> {
        let mut files: BTreeMap<&str, Expected> = BTreeMap::new();
        for promise in self.0.iter().filter(|promise| promise.position <= position) {
            let expected = files.entry(&promise.file).or_default();
            expected.whole = promise.whole;
            for number in promise.run.first..promise.run.first + promise.run.count {
                let oldest = expected.blocks.entry(number).or_default();
                *oldest = promise.run.version.max(*oldest);
            }
        }
        files
    }
}

impl Expected {
    fn check(&self, file: &str, content: &[u8]) -> Result<usize> {
        let mut versions = Vec::new();
        for (number, oldest) in &self.blocks {
            let start = usize::try_from(*number)? * BLOCK;
            let bytes = content.get(start..start + BLOCK);
            let bytes =
                bytes.with_context(|| format!("it ends at {}, before block {number}", content.len()))?;
            let version = version(bytes, file, *number).with_context(|| format!("block {number}"))?;
            ensure!(version >= *oldest, "block {number} is of version {version}, {oldest} was promised");
            versions.push(version);
        }
        let in_one_piece = content.len() == self.blocks.len() * BLOCK
            && versions.iter().all(|version| *version == versions[0]);
        ensure!(!self.whole || in_one_piece, "{} bytes, of versions {versions:?}", content.len());
        Ok(versions.len())
    }
}

/// The bytes of a block.
fn block(file: &str, number: u64, version: u64) -> Vec<u8> {
    let mut bytes = format!("{file} {number} {version}\n").into_bytes();
    let seed = bytes.iter().fold(0_u64, |seed, byte| seed.wrapping_mul(257).wrapping_add((*byte).into()));
    let mut noise = Random::new(seed);
    while bytes.len() < BLOCK {
        bytes.extend(noise.below(u64::MAX).to_le_bytes());
    }
    bytes.truncate(BLOCK);
    bytes
}

/// The version of what is said to be a block of this file.
fn version(bytes: &[u8], file: &str, number: u64) -> Result<u64> {
    let line = bytes.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
    let version = line.and_then(|line| line.rsplit_once(' ')).and_then(|(_, version)| version.parse().ok());
    match version {
        Some(version) if block(file, number, version) == bytes => Ok(version),
        _ => bail!("not what was written: {:?} …", String::from_utf8_lossy(&bytes[..64])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u64, version: u64) -> Run {
        Run { first, count, version }
    }

    #[track_caller]
    fn check(promises: &Promises, position: usize, content: &[Run], expect: Option<usize>) {
        let bytes = content.iter().flat_map(|run| run.content("a")).collect();
        let files = BTreeMap::from([("a".to_owned(), bytes)]);
        assert_eq!(promises.check(position, &files).ok(), expect);
    }

    #[test]
    fn what_was_promised_before_the_cut_must_be_there() {
        let mut promises = Promises::default();
        promises.note("a", run(0, 2, 0), false, 10);
        promises.note("a", run(1, 2, 1), false, 20);
        check(&promises, 9, &[], Some(0));
        check(&promises, 10, &[run(0, 2, 0)], Some(2));
        check(&promises, 10, &[run(0, 1, 0)], None);
        check(&promises, 19, &[run(0, 1, 0), run(1, 5, 7)], Some(2));
        check(&promises, 20, &[run(0, 3, 0)], None);
        check(&promises, 20, &[run(0, 1, 0), run(1, 2, 1)], Some(3));
        assert!(promises.check(20, &BTreeMap::new()).is_err());
    }

    #[test]
    fn a_run_is_all_its_pieces() {
        let pieces: Vec<Run> = run(3, 7, 1).pieces(3).collect();
        assert_eq!(pieces, [run(3, 3, 1), run(6, 3, 1), run(9, 1, 1)]);
        assert_eq!((pieces[0].offset(), run(0, 0, 0).pieces(3).count()), (3 * BLOCK as u64, 0));
    }

    #[test]
    fn a_file_in_one_piece_has_one_version_and_nothing_else() {
        let mut promises = Promises::default();
        promises.note("a", run(0, 2, 3), true, 10);
        check(&promises, 10, &[run(0, 2, 4)], Some(2));
        check(&promises, 10, &[run(0, 1, 3), run(1, 1, 4)], None);
        check(&promises, 10, &[run(0, 3, 3)], None);
    }

    #[test]
    fn a_changed_or_foreign_block_is_none() {
        let bytes = block("a", 1, 2);
        assert_eq!(version(&bytes, "a", 1).unwrap(), 2);
        assert!(version(&bytes, "b", 1).is_err());
        assert!(version(&bytes, "a", 2).is_err());
        for at in [0, 3, 5, 100, BLOCK - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(version(&changed, "a", 1).is_err(), "byte {at}");
        }
        assert!(version(&[0; BLOCK], "a", 1).is_err());
    }
}
