//! An image from a patch and the old image it was made for.

use std::io::Read;

use super::{Body, contains};
use crate::full::put;
use crate::io::{Source, Target};
use crate::patch::{Header, Method, Segment};
use crate::plan::{self, Range};
use crate::{Digest, Error};

/// Holes are written in pieces of this length.
const PIECE: u64 = 256 * 1024;

/// The state of an image that is made from an old one.
#[derive(Debug)]
pub struct Patching<'a> {
    header: &'a Header,
    done: Vec<bool>,
}

impl<'a> Patching<'a> {
    /// Nothing is made yet.
    #[must_use]
    pub fn new(header: &'a Header) -> Self {
        Self { header, done: vec![false; header.segments.len()] }
    }

    /// Sees what the target has of this image from an earlier attempt. Holes are not looked at: they cost nothing.
    pub fn resume(&mut self, target: &mut impl Source) {
        for (segment, done) in self.header.segments.iter().zip(&mut self.done) {
            let Some(digest) = segment.digest else { continue };
            let mut bytes = vec![0; usize::try_from(segment.length).unwrap_or(0)];
            *done = target.read_at(segment.offset, &mut bytes).is_ok() && Digest::of(&bytes) == digest;
        }
    }

    /// What has to be fetched of the patch.
    #[must_use]
    pub fn fetch(&self) -> Vec<Range> {
        let missing = self.header.segments.iter().zip(&self.done).filter(|(_, done)| !**done);
        let packed = missing.map(|(segment, _)| packed(segment)).filter(|range| range.length > 0);
        plan::coalesce(&packed.collect::<Vec<_>>())
    }

    /// Writes holes and copies.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the old image is not the one: then only the other forms are left; and when the target cannot
    /// be written.
    pub fn local(&mut self, old: &mut impl Source, target: &mut impl Target) -> Result<(), Error> {
        for (segment, done) in self.header.segments.iter().zip(&mut self.done) {
            match segment.method {
                _ if *done => continue,
                Method::Hole => {
                    let end = segment.offset + segment.length;
                    let zeros = vec![0; PIECE as usize];
                    for offset in (segment.offset..end).step_by(PIECE as usize) {
                        put(target, offset, &zeros[..PIECE.min(end - offset) as usize])?;
                    }
                }
                Method::Copy => put(target, segment.offset, &segment.unpack(ranges(segment, old)?, &[])?)?,
                Method::Zstd | Method::Add => continue,
            }
            *done = true;
        }
        Ok(())
    }

    /// Takes the bytes of one of the ranges of [`Patching::fetch`]. What came before an error is written.
    ///
    /// # Errors
    /// When the bytes end early, they or the old image are damaged, or the target cannot be written.
    pub fn receive(
        &mut self,
        range: Range,
        body: impl Read,
        old: &mut impl Source,
        target: &mut impl Target,
    ) -> Result<(), Error> {
        let mut body = Body::new(range, body);
        for (segment, done) in self.header.segments.iter().zip(&mut self.done) {
            let packed = packed(segment);
            if *done || packed.length == 0 || !contains(range, packed) {
                continue;
            }
            let bytes = body.read(packed)?;
            put(target, segment.offset, &segment.unpack(ranges(segment, old)?, &bytes)?)?;
            *done = true;
        }
        Ok(())
    }

    /// Whether everything is in the target.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.done.iter().all(|done| *done)
    }
}

fn packed(segment: &Segment) -> Range {
    Range { offset: segment.packed_offset, length: segment.packed_length }
}

/// The bytes of a segment's ranges; their sum is bounded by the format.
fn ranges(segment: &Segment, old: &mut impl Source) -> Result<Vec<u8>, Error> {
    let together: u64 = segment.ranges.iter().map(|range| range.length).sum();
    let mut bytes = vec![0; usize::try_from(together).map_err(|_| Error::Malformed("ranges too long"))?];
    let mut rest = bytes.as_mut_slice();
    for range in &segment.ranges {
        // Checked against their sum just above.
        let (part, more) = rest.split_at_mut(range.length as usize);
        old.read_at(range.offset, part)?;
        rest = more;
    }
    Ok(bytes)
}
