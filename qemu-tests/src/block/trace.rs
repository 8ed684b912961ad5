//! What a disk was told, in order, and what may be on it after the power went at some point of that.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::Backend;

/// The unit that a disk writes whole or not at all: btrfs, like every journal of such blocks, relies on it
/// for its superblock.
pub const ATOM: usize = 4096;
/// How a write is split for the overlay; requests are multiples of it.
const SECTOR: usize = 512;

/// What the disk was told.
#[derive(Debug, Clone)]
pub enum Event {
    /// Data that may be lost until the next flush.
    Write {
        /// Where.
        offset: u64,
        /// What.
        data: Arc<[u8]>,
    },
    /// Everything before is durable.
    Flush,
}

/// Sectors written over those of a base.
#[derive(Debug, Clone, Default)]
pub struct Overlay(HashMap<u64, [u8; SECTOR]>);

impl Overlay {
    /// Puts whole sectors in.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (sector, bytes) in (offset / SECTOR as u64..).zip(data.chunks_exact(SECTOR)) {
            let mut content = [0; SECTOR];
            content.copy_from_slice(bytes);
            self.0.insert(sector, content);
        }
    }

    /// Lays its sectors over what `buffer` holds of the base.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (sector, bytes) in (offset / SECTOR as u64..).zip(buffer.chunks_exact_mut(SECTOR)) {
            if let Some(content) = self.0.get(&sector) {
                bytes.copy_from_slice(content);
            }
        }
    }
}

/// An image file that is never written to.
#[derive(Debug, Clone)]
pub struct Base(Arc<File>, u64);

impl Base {
    /// Opens an image.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self(Arc::new(file), size))
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.1
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// A disk that remembers everything it was told.
#[derive(Debug)]
pub struct Recorder {
    base: Base,
    now: Overlay,
    events: Vec<Event>,
}

impl Recorder {
    /// Over an image, which stays as it is.
    #[must_use]
    pub fn new(base: Base) -> Self {
        Self { base, now: Overlay::default(), events: Vec::new() }
    }

    /// Over what a power cut has left.
    #[must_use]
    pub fn after_a_cut(base: Base, left: Overlay) -> Self {
        Self { base, now: left, events: Vec::new() }
    }

    /// How many events there have been: everything answered by now lies before.
    #[must_use]
    pub fn position(&self) -> usize {
        self.events.len()
    }

    /// The image and everything that happened to it.
    #[must_use]
    pub fn trace(&self) -> (Base, Arc<[Event]>) {
        (self.base.clone(), self.events.clone().into())
    }
}

impl Backend for Recorder {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.base.read(offset, buffer)?;
        self.now.read(offset, buffer);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.now.write(offset, data);
        self.events.push(Event::Write { offset, data: data.into() });
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Two flushes in a row say no more than one.
        if matches!(self.events.last(), Some(Event::Write { .. })) {
            self.events.push(Event::Flush);
        }
        Ok(())
    }
}

/// How the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Everything answered is there: a disk without a cache.
    Prefix,
    /// Of what was not flushed, some writes are there, and some only in part.
    Torn {
        /// Decides which.
        seed: u64,
    },
    /// Nothing that was not flushed is there.
    Flushed,
}

/// Walks through a trace and yields what is left after a cut at growing positions.
#[derive(Debug)]
pub struct Replay {
    events: Arc<[Event]>,
    at: usize,
    durable: Overlay,
    pending: Vec<(u64, Arc<[u8]>)>,
}

impl Replay {
    /// Before the first event.
    #[must_use]
    pub fn new(events: Arc<[Event]>) -> Self {
        Self { events, at: 0, durable: Overlay::default(), pending: Vec::new() }
    }

    /// What lies over the base after the power went when `position` events had been answered. Positions must
    /// not go back.
    pub fn cut(&mut self, position: usize, cut: Cut) -> Overlay {
        while self.at < position.min(self.events.len()) {
            match &self.events[self.at] {
                Event::Write { offset, data } => self.pending.push((*offset, data.clone())),
                Event::Flush => {
                    for (offset, data) in self.pending.drain(..) {
                        self.durable.write(offset, &data);
                    }
                }
            }
            self.at += 1;
        }
        let mut overlay = self.durable.clone();
        match cut {
            Cut::Flushed => {}
            Cut::Prefix => self.pending.iter().for_each(|(offset, data)| overlay.write(*offset, data)),
            Cut::Torn { seed } => tear(&self.pending, &mut Random::new(seed), &mut overlay),
        }
        overlay
    }
}

/// Of each write all, nothing, or any of its blocks.
fn tear(pending: &[(u64, Arc<[u8]>)], random: &mut Random, overlay: &mut Overlay) {
    for (offset, data) in pending {
        let fate = random.below(3);
        for (at, atom) in (*offset..).step_by(ATOM).zip(data.chunks(ATOM)) {
            if fate == 0 || fate == 1 && random.below(2) == 0 {
                overlay.write(at, atom);
            }
        }
    }
}

/// Reproducible randomness (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8, length: usize) -> Event {
        Event::Write { offset, data: vec![byte; length].into() }
    }

    fn byte(overlay: &Overlay, offset: u64) -> u8 {
        let mut sector = [0; SECTOR];
        overlay.read(offset, &mut sector);
        sector[0]
    }

    #[test]
    fn what_was_flushed_is_there_whatever_the_cut() {
        let events: Arc<[Event]> =
            [write(0, 1, 4096), Event::Flush, write(0, 2, 4096), write(8192, 3, 4096)].into();
        for seed in 0..50 {
            let overlay = Replay::new(events.clone()).cut(4, Cut::Torn { seed });
            assert!(byte(&overlay, 0) >= 1);
        }
        assert_eq!(byte(&Replay::new(events.clone()).cut(4, Cut::Flushed), 0), 1);
        assert_eq!(byte(&Replay::new(events.clone()).cut(4, Cut::Prefix), 0), 2);
        assert_eq!(byte(&Replay::new(events.clone()).cut(1, Cut::Flushed), 0), 0);
    }

    #[test]
    fn unflushed_writes_are_lost_in_any_combination() {
        let events: Arc<[Event]> = [write(0, 1, 4096), write(4096, 1, 8192)].into();
        let mut seen = std::collections::HashSet::new();
        for seed in 0..200 {
            let overlay = Replay::new(events.clone()).cut(2, Cut::Torn { seed });
            seen.insert([0, 4096, 8192].map(|offset| byte(&overlay, offset)));
        }
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn going_on_from_a_cut_gives_what_starting_anew_gives() {
        let events: Arc<[Event]> =
            (0..40).flat_map(|n| [write(n % 7 * 4096, n as u8, 4096), Event::Flush]).collect();
        let mut replay = Replay::new(events.clone());
        for position in 0..events.len() {
            let (here, anew) =
                (replay.cut(position, Cut::Prefix), Replay::new(events.clone()).cut(position, Cut::Prefix));
            assert!((0..7).all(|n| byte(&here, n * 4096) == byte(&anew, n * 4096)));
        }
    }
}
