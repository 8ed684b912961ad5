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
fn a_whole_journal_is_gone_on_with_and_any_other_written_anew() {
    let good = record(1).to_line();
    for (content, goes_on) in [
        (good.clone(), true),
        (String::new(), false),
        (format!("{good}{}", &good[..30]), false),
        (format!("{good}garbage\n"), false),
        (format!("garbage\n{good}"), false),
        (good.repeat(1001), false),
    ] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("leases.journal");
        std::fs::write(&path, &content).unwrap();
        let mut store = Store::start(path.clone()).unwrap();
        store.fail("the disk with the lease journal does not answer".into());
        let replay = store.load().unwrap();
        assert_eq!((store.go_on(&replay), store.durable()), (goes_on, goes_on), "{content:?}");
        assert_eq!(store.problem.is_none(), goes_on);
        store.append(&[record(2)]);
        let after = std::fs::read_to_string(&path).unwrap();
        let expected = if goes_on { format!("{content}{}", record(2).to_line()) } else { content };
        assert_eq!(after, expected);
    }
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
fn a_disk_that_goes_is_noticed_without_a_write_and_taken_back() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("dhcpd");
    std::fs::create_dir(&directory).unwrap();
    let mut store = Store::start(directory.join("leases.journal")).unwrap();
    store.load().unwrap();
    store.rewrite(&[record(1)]);
    store.check();
    assert!(store.durable());
    std::fs::remove_dir_all(&directory).unwrap();
    store.check();
    assert!(!store.durable() && store.wants_rewrite(1));
    assert_eq!(store.problems().collect::<Vec<_>>(), ["the state partition is gone"]);
    store.rewrite(&[record(1)]);
    assert!(!store.durable() && !directory.exists(), "nothing is made where no disk is mounted");
    std::fs::create_dir(&directory).unwrap();
    store.rewrite(&[record(1)]);
    store.append(&[record(2)]);
    let replay = Store::start(directory.join("leases.journal")).unwrap().load().unwrap();
    assert_eq!(replay.records, [record(1), record(2)]);
}

#[test]
fn a_damaged_journal_is_kept_aside_and_a_torn_one_is_not() {
    let good = record(1).to_line();
    for (content, kept) in [
        (String::new(), false),
        (good.clone(), false),
        (format!("{good}{}", &good[..30]), false),
        (format!("{good}garbage\n{good}"), true),
        ("\0\0\0garbage".to_owned(), true),
    ] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("leases.journal");
        std::fs::write(&path, &content).unwrap();
        let mut store = Store::start(path).unwrap();
        store.load().unwrap();
        store.rewrite(&[record(1)]);
        assert!(store.durable());
        let aside = std::fs::read_to_string(root.path().join("leases.journal.damaged")).ok();
        assert_eq!(aside, kept.then_some(content.clone()), "{content:?}");
        assert_eq!(store.problems().next().is_some(), kept, "{content:?}");
    }
}

#[test]
fn a_directory_in_the_journal_s_place_is_set_aside() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("leases.journal");
    std::fs::create_dir(&path).unwrap();
    let mut store = Store::start(path.clone()).unwrap();
    store.load().unwrap();
    store.rewrite(&[record(1)]);
    assert!(store.durable() && path.is_file() && root.path().join("leases.journal.damaged").is_dir());
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
