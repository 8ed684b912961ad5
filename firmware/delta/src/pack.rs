//! The chunk pack: every chunk of an image once, each a zstd frame of its own, in the image's order.
//!
//! Several chunks in one frame would be a few percent smaller, but who wants one would fetch all; whoever lacks most of an
//! image takes the full form instead.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::chunk::{Chunk, GREATEST_AVERAGE, LEAST_AVERAGE};
use crate::digest::sha256;
use crate::frame::{self, Effort};
use crate::index::{self, Entry, Index, Piece};
use crate::{Digest, Error};

/// Made once, fetched by every box.
const LEVEL: i32 = 19;

/// What a publisher puts beside an image.
#[derive(Debug)]
pub struct Made {
    /// Which chunks there are.
    pub index: Index,
    /// Their bytes.
    pub pack: Vec<u8>,
}

/// The smallest average whose index keeps to its limits ([`index::LIMIT`], [`index::SHARE`]), as a power of two; `full` is the length
/// of the full form. The greatest if none does: such an image is too large or too small for chunks.
///
/// # Errors
/// None for an image in memory.
pub fn average(image: &[u8], full: u64) -> Result<u8, Error> {
    let limit = (index::LIMIT as u64).min(full / index::SHARE);
    for average in LEAST_AVERAGE..GREATEST_AVERAGE {
        let pieces = index::pieces(image, average)?;
        // Digest, and two lengths of at most three octets.
        let entries: u64 =
            pieces.iter().map(|piece| if matches!(piece, Piece::Hole(_)) { 4 } else { 22 }).sum();
        if 53 + entries <= limit {
            return Ok(average);
        }
    }
    Ok(GREATEST_AVERAGE)
}

/// Cuts an image and packs its chunks, on all processors: the publisher's part.
///
/// # Errors
/// When the average is none of the format's or the index would be longer than [`index::LIMIT`].
pub fn make(image: &[u8], average: u8) -> Result<Made, Error> {
    make_with(image, average, LEVEL)
}

/// As [`make`], with this level of zstd: for tests, which have no time for a better one.
///
/// # Errors
/// Those of [`make`].
pub fn make_with(image: &[u8], average: u8, level: i32) -> Result<Made, Error> {
    let pieces = index::pieces(image, average)?;
    let mut seen = HashSet::new();
    let fresh: Vec<&Chunk> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Chunk(chunk) => Some(chunk),
            Piece::Hole(_) => None,
        })
        .filter(|chunk| seen.insert(chunk.digest()))
        .collect();
    let mut frames = compressed(&fresh, level)?.into_iter();
    let (mut entries, mut pack, mut offset) = (Vec::new(), Vec::new(), 0);
    let mut places = std::collections::HashMap::<Digest, u64>::new();
    for piece in &pieces {
        let mut entry =
            Entry { offset, length: 0, digest: None, pack_offset: pack.len() as u64, pack_length: 0 };
        match piece {
            Piece::Hole(length) => entry.length = *length,
            Piece::Chunk(chunk) => {
                let digest = chunk.digest();
                (entry.length, entry.digest) = (chunk.bytes.len() as u64, Some(digest));
                if let Some(place) = places.get(&digest) {
                    entry.pack_offset = *place;
                } else {
                    let frame = frames.next().ok_or(Error::Malformed("fewer frames than chunks"))?;
                    places.insert(digest, entry.pack_offset);
                    entry.pack_length = frame.len() as u64;
                    pack.extend(frame);
                }
            }
        }
        offset += entry.length;
        entries.push(entry);
    }
    let index = Index { average, length: image.len() as u64, sha256: sha256(image), entries };
    Ok(Made { index, pack })
}

fn compressed(chunks: &[&Chunk], level: i32) -> Result<Vec<Vec<u8>>, Error> {
    parallel(chunks.len(), |number| frame::compress(&chunks[number].bytes, &[], Effort::Chunk(level)))
}

/// `work` for every number below `count`, on all processors; results in order.
pub(crate) fn parallel<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<T, Error>)>> = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let result = work(number);
                    if let Ok(mut results) = results.lock() {
                        results.push((number, result));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().map_err(|_| Error::Malformed("a thread that panicked"))?;
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// A chunk from its frame in the pack.
///
/// # Errors
/// [`Error::Damaged`] when it is not what the index says.
pub fn unpack(entry: &Entry, frame: &[u8]) -> Result<Vec<u8>, Error> {
    let damaged = || Error::Damaged { part: "chunk", offset: entry.offset };
    let length = usize::try_from(entry.length).map_err(|_| damaged())?;
    let bytes = frame::decompress(frame, &[], length).map_err(|_| damaged())?;
    if entry.digest == Some(Digest::of(&bytes)) { Ok(bytes) } else { Err(damaged()) }
}
