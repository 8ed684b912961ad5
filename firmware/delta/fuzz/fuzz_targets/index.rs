//! Any bytes as an index, with right magic and average, and any bytes as the pack that belongs to it.
#![no_main]

use kontor_delta::assemble::Chunks;
use kontor_delta::index::Index;
use libfuzzer_sys::fuzz_target;

/// What a target may grow to here.
const SMALL: u64 = 1 << 20;

fuzz_target!(|input: (u8, Vec<u8>, &[u8])| {
    let (average, mut bytes, pack) = input;
    if let Some(head) = bytes.get_mut(..9) {
        head[..8].copy_from_slice(b"KNTRIDX1");
        head[8] = 12 + average % 7;
    }
    let Ok(index) = Index::decode(&bytes) else { return };
    assert_eq!(index.encode(), bytes);
    if index.length > SMALL {
        return;
    }
    let (mut chunks, mut target) = (Chunks::new(&index), Vec::new());
    let _ = chunks.look_in(0, pack);
    chunks.local(&mut [&mut &*pack], &mut target).expect("a vector can be written");
    for range in chunks.fetch() {
        let body = pack.get(range.offset as usize..).unwrap_or(&[]);
        let _ = chunks.receive(range, body, &mut target);
    }
    assert!(target.len() as u64 <= index.length);
});
