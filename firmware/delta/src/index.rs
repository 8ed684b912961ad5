//! The chunk index: which chunks an image is made of, and where each lies in the pack.
//!
//! On the wire, numbers little-endian, `v` a variable-length number:
//!
//! ```text
//! magic 8 | average u8 | image length u64 | image SHA-256 32 | entries u32 | entry …
//! entry: v (length × 2, + 1 for a hole) | digest 16, v (bytes in the pack) — neither for a hole
//! ```
//!
//! A chunk that came before has 0 bytes in the pack. The publisher raises the average until the index is small enough
//! ([`LIMIT`], [`SHARE`]); so it depends on the image, and the index names it.

use std::collections::HashMap;
use std::io::Read;

use crate::chunk::{self, Chunk, GREATEST_AVERAGE, LEAST_AVERAGE, greatest};
use crate::digest::Sha256Sum;
use crate::wire::{Reader, put_varint};
use crate::{Digest, Error, IMAGE_LIMIT};

const MAGIC: &[u8; 8] = b"KNTRIDX1";
/// Longest index: with it and the whole image nobody fetches more than full + 64 KiB, whatever goes wrong.
pub const LIMIT: usize = 60 * 1024;
/// Least number of bytes of the full form for each of the index: 0.3 %.
pub const SHARE: u64 = 334;
/// Shortest entry: one octet of a length, for a hole.
const LEAST_ENTRY: usize = 1;

/// One chunk, or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where in the image.
    pub offset: u64,
    /// How long. Holes may be longer than any chunk.
    pub length: u64,
    /// What it is; a hole has none.
    pub digest: Option<Digest>,
    /// Where in the pack.
    pub pack_offset: u64,
    /// How long there: 0 for a hole, and for a chunk that came before.
    pub pack_length: u64,
}

/// What a new image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Average length of chunks, as a power of two.
    pub average: u8,
    /// Length of the image.
    pub length: u64,
    /// SHA-256 of the image, as a name: that of the signed manifest counts.
    pub sha256: Sha256Sum,
    /// Chunks and holes, in order, without gaps.
    pub entries: Vec<Entry>,
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// [`Error::Malformed`], for anything that [`Index::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > LIMIT {
            return Err(Error::Malformed("an index too long"));
        }
        let mut reader = Reader(bytes);
        if reader.array()? != *MAGIC {
            return Err(Error::Malformed("not an index"));
        }
        let [average] = reader.array()?;
        let (length, sha256, count) = (reader.u64()?, reader.array()?, reader.u32()? as usize);
        if !(LEAST_AVERAGE..=GREATEST_AVERAGE).contains(&average) || length > IMAGE_LIMIT {
            return Err(Error::Malformed("an index for no image of ours"));
        }
        if count > reader.0.len() / LEAST_ENTRY {
            return Err(Error::Malformed("an index with fewer entries than it says"));
        }
        let mut decoder = Decoder { greatest: greatest(average) as u64, ..Decoder::default() };
        let entries = (0..count).map(|_| decoder.entry(&mut reader)).collect::<Result<_, _>>()?;
        if !reader.0.is_empty() || decoder.offset != length {
            return Err(Error::Malformed("an index of another length"));
        }
        Ok(Self { average, length, sha256, entries })
    }

    /// As it is on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(self.average);
        out.extend(self.length.to_le_bytes());
        out.extend(self.sha256);
        out.extend(u32::try_from(self.entries.len()).unwrap_or(u32::MAX).to_le_bytes());
        for entry in &self.entries {
            put_varint(&mut out, entry.length << 1 | u64::from(entry.digest.is_none()));
            if let Some(digest) = entry.digest {
                out.extend(digest.0);
                put_varint(&mut out, entry.pack_length);
            }
        }
        out
    }

    /// Length of the pack.
    #[must_use]
    pub fn pack_length(&self) -> u64 {
        self.entries.iter().map(|entry| entry.pack_length).sum()
    }
}

/// What an index's next entry depends on.
#[derive(Default)]
struct Decoder {
    greatest: u64,
    offset: u64,
    pack_offset: u64,
    /// Length of every chunk so far, and where in the pack it is.
    known: HashMap<Digest, (u64, u64)>,
}

