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
