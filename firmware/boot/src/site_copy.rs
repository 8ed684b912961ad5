//! The copy of the good site file in `bootstate`: a lost state partition must not cost the office its addresses.
//!
//! Two areas are written in turn, so that a power cut while one is written leaves the other. Each has a
//! header (magic, sequence, length, checksum over all of that and the text) in front of the text.

use std::fmt;

/// Where the areas begin in the `bootstate` partition.
pub const AREA_OFFSETS: [u64; 2] = [64 << 10, 320 << 10];
/// Length of an area.
pub const AREA_LENGTH: usize = 256 << 10;

const MAGIC: &[u8; 8] = b"KONTSITE";
const HEADER: usize = 24;
/// Longest site file that fits.
pub const MAX_TEXT: usize = AREA_LENGTH - HEADER;

/// A whole copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteCopy {
    /// Counts up with every write; the higher one is newer.
    pub sequence: u64,
    /// The site file.
    pub text: Vec<u8>,
}

/// The site file is longer than an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "site file is longer than {MAX_TEXT} bytes")
    }
}

impl std::error::Error for TooLong {}

impl SiteCopy {
    /// From the bytes of an area; nothing unless it is whole.
    #[must_use]
    pub fn decode(area: &[u8]) -> Option<Self> {
        let (header, rest) = area.split_first_chunk::<HEADER>()?;
        let sequence = u64::from_le_bytes(header[8..16].try_into().ok()?);
        let length = u32::from_le_bytes(header[16..20].try_into().ok()?);
        let crc = u32::from_le_bytes(header[20..24].try_into().ok()?);
        let text = rest.get(..usize::try_from(length).ok()?)?;
        let valid = header[..8] == *MAGIC && crc == checksum(&header[..20], text);
        valid.then(|| Self { sequence, text: text.to_vec() })
    }

    /// As the first bytes of an area.
    ///
    /// # Errors
    /// When the text does not fit.
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        let length = u32::try_from(self.text.len()).map_err(|_| TooLong)?;
        if self.text.len() > MAX_TEXT {
            return Err(TooLong);
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        let crc = checksum(&bytes, &self.text);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&self.text);
        Ok(bytes)
    }
}

fn checksum(header: &[u8], text: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(text);
    hasher.finalize()
}

/// The newer of both copies.
#[must_use]
pub fn newest(copies: [Option<SiteCopy>; 2]) -> Option<SiteCopy> {
    copies.into_iter().flatten().max_by_key(|copy| copy.sequence)
}

/// Which area the next write goes to, and with which sequence: never over the only or the newer copy.
#[must_use]
pub fn next_write(copies: &[Option<SiteCopy>; 2]) -> (usize, u64) {
    let sequence = |at: usize| copies[at].as_ref().map(|copy| copy.sequence);
    let area = usize::from(sequence(0) > sequence(1));
    (area, sequence(0).max(sequence(1)).map_or(1, |newest| newest.wrapping_add(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn copy(sequence: u64, text: &str) -> SiteCopy {
        SiteCopy { sequence, text: text.as_bytes().to_vec() }
    }

    #[test]
    fn writes_alternate_and_spare_the_newest() {
        let mut copies = [None, None];
        for (write, expected) in [(0, 1), (1, 2), (0, 3), (1, 4)] {
            assert_eq!(next_write(&copies), (write, expected));
            copies[write] = Some(copy(expected, "x"));
        }
        copies[1] = None;
        assert_eq!(next_write(&copies), (1, 4), "a damaged copy is the one to replace");
    }

    #[test]
    fn a_torn_write_leaves_the_older_copy() {
        let mut torn = copy(8, &"new ".repeat(400)).encode().unwrap();
        torn[1000..].fill(0);
        let whole = copy(7, "old").encode().unwrap();
        let copies = [SiteCopy::decode(&torn), SiteCopy::decode(&whole)];
        assert_eq!(newest(copies), Some(copy(7, "old")));
    }

    #[test]
    fn the_largest_text_fits_its_area_exactly() {
        let largest = SiteCopy { sequence: 1, text: vec![b'x'; MAX_TEXT] };
        assert_eq!(largest.encode().unwrap().len(), AREA_LENGTH);
        let longer = SiteCopy { sequence: 1, text: vec![b'x'; MAX_TEXT + 1] };
        assert_eq!(longer.encode(), Err(TooLong));
    }

    proptest! {
        #[test]
        fn copies_read_back(sequence: u64, text in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let copy = SiteCopy { sequence, text };
            let mut area = copy.encode().unwrap();
            area.resize(AREA_LENGTH, 0xAA);
            prop_assert_eq!(SiteCopy::decode(&area), Some(copy));
        }

        #[test]
        fn one_changed_byte_is_noticed(at in 0_usize..124, flip in 1_u8..) {
            let mut area = copy(3, &"t".repeat(100)).encode().unwrap();
            area[at] ^= flip;
            prop_assert_eq!(SiteCopy::decode(&area), None);
        }

        #[test]
        fn garbage_never_panics(area in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(SiteCopy::decode(&area), None);
        }
    }
}
