//! How a publisher makes a patch: what stays is copied, what has changed becomes segments with the old ranges it resembles.

use std::ops::Range;

use super::matches::{Match, Places};
use super::{Header, Method, OldRange, RANGE_COUNT_LIMIT, RANGES_LIMIT, SEGMENT_LIMIT, Segment, add};
use crate::chunk::is_zero;
use crate::digest::sha256;
use crate::frame::{self, Effort};
use crate::pack::parallel;
use crate::{Digest, Error, IMAGE_LIMIT};

/// What is the same for so long is copied as a segment of its own. A segment costs some 40 octets, and 128 KiB that are
/// copied inside of a changed one some 15, but there they take room among its ranges.
const COPY_LEAST: usize = 64 << 10;
/// Old bytes around a match that are taken with it: what has changed lies beside what has not.
const MARGIN: usize = 64 << 10;
/// A range with fewer matching octets is chance.
const WORTHWHILE: usize = 256;

/// How a patch is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether [`Method::Add`] may be used.
    pub add: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { add: true }
    }
}

/// Makes a patch, on all processors. Takes some ten times the images' memory.
///
/// # Errors
/// When an image is larger than any of ours.
pub fn make(old: &[u8], new: &[u8], options: Options) -> Result<Vec<u8>, Error> {
    if old.len().max(new.len()) as u64 >= IMAGE_LIMIT {
        return Err(Error::Malformed("an image too long"));
    }
    let matches = Places::of(old).matches(old, new);
    let parts = cut(&matches, new);
    let packed = parallel(parts.len(), |number| pack(&parts[number], &matches, old, new, options))?;
    let mut header = Header {
        length: new.len() as u64,
        sha256: sha256(new),
        old_length: old.len() as u64,
        old_sha256: sha256(old),
        segments: Vec::with_capacity(parts.len()),
    };
    let mut payload = Vec::new();
    for (segment, bytes) in packed {
        header.segments.push(segment);
        payload.extend(bytes);
    }
    let mut patch = header.encode();
    patch.extend(payload);
    Ok(patch)
}

/// A part of the new image, before it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Copy(Match),
    Hole(Range<usize>),
    Changed(Range<usize>),
}

/// Cuts the new image into segments, in order.
fn cut(matches: &[Match], new: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut done = 0;
    for found in matches.iter().filter(|found| found.length >= COPY_LEAST) {
        changed(done..found.new, new, &mut parts);
        for skipped in (0..found.length).step_by(SEGMENT_LIMIT) {
            let length = SEGMENT_LIMIT.min(found.length - skipped);
            parts.push(Part::Copy(Match { new: found.new + skipped, old: found.old + skipped, length }));
        }
        done = found.new_end();
    }
    changed(done..new.len(), new, &mut parts);
    parts
}

/// Holes of what has changed, and the rest in segments of about the same length.
fn changed(range: Range<usize>, new: &[u8], parts: &mut Vec<Part>) {
    let mut from = range.start;
    let mut place = range.start;
    while place < range.end {
        let block = place..(place + COPY_LEAST).min(range.end);
        let mut end = block.end;
        if is_zero(&new[block]) {
            end += new[end..range.end].iter().take_while(|byte| **byte == 0).count();
            split(from..place, parts);
            parts.push(Part::Hole(place..end));
            from = end;
        }
        place = end;
    }
    split(from..range.end, parts);
}

fn split(range: Range<usize>, parts: &mut Vec<Part>) {
    let length = range.len().div_ceil(range.len().div_ceil(SEGMENT_LIMIT).max(1)).max(1);
    let cuts = range.clone().step_by(length);
    parts.extend(cuts.map(|from| Part::Changed(from..(from + length).min(range.end))));
}

fn pack(
    part: &Part,
    matches: &[Match],
    old: &[u8],
    new: &[u8],
    options: Options,
) -> Result<(Segment, Vec<u8>), Error> {
    let (range, method, ranges) = match part {
        Part::Copy(copy) => {
            let old = copy.old..copy.old_end();
            (copy.new..copy.new_end(), Method::Copy, vec![old])
        }
        Part::Hole(range) => (range.clone(), Method::Hole, Vec::new()),
        Part::Changed(range) => (range.clone(), Method::Zstd, resembling(range, matches, old.len())),
    };
    let bytes = &new[range.clone()];
    let old_range =
        |range: &Range<usize>| OldRange { offset: range.start as u64, length: range.len() as u64 };
    let mut segment = Segment {
        offset: range.start as u64,
        length: range.len() as u64,
        method,
        digest: (method != Method::Hole).then(|| Digest::of(bytes)),
        ranges: ranges.iter().map(old_range).collect(),
        packed_offset: 0,
        packed_length: 0,
    };
    if method != Method::Zstd {
        return Ok((segment, Vec::new()));
    }
    let prefix: Vec<u8> = ranges.iter().flat_map(|range| old[range.clone()].iter().copied()).collect();
    let mut packed = frame::compress(bytes, &prefix, Effort::Segment)?;
    if options.add
        && !prefix.is_empty()
        && let Some(other) = add::pack(&prefix, bytes)?
        && other.len() < packed.len()
    {
        (segment.method, packed) = (Method::Add, other);
    }
    segment.packed_length = packed.len() as u64;
    Ok((segment, packed))
}

/// The ranges of the old image that a part of the new one has most in common with, in the old image's order.
fn resembling(range: &Range<usize>, matches: &[Match], old_length: usize) -> Vec<Range<usize>> {
    let first = matches.partition_point(|found| found.new_end() + MARGIN <= range.start);
    let near = matches[first..].iter().take_while(|found| found.new < range.end + MARGIN);
    let mut claims: Vec<(Range<usize>, usize)> = near
        .map(|found| {
            // Of a long match only what is near.
            let from = range.start.saturating_sub(MARGIN).max(found.new) - found.new;
            let to = (range.end + MARGIN).min(found.new_end()) - found.new;
            let old = (found.old + from).saturating_sub(MARGIN)..(found.old + to + MARGIN).min(old_length);
            (old, to - from)
        })
        .collect();
    claims.sort_by_key(|(range, _)| range.start);
    let mut merged: Vec<(Range<usize>, usize)> = Vec::new();
    for (range, octets) in claims {
        match merged.last_mut() {
            Some((last, sum)) if range.start <= last.end => {
                (last.end, *sum) = (last.end.max(range.end), *sum + octets);
            }
            _ => merged.push((range, octets)),
        }
    }
    merged.retain(|(_, octets)| *octets >= WORTHWHILE);
    merged.sort_by_key(|(_, octets)| std::cmp::Reverse(*octets));
    let mut room = RANGES_LIMIT;
    let mut chosen: Vec<Range<usize>> = Vec::new();
    for (range, _) in merged.into_iter().take(RANGE_COUNT_LIMIT) {
        let length = range.len().min(room);
        if length == 0 {
            break;
        }
        room -= length;
        chosen.push(range.start..range.start + length);
    }
    chosen.sort_by_key(|range| range.start);
    chosen
}
