//! Content-defined chunks of an image.
//!
//! FastCDC (2020, normalization level 1, seed 0) with a least length of a quarter and a greatest of eight times the average.
//! The average is a power of two, which the index names: these numbers and the gear table of the crate `fastcdc` are
//! part of the format, for the box must cut its old images as the publisher has cut the new one. Boundaries depend on
//! the chunk's own bytes alone, so what is the same in two images is cut the same way shortly after it begins.

use std::io::Read;

use fastcdc::v2020::{Normalization, StreamCDC};

use crate::{Digest, Error};

/// The smallest average, as a power of two: 4 KiB is a block of every file system we ship.
pub const LEAST_AVERAGE: u8 = 12;
/// The largest: 256 KiB, whose chunks are at most 2 MiB.
pub const GREATEST_AVERAGE: u8 = 18;
const LEAST_SHARE: usize = 4;
const GREATEST_MULTIPLE: usize = 8;

/// The longest chunk for an average of 2^`average` bytes.
#[must_use]
pub const fn greatest(average: u8) -> usize {
    (1 << average) * GREATEST_MULTIPLE
}

/// A chunk with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where in the image.
    pub offset: u64,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl Chunk {
    /// By what the index knows it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Whether it is a hole: file systems are full of them, and nobody needs to fetch one.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        is_zero(&self.bytes)
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // By words of a page: compared by memcmp, not by the octet.
    const PAGE: [u8; 4096] = [0; 4096];
    bytes.chunks(PAGE.len()).all(|page| *page == PAGE[..page.len()])
}

/// The chunks of an image, in order. `average` is between [`LEAST_AVERAGE`] and [`GREATEST_AVERAGE`].
///
/// # Errors
/// When it is not, and, for each chunk, when the image cannot be read.
pub fn chunks(image: impl Read, average: u8) -> Result<impl Iterator<Item = Result<Chunk, Error>>, Error> {
    if !(LEAST_AVERAGE..=GREATEST_AVERAGE).contains(&average) {
        return Err(Error::Malformed("an average length of chunks that no format has"));
    }
    let middle = 1 << average;
    let cutter =
        StreamCDC::with_level(image, middle / LEAST_SHARE, middle, greatest(average), Normalization::Level1);
    Ok(cutter.map(|chunk| {
        let chunk = chunk.map_err(|error| Error::Io(error.into()))?;
        Ok(Chunk { offset: chunk.offset, bytes: chunk.data })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..length).map(|_| random.u8(..)).collect()
    }

    #[test]
    fn the_cuts_are_part_of_the_format() {
        // Another version of the crate that cuts elsewhere would make every old image useless: it must not go unnoticed.
        let image = noise(7, 1 << 20);
        let lengths: Vec<u8> = chunks(image.as_slice(), 14)
            .unwrap()
            .flat_map(|chunk| (chunk.unwrap().bytes.len() as u32).to_le_bytes())
            .collect();
        assert_eq!(sha256(&lengths)[..4], EXPECTED_CUTS);
    }

    const EXPECTED_CUTS: [u8; 4] = [185, 164, 56, 84];

    #[test]
    fn what_is_the_same_is_cut_the_same_way() {
        let old = noise(1, 1 << 20);
        let new = [&noise(2, 12_345)[..], &old[..400_000], &noise(3, 777), &old[400_000..]].concat();
        let digests = |image: &[u8]| -> std::collections::HashSet<Digest> {
            chunks(image, 13).unwrap().map(|chunk| chunk.unwrap().digest()).collect()
        };
        let (old, new) = (digests(&old), digests(&new));
        assert!(old.difference(&new).count() <= 6, "{} of {}", old.difference(&new).count(), old.len());
    }

    #[test]
    fn chunks_cover_the_image_and_keep_to_their_lengths() {
        for image in [noise(4, 300_000), vec![0; 300_000], noise(5, 1), Vec::new()] {
            let all: Vec<Chunk> = chunks(image.as_slice(), 12).unwrap().map(Result::unwrap).collect();
            assert_eq!(all.iter().flat_map(|chunk| chunk.bytes.clone()).collect::<Vec<_>>(), image);
            assert!(all.iter().all(|chunk| chunk.bytes.len() <= greatest(12)));
            assert!(all.windows(2).all(|pair| pair[0].offset + pair[0].bytes.len() as u64 == pair[1].offset));
        }
    }

    #[test]
    fn another_average_is_refused() {
        assert!(chunks(&b""[..], 11).is_err());
        assert!(chunks(&b""[..], 19).is_err());
    }
}
