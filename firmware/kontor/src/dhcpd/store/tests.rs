//! The journal against real directories that come, go and refuse.

use kontor_dhcp4::lease::RecordState;

use super::*;

fn record(last: u8) -> Record {
    Record {
        network: "lan".into(),
        address: [192, 168, 77, last].into(),
        state: RecordState::Leased,
        mac: [2, 0, 0, 0, 0, last],
        client_id: Vec::new(),
        name: None,
        written_at: 1000,
        remaining_s: 60,
    }
}

#[test]
fn journal_waits_for_its_directory_and_survives_restarts() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("dhcpd/leases.journal");
    let mut store = Store::start(path.clone()).unwrap();
    assert!(store.load().is_none() && !store.durable());
    store.append(&[record(1)]);
    assert!(!path.exists());
    std::fs::create_dir(root.path().join("dhcpd")).unwrap();
    assert_eq!(store.load().unwrap(), Replay::default());
    assert!(store.wants_rewrite(1));
    store.rewrite(&[record(1)]);
    assert!(store.durable() && !store.wants_rewrite(1));
    store.append(&[record(2), record(3)]);
    let replay = Store::start(path).unwrap().load().unwrap();
    assert_eq!(replay.records, [record(1), record(2), record(3)]);
}

#[test]
fn failed_write_is_told_and_made_good() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("dhcpd");
    std::fs::create_dir(&directory).unwrap();
    let mut store = Store::start(directory.join("leases.journal")).unwrap();
    store.load().unwrap();
    std::fs::remove_dir(&directory).unwrap();
    store.rewrite(&[record(1)]);
    assert!(!store.durable());
    assert_eq!(store.problems().count(), 1);
    std::fs::create_dir(&directory).unwrap();
    assert!(store.wants_rewrite(1));
    store.rewrite(&[record(1)]);
    assert!(store.durable());
    assert_eq!(store.problems().count(), 0);
}

#[test]
fn of_a_journal_that_is_too_large_the_newest_part_counts() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("leases.journal");
    let file = File::create(&path).unwrap();
    file.set_len(MAX_JOURNAL + 5).unwrap();
    drop(file);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    write!(file, "\n{}", record(7).to_line()).unwrap();
    let replay = Store::start(path).unwrap().load().unwrap();
    assert_eq!(replay.records, [record(7)]);
}

#[test]
fn a_journal_of_long_records_is_rewritten_when_it_has_doubled() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::start(root.path().join("leases.journal")).unwrap();
    store.load().unwrap();
    let long = Record { client_id: vec![200; 1000], ..record(1) };
    let all = vec![long; 900];
    store.rewrite(&all);
    let rounds = (0..10).take_while(|_| {
        store.append(&all);
        !store.wants_rewrite(900)
    });
    assert_eq!(rounds.count(), REWRITE_BYTES / all.iter().map(|one| one.to_line().len()).sum::<usize>() - 1);
}
