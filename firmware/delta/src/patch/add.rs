//! Method `Add`: differences by the octet, after bsdiff (Percival, "Naive differences of executable code", 2003).
//!
//! In a program that was compiled anew most instructions are what they were, but the addresses in them have moved. Such code
//! has no long matches; laid over its old self it differs in a few octets, and by the same few amounts again and again.
//!
//! ```text
//! v length of steps and news | v packed length of both | zstd frame (steps, news; prefix: the ranges) | zstd frame (differences)
//! step: v differences | v news | signed v (how far to go on in the ranges, after the differences)
//! ```

use crate::Error;
use crate::frame::{self, Effort};
use crate::patch::SEGMENT_LIMIT;
use crate::wire::{Reader, put_signed, put_varint};

/// Steps and news of one segment, unpacked: steps never come to more than a quarter of what they make.
const STEPS_LIMIT: usize = SEGMENT_LIMIT + SEGMENT_LIMIT / 4;
/// A match must be this much better than going on as before (bsdiff's own number).
const WORTHWHILE: usize = 8;
/// Octets that find candidates of a match, and how many of those are tried.
const KEY: usize = 8;
const CANDIDATES: usize = 24;
const KEY_BITS: u32 = 20;
const MALFORMED: Error = Error::Malformed("differences that are none");
/// So long a match is not compared with others.
const LONG: usize = 4096;

/// Packs `new` as differences to `old`; `None` when it has too many steps.
pub(super) fn pack(old: &[u8], new: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let mut streams = Streams::default();
    Scan { old, new, places: Places::of(old) }.run(&mut streams);
    let Streams { mut steps, differences, news } = streams;
    steps.extend(news);
    if steps.len() > STEPS_LIMIT {
        return Ok(None);
    }
    let first = frame::compress(&steps, old, Effort::Segment)?;
    let mut out = Vec::new();
    put_varint(&mut out, steps.len() as u64);
    put_varint(&mut out, first.len() as u64);
    out.extend(first);
    out.extend(frame::compress(&differences, &[], Effort::Segment)?);
    Ok(Some(out))
}

/// Makes `length` octets again.
pub(super) fn unpack(packed: &[u8], old: &[u8], length: usize) -> Result<Vec<u8>, Error> {
    let mut reader = Reader(packed);
    let steps = usize::try_from(reader.varint()?).ok().filter(|steps| *steps <= STEPS_LIMIT);
    let first = usize::try_from(reader.varint()?).ok();
    let (Some(steps), Some(first)) = (steps, first) else { return Err(MALFORMED) };
    let steps = frame::decompress(reader.bytes(first)?, old, steps)?;
    let (mut steps, mut news) = (Reader(&steps), Reader(behind_steps(&steps, length)?));
    let differences = frame::decompress_up_to(reader.0, length)?;
    let mut differences = Reader(&differences);
    let (mut out, mut place) = (Vec::with_capacity(length), 0_usize);
    while out.len() < length {
        let step = Step::read(&mut steps)?;
        let end = place.checked_add(step.differences).ok_or(MALFORMED)?;
        let old = old.get(place..end).ok_or(MALFORMED)?.iter();
        out.extend(old.zip(differences.bytes(step.differences)?).map(|(old, more)| old.wrapping_add(*more)));
        out.extend_from_slice(news.bytes(step.news)?);
        place = end.checked_add_signed(step.seek).ok_or(MALFORMED)?;
    }
    Ok(out)
}

/// The news, which begin where the steps account for the whole length.
fn behind_steps(steps: &[u8], length: usize) -> Result<&[u8], Error> {
    let (mut reader, mut made) = (Reader(steps), 0_usize);
    while made < length {
        let step = Step::read(&mut reader)?;
        let more = step.differences.checked_add(step.news).ok_or(MALFORMED)?;
        made = made.checked_add(more).filter(|made| *made <= length).ok_or(MALFORMED)?;
    }
    Ok(reader.0)
}

