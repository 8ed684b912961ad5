//! Hundreds of disks that a power cut may leave, behind two served ones: the checker in the guest writes a
//! number to the desk's first sector, and the variant disk has the content of that variant from then on.
//!
//! What the guest finds it writes to the desk, one shelf for each variant, where the test reads it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kontor_boot::filesystem::{Content, PROBE_LENGTH, identify};

use super::Backend;
use super::trace::{Base, Cut, Event, Overlay, Random, Replay};

/// Where the first shelf begins.
pub const SHELVES: u64 = 4096;

/// The part of the disk that is served.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

/// A power cut: after how many events, and how.
pub type CutPoint = (usize, Cut);

/// So many cuts of all kinds, in order, each somewhere in the range that `range` has for its number; always the same ones.
pub fn choose_cuts(count: usize, range: impl Fn(usize) -> (usize, usize)) -> Vec<CutPoint> {
    let mut random = Random::new(count as u64);
    let mut cuts: Vec<CutPoint> = (0..count)
        .map(|number| {
            let (from, to) = range(number);
            let position = from + random.below((to - from) as u64 + 1) as usize;
            let cut = match number % 4 {
                0 => Cut::Prefix,
                1 => Cut::Flushed,
                _ => Cut::Torn { seed: number as u64 },
            };
            (position, cut)
        })
        .collect();
    cuts.sort_by_key(|(position, _)| *position);
    cuts
}

#[derive(Debug)]
struct Shared {
    base: Base,
    window: Window,
    replay: Replay,
    cuts: Vec<CutPoint>,
    /// Number of the variant that is served.
    chosen: Option<usize>,
    overlay: Overlay,
    contents: Vec<Option<Content>>,
}

impl Shared {
    fn choose(&mut self, number: usize) -> io::Result<()> {
        let (position, cut) = *self.cuts.get(number).ok_or(io::ErrorKind::InvalidInput)?;
        if self.chosen >= Some(number) {
            return Err(io::Error::other("variants are chosen in order"));
        }
        self.overlay = self.replay.cut(position, cut);
        self.chosen = Some(number);
        let mut start = vec![0; PROBE_LENGTH];
        self.read(0, &mut start)?;
        self.contents[number] = Some(identify(&start));
        Ok(())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let offset = self.window.offset + offset;
        self.base.read(offset, buffer)?;
        self.overlay.read(offset, buffer);
        Ok(())
    }
}

/// The disk whose content is the chosen variant's; what the guest writes is forgotten with the next one.
#[derive(Debug)]
pub struct VariantDisk(Arc<Mutex<Shared>>);

/// The disk on which the guest chooses and reports.
#[derive(Debug)]
pub struct Desk {
    shared: Arc<Mutex<Shared>>,
    content: Vec<u8>,
    shelf: usize,
}

/// Both disks for these cuts, whose positions must not go back. What the checker reports of one variant must fit on
/// a shelf of this length.
#[must_use]
pub fn disks(
    base: Base,
    events: Arc<[Event]>,
    cuts: Vec<CutPoint>,
    window: Window,
    shelf: usize,
) -> (VariantDisk, Desk) {
    let content = vec![0; SHELVES as usize + cuts.len() * shelf];
    let contents = vec![None; cuts.len()];
    let replay = Replay::new(events);
    let shared = Shared { base, window, replay, cuts, chosen: None, overlay: Overlay::default(), contents };
    let shared = Arc::new(Mutex::new(shared));
    (VariantDisk(shared.clone()), Desk { shared, content, shelf })
}

impl Desk {
    /// What the guest reported of a variant.
    #[must_use]
    pub fn shelf(&self, number: usize) -> &[u8] {
        let start = SHELVES as usize + number * self.shelf;
        self.content.get(start..start + self.shelf).unwrap_or_default()
    }

    /// What the variant's disk held when it was chosen; nothing when it never was.
    #[must_use]
    pub fn content(&self, number: usize) -> Option<Content> {
        lock(&self.shared).contents.get(number).copied().flatten()
    }
}

impl Backend for VariantDisk {
    fn size(&self) -> u64 {
        lock(&self.0).window.length
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        lock(&self.0).read(offset, buffer)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut shared = lock(&self.0);
        let offset = shared.window.offset + offset;
        shared.overlay.write(offset, data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Backend for Desk {
    fn size(&self) -> u64 {
        self.content.len() as u64
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = self.content.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let content = self.content.get_mut(offset as usize..offset as usize + data.len());
        content.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        if offset == 0 {
            let mut shared = lock(&self.shared);
            if let Some(number) = number(data).filter(|number| shared.chosen != Some(*number)) {
                shared.choose(number)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The decimal number that `data` begins with, up to a newline.
fn number(data: &[u8]) -> Option<usize> {
    let line = data.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
