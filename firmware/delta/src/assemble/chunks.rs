//! An image from chunks.

use std::collections::HashMap;
use std::io::Read;

use super::{Body, contains};
use crate::chunk::{self, is_zero};
use crate::full::put;
use crate::index::{Entry, Index};
use crate::io::{Source, Target};
use crate::plan::{self, Range};
use crate::{Digest, Error, pack};

/// Holes are looked at and written in pieces of this length.
const PIECE: u64 = 256 * 1024;

/// Where a chunk is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Source(usize, u64),
    Target(u64),
}

/// The state of an image that is put together from chunks.
#[derive(Debug)]
pub struct Chunks<'a> {
    index: &'a Index,
    /// Of every chunk: its entries.
    entries: HashMap<Digest, Vec<usize>>,
    places: HashMap<Digest, Place>,
    /// Of every entry: whether it is in the target.
    done: Vec<bool>,
}

impl<'a> Chunks<'a> {
    /// Nothing is known to be here yet.
    #[must_use]
    pub fn new(index: &'a Index) -> Self {
        let mut entries = HashMap::<Digest, Vec<usize>>::new();
        for (number, entry) in index.entries.iter().enumerate() {
            if let Some(digest) = entry.digest {
                entries.entry(digest).or_default().push(number);
            }
        }
        Self { index, entries, places: HashMap::new(), done: vec![false; index.entries.len()] }
    }

    /// Sees what the target has of this image from an earlier attempt.
    pub fn resume(&mut self, target: &mut impl Source) {
        for (number, entry) in self.index.entries.iter().enumerate() {
            let Some(digest) = entry.digest else {
                self.done[number] = pieces(entry).all(|piece| reads_zero(target, piece));
                continue;
            };
            let mut bytes = vec![0; usize::try_from(entry.length).unwrap_or(0)];
            if target.read_at(entry.offset, &mut bytes).is_ok() && Digest::of(&bytes) == digest {
                self.done[number] = true;
                self.places.insert(digest, Place::Target(entry.offset));
            }
        }
    }

    /// Looks for chunks in the old image (or interrupted download, or partition) that the caller will hand in under this
    /// number. Stops early when nothing is missing.
    ///
    /// # Errors
    /// When it cannot be read; what was found until then counts.
    pub fn look_in(&mut self, number: usize, mut image: impl Read) -> Result<(), Error> {
        self.look(number, &mut image)
    }

    /// One copy of the code that takes all the time, optimised with this crate.
    fn look(&mut self, number: usize, image: &mut dyn Read) -> Result<(), Error> {
        for chunk in chunk::chunks(image, self.index.average)? {
            let chunk = chunk?;
            if self.places.len() == self.entries.len() {
                break;
            }
            let digest = chunk.digest();
            if self.entries.contains_key(&digest) {
                self.places.entry(digest).or_insert(Place::Source(number, chunk.offset));
            }
        }
        Ok(())
    }

    /// What has to be fetched of the pack, as far as is known now.
    #[must_use]
    pub fn fetch(&self) -> Vec<Range> {
        let missing = self.index.entries.iter().filter(|entry| self.is_missing(entry));
        plan::coalesce(&missing.map(packed).collect::<Vec<_>>())
    }

    fn is_missing(&self, entry: &Entry) -> bool {
        entry.pack_length > 0 && entry.digest.is_some_and(|digest| !self.places.contains_key(&digest))
    }

    /// Writes holes and what was found. A chunk that is no longer what it was is missing again: ask [`Chunks::fetch`] after this.
    ///
    /// # Errors
    /// When the target cannot be written.
    pub fn local(&mut self, sources: &mut [&mut dyn Source], target: &mut impl Target) -> Result<(), Error> {
        for number in 0..self.done.len() {
            if self.done[number] {
                continue;
            }
            let entry = &self.index.entries[number];
            let Some(digest) = entry.digest else {
                let zeros = vec![0; PIECE as usize];
                for piece in pieces(entry) {
                    put(target, piece.offset, &zeros[..piece.length as usize])?;
                }
                self.done[number] = true;
                continue;
            };
            let Some(place) = self.places.get(&digest).copied() else { continue };
            let mut bytes = vec![0; usize::try_from(entry.length).unwrap_or(0)];
            let read = match place {
                Place::Target(offset) => target.read_at(offset, &mut bytes),
                Place::Source(source, offset) => match sources.get_mut(source) {
                    Some(source) => source.read_at(offset, &mut bytes),
                    None => Err(std::io::ErrorKind::NotFound.into()),
                },
            };
            if read.is_ok() && Digest::of(&bytes) == digest {
                put(target, entry.offset, &bytes)?;
                self.done[number] = true;
                self.places.insert(digest, Place::Target(entry.offset));
            } else {
                self.places.remove(&digest);
            }
        }
        Ok(())
    }

    /// Takes the bytes of one of the ranges of [`Chunks::fetch`]. What came before an error is written.
    ///
    /// # Errors
    /// When the bytes end early or are damaged, or the target cannot be written.
    pub fn receive(&mut self, range: Range, body: impl Read, target: &mut impl Target) -> Result<(), Error> {
        let mut body = Body::new(range, body);
        for entry in &self.index.entries {
            let Some(digest) =
                entry.digest.filter(|_| self.is_missing(entry) && contains(range, packed(entry)))
            else {
                continue;
            };
            let bytes = pack::unpack(entry, &body.read(packed(entry))?)?;
            for number in self.entries.get(&digest).into_iter().flatten() {
                put(target, self.index.entries[*number].offset, &bytes)?;
                self.done[*number] = true;
            }
            self.places.insert(digest, Place::Target(entry.offset));
        }
        Ok(())
    }

    /// Whether everything is in the target.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.done.iter().all(|done| *done)
    }
}

fn packed(entry: &Entry) -> Range {
    Range { offset: entry.pack_offset, length: entry.pack_length }
}

fn pieces(hole: &Entry) -> impl Iterator<Item = Range> + use<> {
    let (from, to) = (hole.offset, hole.offset + hole.length);
    (from..to).step_by(PIECE as usize).map(move |offset| Range { offset, length: PIECE.min(to - offset) })
}

fn reads_zero(target: &mut impl Source, piece: Range) -> bool {
    let mut bytes = vec![1; piece.length as usize];
    target.read_at(piece.offset, &mut bytes).is_ok() && is_zero(&bytes)
}
