//! What a new image has in common with an old one: exact matches, found by small content-defined chunks and grown by bytes.
//!
//! A publisher's part: both images are in memory. No knowledge of file systems is needed: a program that was compiled anew
//! still has enough of its old strings, tables and functions to be found by them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use fastcdc::v2020::FastCDC;

/// Lengths of the small chunks. Smaller ones find more and cost memory: 40 octets for each.
const LEAST: usize = 64;
const AVERAGE: usize = 256;
const GREATEST: usize = 2048;
/// Places remembered for one content: more say nothing (padding, licences).
const PLACES: usize = 8;

/// The same bytes in both images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) new: usize,
    pub(super) old: usize,
    pub(super) length: usize,
}

impl Match {
    pub(super) fn new_end(&self) -> usize {
        self.new + self.length
    }

    pub(super) fn old_end(&self) -> usize {
        self.old + self.length
    }
}

/// Where in an image each small chunk is.
pub(super) struct Places {
    first: HashMap<u64, Vec<u32>>,
}

impl Places {
    /// Of an image below 4 GiB.
    pub(super) fn of(image: &[u8]) -> Self {
        let mut first = HashMap::<u64, Vec<u32>>::new();
        for chunk in cut(image) {
            let bytes = &image[chunk.clone()];
            if is_dull(bytes) {
                continue;
            }
            let places = first.entry(hash(bytes)).or_default();
            if places.len() < PLACES {
                places.extend(u32::try_from(chunk.start).ok());
            }
        }
        Self { first }
    }

    /// Matches in the order of the new image; each at least a small chunk long, none overlapping.
    pub(super) fn matches(&self, old: &[u8], new: &[u8]) -> Vec<Match> {
        let mut found: Vec<Match> = Vec::new();
        let mut done = 0;
        for chunk in cut(new) {
            if chunk.end <= done {
                continue;
            }
            let bytes = &new[chunk.clone()];
            if is_dull(bytes) {
                continue;
            }
            // Where it would be if nothing but the place had changed since the last match.
            let expected = found
                .last()
                .map_or(chunk.start, |last| last.old_end() + (chunk.start - last.new_end().min(chunk.start)));
            let here = old.get(expected..expected + bytes.len()).is_some_and(|there| there == bytes);
            let place = if here { Some(expected) } else { self.nearest(old, bytes, expected) };
            let Some(place) = place else { continue };
            let grown = grow(old, new, Match { new: chunk.start, old: place, length: bytes.len() }, done);
            done = grown.new_end();
            found.push(grown);
        }
        found
    }

    fn nearest(&self, old: &[u8], bytes: &[u8], expected: usize) -> Option<usize> {
        let places = self.first.get(&hash(bytes))?.iter().map(|place| *place as usize);
        let right =
            places.filter(|place| old.get(*place..place + bytes.len()).is_some_and(|there| there == bytes));
        right.min_by_key(|place| place.abs_diff(expected))
    }
}

fn grow(old: &[u8], new: &[u8], found: Match, floor: usize) -> Match {
    let forward = common(&old[found.old_end()..], &new[found.new_end()..]);
    let before = (found.new - floor.min(found.new)).min(found.old);
    let backward = old[found.old - before..found.old]
        .iter()
        .rev()
        .zip(new[found.new - before..found.new].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (new, old) = (found.new - backward, found.old - backward);
    Match { new, old, length: found.length + backward + forward }
}

/// Length of the common beginning.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 256;
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    blocks + a[blocks..].iter().zip(&b[blocks..]).take_while(|(a, b)| a == b).count()
}

/// Padding matches everywhere and says nothing.
fn is_dull(bytes: &[u8]) -> bool {
    bytes.windows(2).all(|pair| pair[0] == pair[1])
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn cut(image: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> {
    FastCDC::new(image, LEAST, AVERAGE, GREATEST).map(|chunk| chunk.offset..chunk.offset + chunk.length)
}