struct Step {
    differences: usize,
    news: usize,
    seek: isize,
}

impl Step {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut length = || usize::try_from(reader.varint()?).map_err(|_| MALFORMED);
        let (differences, news) = (length()?, length()?);
        let seek = isize::try_from(reader.signed()?).map_err(|_| MALFORMED)?;
        Ok(Self { differences, news, seek })
    }
}

#[derive(Default)]
struct Streams {
    steps: Vec<u8>,
    differences: Vec<u8>,
    news: Vec<u8>,
}

/// Where each key of [`KEY`] octets is, latest first.
struct Places {
    heads: Vec<u32>,
    before: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

fn key(bytes: &[u8]) -> Option<usize> {
    let key: [u8; KEY] = bytes.get(..KEY)?.try_into().ok()?;
    Some((u64::from_le_bytes(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - KEY_BITS)) as usize)
}

impl Places {
    fn of(old: &[u8]) -> Self {
        let mut places = Self { heads: vec![NOWHERE; 1 << KEY_BITS], before: vec![NOWHERE; old.len()] };
        for place in 0..old.len() {
            let Some(key) = key(&old[place..]) else { break };
            // Padding would make one chain of everything.
            if place > 0 && old[place - 1..place + KEY].windows(2).all(|pair| pair[0] == pair[1]) {
                continue;
            }
            places.before[place] = std::mem::replace(&mut places.heads[key], place as u32);
        }
        places
    }

    /// The longest match with the beginning of `new`, as (place, length).
    fn longest(&self, old: &[u8], new: &[u8], expected: Option<usize>) -> (usize, usize) {
        let measured = |place: usize| (place, super::matches::common(old.get(place..).unwrap_or(&[]), new));
        let mut best = expected.map_or((0, 0), measured);
        if best.1 >= LONG {
            return best;
        }
        let mut place = key(new).map_or(NOWHERE, |key| self.heads[key]);
        for _ in 0..CANDIDATES {
            if place == NOWHERE {
                break;
            }
            let found = measured(place as usize);
            if found.1 > best.1 {
                best = found;
            }
            place = self.before[place as usize];
        }
        best
    }
}

struct Scan<'a> {
    old: &'a [u8],
    new: &'a [u8],
    places: Places,
}

/// Where old and new run side by side: `old − new`.
fn shifted(position: usize, offset: isize) -> Option<usize> {
    position.checked_add_signed(offset)
}

