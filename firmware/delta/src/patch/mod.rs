//! The segment patch: a new image as segments, each made with ranges of one known old image.
//!
//! ```text
//! magic 8 | table's length u32 | table | packed segments, in order, without gaps
//! table: new length u64 | new SHA-256 32 | old length u64 | old SHA-256 32 | segments u32 | segment …
//! segment: v length | method u8 | hole: nothing more
//!          else: digest 16 | v ranges | range … | not for a copy: v packed length
//! range: signed v (offset − end of the range before) | v length
//! ```
//!
//! What is bounded bounds the box's memory: a segment, its ranges together and its packed bytes are decoded at once, and
//! nothing else is ([`MEMORY_LIMIT`]). Each segment has a digest of its own, so that an interrupted patch goes on behind the last
//! good one and damage is found where it is.

mod add;
mod make;
mod matches;

use crate::digest::Sha256Sum;
use crate::frame;
use crate::wire::{Reader, put_signed, put_varint};
use crate::{Digest, Error, IMAGE_LIMIT};

pub use make::{Options, make};

const MAGIC: &[u8; 8] = b"KNTRPAT1";
/// Octets that say how long the header is.
pub const PREAMBLE: usize = 12;
/// Longest header with its table.
pub const HEADER_LIMIT: usize = 1 << 20;
/// Longest segment that is not a hole.
pub const SEGMENT_LIMIT: usize = 4 << 20;
/// Longest sum of a segment's ranges.
pub const RANGES_LIMIT: usize = 12 << 20;
/// Most ranges of a segment.
pub const RANGE_COUNT_LIMIT: usize = 64;
/// Longest packed segment.
pub const PACKED_LIMIT: usize = SEGMENT_LIMIT + SEGMENT_LIMIT / 4;
/// What the box needs at most for any form: ranges, the segment, its packed and its unpacked form, and the decoder.
pub const MEMORY_LIMIT: usize = 32 << 20;
const FIXED: usize = 8 + 32 + 8 + 32 + 4;
/// Octets of the shortest segment, a hole.
const LEAST_SEGMENT: usize = 2;

/// How a segment comes to be. Numbered on the wire: never reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// The ranges, one after the other.
    Copy = 0,
    /// Zeros.
    Hole = 1,
    /// A zstd frame whose prefix are the ranges.
    Zstd = 2,
    /// As bsdiff: differences to the ranges and what is new, for programs whose addresses have moved (`patch/add.rs`).
    Add = 3,
}

impl Method {
    fn decode(byte: u8) -> Result<Self, Error> {
        let known = [Self::Copy, Self::Hole, Self::Zstd, Self::Add];
        known.into_iter().find(|method| *method as u8 == byte).ok_or(Error::Malformed("an unknown method"))
    }
}

/// A range of the old image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldRange {
    /// From where.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// A part of the new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where in the new image.
    pub offset: u64,
    /// How long.
    pub length: u64,
    /// How it is made.
    pub method: Method,
    /// Of what it is; a hole has none.
    pub digest: Option<Digest>,
    /// Made from these, in this order.
    pub ranges: Vec<OldRange>,
    /// Where in the patch its packed bytes are.
    pub packed_offset: u64,
    /// How many they are: 0 for copies and holes.
    pub packed_length: u64,
}

/// All of a patch but the packed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Length of the new image.
    pub length: u64,
    /// SHA-256 of the new image, as a name: that of the signed manifest counts.
    pub sha256: Sha256Sum,
    /// Length of the old image.
    pub old_length: u64,
    /// SHA-256 of the old image, as a name: who says that it is there need not be right, for segments are checked.
    pub old_sha256: Sha256Sum,
    /// In order, without gaps.
    pub segments: Vec<Segment>,
}

impl Header {
    /// How many octets of the patch are the header, from its first [`PREAMBLE`].
    ///
    /// # Errors
    /// When these begin no patch.
    pub fn needed(preamble: &[u8]) -> Result<usize, Error> {
        let mut reader = Reader(preamble);
        if reader.array()? != *MAGIC {
            return Err(Error::Malformed("not a patch"));
        }
        let length = reader.u32()? as usize;
        let whole = length.checked_add(PREAMBLE).filter(|whole| *whole <= HEADER_LIMIT);
        whole.ok_or(Error::Malformed("a header too long"))
    }

