//! The patch's header: what is made comes back, and anything else is refused.

use proptest::prelude::*;

use super::*;

fn header() -> Header {
    let ranges = vec![OldRange { offset: 5_000, length: 90 }, OldRange { offset: 10, length: 10 }];
    let copy = Segment {
        offset: 0,
        length: 100,
        method: Method::Copy,
        digest: Some(Digest([7; 16])),
        ranges: ranges.clone(),
        packed_offset: 0,
        packed_length: 0,
    };
    let hole = Segment {
        offset: 100,
        length: 1 << 31,
        method: Method::Hole,
        digest: None,
        ranges: Vec::new(),
        ..copy.clone()
    };
    let offset = 100 + (1 << 31);
    let zstd = Segment { offset, length: 9, method: Method::Zstd, packed_length: 20, ..copy.clone() };
    let add = Segment {
        offset: offset + 9,
        ranges: Vec::new(),
        method: Method::Add,
        packed_length: 3,
        ..zstd.clone()
    };
    let segments = vec![copy, hole, zstd, add];
    let length = segments.iter().map(|segment| segment.length).sum();
    let mut header = Header { length, sha256: [1; 32], old_length: 6_000, old_sha256: [2; 32], segments };
    let mut packed_offset = header.encode().len() as u64;
    for segment in &mut header.segments {
        segment.packed_offset = packed_offset;
        packed_offset += segment.packed_length;
    }
    header
}

#[test]
fn a_header_comes_back() {
    let bytes = header().encode();
    assert_eq!(Header::needed(&bytes[..PREAMBLE]).unwrap(), bytes.len());
    assert_eq!(Header::decode(&bytes).unwrap(), header());
    assert_eq!(Header::decode(&[&bytes[..], b"packed"].concat()).unwrap(), header());
}

#[track_caller]
fn check(change: impl FnOnce(&mut Header), expect: &str) {
    let mut header = header();
    change(&mut header);
    assert_eq!(Header::decode(&header.encode()).unwrap_err().to_string(), format!("malformed: {expect}"));
}

#[test]
fn what_a_box_could_not_bear_is_refused() {
    check(|h| h.length -= 1, "segments beyond the image");
    check(|h| h.length += 1, "a header of another length");
    check(|h| h.old_length = 5_089, "a range outside the old image");
    check(|h| h.segments[0].length = 99, "a copy of another length");
    check(|h| h.segments[2].length = SEGMENT_LIMIT as u64 + 1, "a segment of a length that none has");
    check(|h| h.segments[3].packed_length = PACKED_LIMIT as u64 + 1, "a segment that needs too much memory");
    let many = |h: &mut Header| {
        h.segments[2].ranges = vec![OldRange { offset: 0, length: 1 }; RANGE_COUNT_LIMIT + 1]
    };
    check(many, "too many ranges");
    let long = |h: &mut Header| {
        h.old_length = 1 << 30;
        h.segments[2].ranges = vec![OldRange { offset: 0, length: RANGES_LIMIT as u64 + 1 }];
    };
    check(long, "a segment that needs too much memory");
    check(|h| h.old_length = IMAGE_LIMIT + 1, "a patch for no images of ours");
}

#[test]
fn a_box_never_needs_more_memory_than_said() {
    // Ranges, packed bytes, steps with news, differences and the segment, all at once; and zstd's own state.
    let steps = SEGMENT_LIMIT + SEGMENT_LIMIT / 4;
    assert!(RANGES_LIMIT + PACKED_LIMIT + steps + 2 * SEGMENT_LIMIT + (1 << 20) <= MEMORY_LIMIT);
}

proptest! {
    #[test]
    fn a_flipped_bit_never_panics(position in 0_usize..1000, bit in 0_u8..8) {
        let mut bytes = header().encode();
        let position = position % bytes.len();
        bytes[position] ^= 1 << bit;
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn anything_is_refused_or_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..300), head in any::<bool>()) {
        let mut bytes = bytes;
        if head && bytes.len() > PREAMBLE {
            bytes[..8].copy_from_slice(MAGIC);
            let length = (bytes.len() - PREAMBLE) as u32;
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
        }
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }
}
