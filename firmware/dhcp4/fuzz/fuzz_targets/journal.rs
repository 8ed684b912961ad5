//! Any bytes as a lease journal; every second input gets right checksums, so that what is behind them is fuzzed.
#![no_main]

use kontor_dhcp4::lease::{Record, RecordState, replay};
use libfuzzer_sys::fuzz_target;

/// Each line with its checksum in front, as a box would have written it.
fn sealed(text: &[u8]) -> Vec<u8> {
    text.split_inclusive(|octet| *octet == b'\n')
        .flat_map(|line| {
            let json = line.strip_suffix(b"\n").unwrap_or(line);
            [format!("{:08x} ", crc32fast::hash(json)).as_bytes(), line].concat()
        })
        .collect()
}

fuzz_target!(|input: (bool, u64, &[u8])| {
    let (seal, wall_now, bytes) = input;
    let journal = if seal { sealed(bytes) } else { bytes.to_vec() };
    let first = replay(&journal);
    assert!(first.valid_len <= journal.len());
    for record in &first.records {
        let _ = record.left(wall_now);
        assert!(record.state != RecordState::Leased || record.left(record.written_at) == record.left(0));
    }
    // What a compaction writes is what was read, and nothing of it is damaged.
    let compacted: Vec<u8> = first.records.iter().map(Record::to_line).collect::<String>().into_bytes();
    let again = replay(&compacted);
    if again.records.len() == first.records.len() {
        assert_eq!(again.records, first.records);
        assert!(again.problems.is_empty(), "{:?}", again.problems);
    } else {
        assert!(compacted.len() > 4096, "only too long a line may be lost");
    }
});