    /// Reads the header; `bytes` are the first of the patch, at least [`Header::needed`].
    ///
    /// # Errors
    /// [`Error::Malformed`], for anything that [`Header::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let needed = Self::needed(bytes)?;
        let mut reader = Reader(bytes.get(PREAMBLE..needed).ok_or(Error::Malformed("too short"))?);
        let (length, sha256) = (reader.u64()?, reader.array()?);
        let (old_length, old_sha256) = (reader.u64()?, reader.array()?);
        let count = reader.u32()? as usize;
        if length > IMAGE_LIMIT || old_length > IMAGE_LIMIT || count > reader.0.len() / LEAST_SEGMENT {
            return Err(Error::Malformed("a patch for no images of ours"));
        }
        let mut header = Self { length, sha256, old_length, old_sha256, segments: Vec::new() };
        let (mut offset, mut packed_offset) = (0, needed as u64);
        for _ in 0..count {
            let segment = decode_segment(&mut reader, offset, packed_offset, old_length)?;
            offset += segment.length;
            packed_offset += segment.packed_length;
            if offset > length {
                return Err(Error::Malformed("segments beyond the image"));
            }
            header.segments.push(segment);
        }
        let whole = reader.0.is_empty() && offset == length;
        if whole { Ok(header) } else { Err(Error::Malformed("a header of another length")) }
    }

    /// As it is on the wire. Offsets in the patch follow from the lengths.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(FIXED + 40 * self.segments.len());
        table.extend(self.length.to_le_bytes());
        table.extend(self.sha256);
        table.extend(self.old_length.to_le_bytes());
        table.extend(self.old_sha256);
        table.extend(u32::try_from(self.segments.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.segments.iter().for_each(|segment| encode_segment(segment, &mut table));
        let mut out = MAGIC.to_vec();
        out.extend(u32::try_from(table.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(table);
        out
    }
}

fn decode_segment(
    reader: &mut Reader<'_>,
    offset: u64,
    packed_offset: u64,
    old_length: u64,
) -> Result<Segment, Error> {
    let length = reader.varint()?;
    let [method] = reader.array()?;
    let method = Method::decode(method)?;
    let limit = if method == Method::Hole { IMAGE_LIMIT } else { SEGMENT_LIMIT as u64 };
    if length == 0 || length > limit {
        return Err(Error::Malformed("a segment of a length that none has"));
    }
    let mut segment =
        Segment { offset, length, method, digest: None, ranges: Vec::new(), packed_offset, packed_length: 0 };
    if method == Method::Hole {
        return Ok(segment);
    }
    segment.digest = Some(Digest(reader.array()?));
    segment.ranges = decode_ranges(reader, old_length)?;
    let together: u64 = segment.ranges.iter().map(|range| range.length).sum();
    if method == Method::Copy {
        let fits = together == length;
        return if fits { Ok(segment) } else { Err(Error::Malformed("a copy of another length")) };
    }
    segment.packed_length = reader.varint()?;
    let bounded = together <= RANGES_LIMIT as u64 && segment.packed_length <= PACKED_LIMIT as u64;
    if bounded { Ok(segment) } else { Err(Error::Malformed("a segment that needs too much memory")) }
}

fn decode_ranges(reader: &mut Reader<'_>, old_length: u64) -> Result<Vec<OldRange>, Error> {
    let outside = Error::Malformed("a range outside the old image");
    let count = usize::try_from(reader.varint()?).ok().filter(|count| *count <= RANGE_COUNT_LIMIT);
    let count = count.ok_or(Error::Malformed("too many ranges"))?;
    let (mut ranges, mut end) = (Vec::with_capacity(count), 0_u64);
    for _ in 0..count {
        let offset = end.checked_add_signed(reader.signed()?);
        let length = reader.varint()?;
        let next = offset.and_then(|offset| offset.checked_add(length));
        let (Some(offset), Some(next)) = (offset, next.filter(|next| *next <= old_length)) else {
            return Err(outside);
        };
        ranges.push(OldRange { offset, length });
        end = next;
    }
    Ok(ranges)
}

fn encode_segment(segment: &Segment, out: &mut Vec<u8>) {
    put_varint(out, segment.length);
    out.push(segment.method as u8);
    let Some(digest) = segment.digest else { return };
    out.extend(digest.0);
    put_varint(out, segment.ranges.len() as u64);
    let mut end = 0;
    for range in &segment.ranges {
        // Both are below the limit of images.
        put_signed(out, range.offset as i64 - end as i64);
        put_varint(out, range.length);
        end = range.offset + range.length;
    }
    if segment.method != Method::Copy {
        put_varint(out, segment.packed_length);
    }
}

impl Segment {
    /// Makes the segment from the bytes of its ranges, one after the other, and its packed bytes.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is not what the header says.
    pub fn unpack(&self, old: Vec<u8>, packed: &[u8]) -> Result<Vec<u8>, Error> {
        let damaged = || Error::Damaged { part: "segment", offset: self.offset };
        let length = usize::try_from(self.length).map_err(|_| damaged())?;
        let bytes = match self.method {
            Method::Copy => old,
            Method::Hole => vec![0; length.min(SEGMENT_LIMIT)],
            Method::Zstd => frame::decompress(packed, &old, length).map_err(|_| damaged())?,
            Method::Add => add::unpack(packed, &old, length).map_err(|_| damaged())?,
        };
        let right = bytes.len() == length && self.digest.is_none_or(|digest| digest == Digest::of(&bytes));
        if right { Ok(bytes) } else { Err(damaged()) }
    }
}

#[cfg(test)]
mod tests;
