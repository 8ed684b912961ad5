//! Writing and reading back, in an order that makes an interrupted flash look unfinished.

use std::fmt;
use std::io;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::disk::Medium;
use super::progress::Progress;
use super::source::{Content, HEAD, Layout, Segment, Source};

/// Bytes moved and hashed at a time.
const BLOCK: usize = 1 << 20;

/// The hash of one block of a segment as it was written.
#[derive(Debug)]
struct Hash {
    offset: u64,
    length: usize,
    hash: [u8; 32],
}

/// The medium gave back something else than was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Place of the first wrong byte.
    pub offset: u64,
    /// The partition it is in.
    pub place: &'static str,
    /// That byte as it was written and as it was read.
    pub bytes: (u8, u8),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, place, bytes: (written, read) } = self;
        write!(
            f,
            "the medium is bad: at offset {offset} (in {place}) {written:#04x} was written and {read:#04x} read \
             back; do not use it"
        )
    }
}

impl std::error::Error for Mismatch {}

/// Writes the whole layout and reads it back.
///
/// # Errors
/// When the medium cannot be written or read, or gives back something else; it then has no partition table.
pub fn flash(source: &Source, layout: &Layout, medium: &mut impl Medium) -> Result<()> {
    // Whatever was there before must not boot, and must not come back by the second copy of its table.
    let (tail, copy) = &layout.tail;
    medium.zero(0, HEAD).context("cannot clear the beginning of the target")?;
    medium
        .zero(*tail, copy.len() as u64)
        .and_then(|()| medium.settle())
        .context("cannot clear the target's end")?;
    let mut progress = Progress::new("writing", layout.body_length());
    let mut hashes = Vec::new();
    for segment in &layout.body {
        write(source, segment, medium, &mut hashes, &mut progress)
            .with_context(|| format!("cannot write {}", layout.place(segment.offset)))?;
    }
    medium.settle().context("cannot write to the target")?;
    progress.finish();
    verify(source, layout, &hashes, medium)?;
    for (offset, bytes) in [(*tail, copy), (0, &layout.head)] {
        medium
            .write(bytes, offset)
            .and_then(|()| medium.settle())
            .context("cannot write the partition table")?;
    }
    [(*tail, copy), (0, &layout.head)]
        .into_iter()
        .try_for_each(|(at, bytes)| verify_bytes(layout, at, bytes, medium))
}

fn write(
    source: &Source,
    segment: &Segment,
    medium: &mut impl Medium,
    hashes: &mut Vec<Hash>,
    progress: &mut Progress,
) -> io::Result<()> {
    if segment.content == Content::Zero {
        medium.zero(segment.offset, segment.length)?;
    }
    blocks(segment, |at, length| {
        let mut buffer = vec![0; length];
        source.read(segment, at, &mut buffer)?;
        let offset = segment.offset + at;
        if segment.content != Content::Zero {
            medium.write(&buffer, offset)?;
        }
        hashes.push(Hash { offset, length, hash: Sha256::digest(&buffer).into() });
        progress.add(length as u64);
        Ok(())
    })
}

fn blocks(segment: &Segment, mut work: impl FnMut(u64, usize) -> io::Result<()>) -> io::Result<()> {
    let mut at = 0;
    while at < segment.length {
        let length = usize::try_from(segment.length - at).unwrap_or(usize::MAX).min(BLOCK);
        work(at, length)?;
        at += length as u64;
    }
    Ok(())
}

fn verify(source: &Source, layout: &Layout, hashes: &[Hash], medium: &mut impl Medium) -> Result<()> {
    let mut progress = Progress::new("reading back", layout.body_length());
    let mut buffer = vec![0; BLOCK];
    for Hash { offset, length, hash } in hashes {
        let read = &mut buffer[..*length];
        medium.read(read, *offset).with_context(|| format!("cannot read back {}", layout.place(*offset)))?;
        if Sha256::digest(&*read)[..] != hash[..] {
            return Err(mismatch(source, layout, *offset, read)?);
        }
        progress.add(*length as u64);
    }
    progress.finish();
    Ok(())
}

/// Finds the first wrong byte of a block.
fn mismatch(source: &Source, layout: &Layout, offset: u64, read: &[u8]) -> Result<anyhow::Error> {
    let holds = |segment: &&Segment| (segment.offset..segment.offset + segment.length).contains(&offset);
    let segment = layout.body.iter().find(holds).context("a block that was never written")?;
    let mut written = vec![0; read.len()];
    source.read(segment, offset - segment.offset, &mut written).context("cannot read the image again")?;
    Ok(match first_difference(layout, offset, &written, read) {
        Some(mismatch) => mismatch.into(),
        None => anyhow::anyhow!("{} changed while it was being written", source.path()),
    })
}

fn verify_bytes(layout: &Layout, offset: u64, written: &[u8], medium: &mut impl Medium) -> Result<()> {
    let mut read = vec![0; written.len()];
    medium.read(&mut read, offset).context("cannot read back the partition table")?;
    first_difference(layout, offset, written, &read).map_or(Ok(()), |mismatch| Err(mismatch.into()))
}

fn first_difference(layout: &Layout, offset: u64, written: &[u8], read: &[u8]) -> Option<Mismatch> {
    let at = written.iter().zip(read).position(|(written, read)| written != read)?;
    let offset = offset + at as u64;
    Some(Mismatch { offset, place: layout.place(offset), bytes: (written[at], read[at]) })
}

#[cfg(test)]
#[path = "write/tests.rs"]
mod tests;
