//! Journals as power cuts and bad disks leave them.

use proptest::prelude::*;

use super::*;

fn record(last: u8, remaining_s: u64) -> Record {
    Record {
        network: "lan".into(),
        address: Ipv4Addr::new(192, 168, 77, last),
        state: RecordState::Leased,
        mac: [2, 0, 0, 0, 0, last],
        client_id: vec![1, 2, 0, 0, 0, 0, last],
        name: Some(format!("pc{last}")),
        written_at: 1_000_000,
        remaining_s,
    }
}

fn journal(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(|record| record.to_line().into_bytes()).collect()
}

#[test]
fn the_format_on_disk_does_not_change() {
    let line = "4961952e {\"network\":\"lan\",\"address\":\"192.168.77.9\",\"state\":\"leased\",\
                \"mac\":[2,0,0,0,0,9],\"client_id\":[1,2,0,0,0,0,9],\"name\":\"pc9\",\
                \"written_at\":1000000,\"remaining_s\":60}\n";
    assert_eq!(record(9, 60).to_line(), line);
    assert_eq!(replay(line.as_bytes()).records, [record(9, 60)]);
}

#[test]
fn the_last_line_of_an_address_counts() {
    let replay = replay(&journal(&[record(1, 10), record(2, 20), record(1, 30)]));
    assert_eq!(replay.records, [record(1, 30), record(2, 20)]);
    assert_eq!(replay.lines, 3);
    assert!(replay.problems.is_empty() && !replay.wants_compaction());
}

#[test]
fn every_truncation_keeps_all_whole_lines() {
    let records = [record(1, 10), record(2, 20), record(3, 30)];
    let bytes = journal(&records);
    for length in 0..=bytes.len() {
        let replay = replay(&bytes[..length]);
        let whole = bytes[..length].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(replay.records, records[..whole]);
        assert!(replay.problems.is_empty(), "a torn tail is normal: {:?}", replay.problems);
    }
}

#[test]
fn garbage_costs_only_the_lines_it_hits() {
    let good = journal(&[record(1, 10)]);
    for garbage in [&b"garbage\n"[..], &[0; 700], b"\n", b"deadbeef {}\n", b"\xff\xfe\n"] {
        let tail = replay(&[&good, garbage].concat());
        assert_eq!((tail.records.len(), tail.valid_len), (1, good.len()));
        assert!(tail.problems.is_empty());
    }
    let middle = replay(&[&good[..], b"garbage\n", &journal(&[record(2, 20)])].concat());
    assert_eq!(middle.records.len(), 2);
    assert_eq!(middle.problems, ["line 2 of the lease journal is damaged"]);
    assert!(middle.wants_compaction());
    assert_eq!(replay(&[0; 4096]), Replay::default());
    assert_eq!(replay(&[]), Replay::default());
}

#[test]
fn compaction_waits_until_it_pays() {
    assert!(!wants_compaction(1000, 1));
    assert!(wants_compaction(1001, 1));
    assert!(!wants_compaction(1200, 300));
    assert!(wants_compaction(1201, 300));
}

#[test]
fn age_is_honoured_with_doubt() {
    let lease = record(1, 3600);
    assert_eq!(lease.left(1_000_000), Left::Seconds(3600));
    assert_eq!(lease.left(1_001_000), Left::Seconds(2600));
    assert_eq!(lease.left(0), Left::Seconds(3600), "a clock that went back means unknown age");
    assert_eq!(lease.left(1_003_599), Left::Seconds(GRACE_S));
    assert_eq!(lease.left(1_003_600), Left::Seconds(GRACE_S));
    assert_eq!(lease.left(1_007_200), Left::Seconds(GRACE_S));
    assert_eq!(lease.left(1_007_201), Left::OverSince(3601));
    let free = Record { state: RecordState::Free, ..lease.clone() };
    assert_eq!(free.left(1_000_005), Left::OverSince(5));
    let declined = Record { state: RecordState::Declined, ..lease };
    assert_eq!(declined.left(1_003_599), Left::Seconds(1));
    assert_eq!(declined.left(1_003_600), Left::OverSince(0));
}

proptest! {
    #[test]
    fn any_bytes_replay(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let replay = replay(&bytes);
        prop_assert!(replay.valid_len <= bytes.len());
    }

    #[test]
    fn one_flipped_bit_costs_at_most_two_lines(position in 0usize..1000, bit in 0u8..8) {
        let records: Vec<Record> = (1..=6).map(|last| record(last, 60)).collect();
        let mut bytes = journal(&records);
        let position = position % bytes.len();
        bytes[position] ^= 1 << bit;
        prop_assert!(replay(&bytes).records.len() >= 4);
    }
}
