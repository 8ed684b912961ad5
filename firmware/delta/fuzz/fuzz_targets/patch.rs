//! Any bytes as a patch, with right preamble, applied to a small old image.
#![no_main]

use kontor_delta::Digest;
use kontor_delta::assemble::Patching;
use kontor_delta::patch::{Header, PREAMBLE};
use libfuzzer_sys::fuzz_target;

/// What a target may grow to here.
const SMALL: u64 = 1 << 20;

fuzz_target!(|input: (u16, Vec<u8>, &[u8])| {
    let (table, mut bytes, old) = input;
    if bytes.len() < PREAMBLE {
        return;
    }
    let table = u32::from(table).min((bytes.len() - PREAMBLE) as u32);
    bytes[..8].copy_from_slice(b"KNTRPAT1");
    bytes[8..PREAMBLE].copy_from_slice(&table.to_le_bytes());
    let Ok(header) = Header::decode(&bytes) else { return };
    assert_eq!(header.encode()[..], bytes[..PREAMBLE + table as usize]);
    if header.length > SMALL {
        return;
    }
    let mut old = old;
    // What the methods make of it, without the digest that stops nearly everything.
    for mut segment in header.segments.clone() {
        let packed = bytes.get(segment.packed_offset as usize..).unwrap_or(&[]);
        let packed = &packed[..packed.len().min(segment.packed_length as usize)];
        let ranges = segment.ranges.iter().filter_map(|range| {
            old.get(range.offset as usize..(range.offset + range.length) as usize)
        });
        segment.digest = Some(Digest([0; 16]));
        let _ = segment.unpack(ranges.flatten().copied().collect(), packed);
    }
    let (mut patching, mut target) = (Patching::new(&header), Vec::new());
    let _ = patching.local(&mut old, &mut target);
    for range in patching.fetch() {
        let body = bytes.get(range.offset as usize..).unwrap_or(&[]);
        let _ = patching.receive(range, body, &mut old, &mut target);
    }
    assert!(target.len() as u64 <= header.length);
});