impl Decoder {
    fn entry(&mut self, reader: &mut Reader<'_>) -> Result<Entry, Error> {
        let raw = reader.varint()?;
        let (length, hole) = (raw >> 1, raw & 1 == 1);
        if length == 0 || length > if hole { IMAGE_LIMIT } else { self.greatest } {
            return Err(Error::Malformed("an entry of a length that no chunk has"));
        }
        let mut entry = Entry {
            offset: self.offset,
            length,
            digest: None,
            pack_offset: self.pack_offset,
            pack_length: 0,
        };
        self.offset += length;
        if self.offset > IMAGE_LIMIT {
            return Err(Error::Malformed("entries beyond every image"));
        }
        if hole {
            return Ok(entry);
        }
        let digest = Digest(reader.array()?);
        let pack_length = reader.varint()?;
        entry.digest = Some(digest);
        if pack_length == 0 {
            // It lies where the first one lies; its bytes count once.
            let (known, pack_offset) = *self
                .known
                .get(&digest)
                .ok_or(Error::Malformed("a chunk that is said to have come before"))?;
            if known != length {
                return Err(Error::Malformed("a chunk of two lengths"));
            }
            return Ok(Entry { pack_offset, ..entry });
        }
        // A frame that does not compress is a little longer than what is in it.
        if pack_length > length + length / 128 + 64 {
            return Err(Error::Malformed("a chunk longer in the pack than it is"));
        }
        if self.known.insert(digest, (length, self.pack_offset)).is_some() {
            return Err(Error::Malformed("a chunk that is in the pack twice"));
        }
        entry.pack_length = pack_length;
        self.pack_offset += pack_length;
        Ok(entry)
    }
}

/// The pieces that an index lists: chunks, and holes put together.
pub(crate) fn pieces(image: impl Read, average: u8) -> Result<Vec<Piece>, Error> {
    let mut pieces: Vec<Piece> = Vec::new();
    for chunk in chunk::chunks(image, average)? {
        let chunk = chunk?;
        match (pieces.last_mut(), chunk.is_zero()) {
            (Some(Piece::Hole(length)), true) => *length += chunk.bytes.len() as u64,
            (_, true) => pieces.push(Piece::Hole(chunk.bytes.len() as u64)),
            (_, false) => pieces.push(Piece::Chunk(chunk)),
        }
    }
    Ok(pieces)
}

/// A chunk with its bytes, or so many zeros.
pub(crate) enum Piece {
    Chunk(Chunk),
    Hole(u64),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pack;

    #[test]
    fn an_index_comes_back() {
        let mut image: Vec<u8> =
            (0..200_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        image.extend(vec![0; 3_000_000]);
        let again = image.clone();
        image.extend(again);
        let made = pack::make(&image, LEAST_AVERAGE).unwrap();
        let bytes = made.index.encode();
        assert_eq!(Index::decode(&bytes).unwrap(), made.index);
        assert_eq!(made.index.pack_length(), made.pack.len() as u64);
        let twice = made.index.entries.iter().filter(|e| e.digest.is_some() && e.pack_length == 0).count();
        assert!(twice > 100, "what is in the image twice is in the pack once: {twice}");
        for cut in [0, 8, 52, bytes.len() - 1] {
            assert!(Index::decode(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_refused_or_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..300), head in any::<bool>(), count in 0_u32..12) {
            let mut bytes = bytes;
            if head && bytes.len() > 60 {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[8] = 12;
                bytes[49..53].copy_from_slice(&count.to_le_bytes());
            }
            if let Ok(index) = Index::decode(&bytes) {
                prop_assert_eq!(index.encode(), bytes);
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(seed in 0_u64..50, position in 0_usize..10_000, bit in 0_u8..8) {
            let mut random = fastrand::Rng::with_seed(seed);
            let image: Vec<u8> = (0..60_000).map(|_| random.u8(..4)).collect();
            let mut bytes = pack::make(&image, LEAST_AVERAGE).unwrap().index.encode();
            let position = position % bytes.len();
            bytes[position] ^= 1 << bit;
            if let Ok(index) = Index::decode(&bytes) {
                prop_assert_eq!(index.encode(), bytes);
            }
        }
    }
}