impl Scan<'_> {
    fn same(&self, position: usize, offset: isize) -> bool {
        let old = shifted(position, offset).and_then(|place| self.old.get(place));
        old.is_some() && old == self.new.get(position)
    }

    /// bsdiff's main loop.
    fn run(&self, streams: &mut Streams) {
        let (mut scan, mut length, mut place) = (0, 0, 0_usize);
        let (mut last_scan, mut last_place, mut offset) = (0, 0, 0_isize);
        while scan < self.new.len() {
            scan += length;
            let score;
            (scan, place, length, score) = self.next(scan, place, offset);
            if length == score && scan < self.new.len() {
                continue;
            }
            let ahead = self.ahead(last_scan, last_place, scan);
            let back = if scan < self.new.len() { self.back(last_scan, scan, place) } else { 0 };
            let (ahead, back) = self.parted(last_scan, last_place, scan, place, ahead, back);
            let (from, to) = (last_scan + ahead, scan - back);
            put_varint(&mut streams.steps, ahead as u64);
            put_varint(&mut streams.steps, (to - from) as u64);
            put_signed(&mut streams.steps, (place as i64 - back as i64) - (last_place + ahead) as i64);
            let pairs = self.new[last_scan..from].iter().zip(&self.old[last_place..]);
            streams.differences.extend(pairs.map(|(new, old)| new.wrapping_sub(*old)));
            streams.news.extend_from_slice(&self.new[from..to]);
            (last_scan, last_place) = (to, place - back);
            offset = place as isize - scan as isize;
        }
    }

    /// The next match that is worth a step, or the end: (where, place, length, how much of it fits as things are).
    fn next(&self, from: usize, before: usize, offset: isize) -> (usize, usize, usize, usize) {
        let (mut scan, mut counted, mut score) = (from, from, 0_usize);
        let (mut place, mut length) = (before, 0);
        while scan < self.new.len() {
            (place, length) = self.places.longest(self.old, &self.new[scan..], shifted(scan, offset));
            while counted < scan + length {
                score += usize::from(self.same(counted, offset));
                counted += 1;
            }
            if (length == score && length != 0) || length > score + WORTHWHILE {
                break;
            }
            score -= usize::from(counted > scan && self.same(scan, offset));
            scan += 1;
            counted = counted.max(scan);
        }
        (scan, place, length, score)
    }

    /// How far the old alignment is still more right than wrong.
    fn ahead(&self, last_scan: usize, last_place: usize, scan: usize) -> usize {
        let pairs = self.new[last_scan..scan].iter().zip(&self.old[last_place..]);
        longest_good(pairs.map(|(new, old)| new == old))
    }

    /// How far back the new alignment is more right than wrong.
    fn back(&self, last_scan: usize, scan: usize, place: usize) -> usize {
        let pairs = self.new[last_scan..scan].iter().rev().zip(self.old[..place].iter().rev());
        longest_good(pairs.map(|(new, old)| new == old))
    }

    /// Parts what both alignments claim, where that makes most octets right.
    fn parted(
        &self,
        last_scan: usize,
        last_place: usize,
        scan: usize,
        place: usize,
        ahead: usize,
        back: usize,
    ) -> (usize, usize) {
        let overlap = (last_scan + ahead + back).saturating_sub(scan);
        if overlap == 0 {
            return (ahead, back);
        }
        let (from, from_old) = (last_scan + ahead - overlap, last_place + ahead - overlap);
        let other = place - back;
        let (mut score, mut best, mut cut) = (0_isize, 0, 0);
        for i in 0..overlap {
            let new = self.new[from + i];
            score += isize::from(new == self.old[from_old + i]) - isize::from(new == self.old[other + i]);
            if score > best {
                (best, cut) = (score, i + 1);
            }
        }
        (ahead + cut - overlap, back - cut)
    }
}

/// The beginning in which right ones outnumber wrong ones most.
fn longest_good(right: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut best, mut length) = (0_isize, 0, 0);
    for (position, right) in right.enumerate() {
        score += if right { 1 } else { -1 };
        if score > best {
            (best, length) = (score, position + 1);
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(old: &[u8], new: &[u8]) -> usize {
        let packed = pack(old, new).unwrap().unwrap();
        assert_eq!(unpack(&packed, old, new.len()).unwrap(), new);
        packed.len()
    }

    #[test]
    fn moved_addresses_cost_little() {
        let mut random = fastrand::Rng::with_seed(9);
        let old: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
        let mut new = old.clone();
        for address in new.chunks_mut(23) {
            address[0] = address[0].wrapping_add(0x40);
        }
        let news: Vec<u8> = (0..500).map(|_| random.u8(..)).collect();
        new.splice(50_000..50_000, news);
        let length = check(&old, &new);
        let zstd = frame::compress(&new, &old, Effort::Segment).unwrap().len();
        assert!(length * 3 < zstd * 2, "{length} against {zstd}");
    }

    proptest! {
        #[test]
        fn everything_comes_back(old in proptest::collection::vec(0_u8..3, 0..600), new in proptest::collection::vec(0_u8..3, 1..600)) {
            check(&old, &new);
        }

        #[test]
        fn garbage_is_refused_or_something(packed in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&packed, b"the old image, which is short", 100);
        }
    }
}
