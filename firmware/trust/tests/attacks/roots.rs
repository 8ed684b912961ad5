//! Roots: forged ones, rotations, and how a repository recovers from stolen keys.

use kontor_trust::tough::schema::RoleType;

use crate::forge::{Box_, Forge, keys};

#[test]
fn a_rotation_signed_by_old_and_new_keys_is_followed() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    office.accepts(&forge.server);
    forge.rotate(RoleType::Root, keys(&[4, 5, 6], 2), &[1, 2, 4, 5]);
    forge.rotate(RoleType::Targets, keys(&[13, 14], 2), &[4, 6]);
    forge.publish_next();
    let trusted = office.accepts(&forge.server);
    assert_eq!(trusted.versions()[0].1, 3);
    assert_eq!(office.open().root_version(), 3, "remembered");
    // Who has the old keys is nobody any more, even where the newer roots are withheld.
    forge.server.remove("metadata/3.root.json");
    forge.server.remove("metadata/2.root.json");
    office.accepts(&forge.server);
    forge.forged.insert(RoleType::Targets, vec![11, 12]);
    forge.publish_next();
    office.refuses(&forge.server, "rule signature: targets has 0 of 2 signatures");
}

#[test]
fn a_forged_rotation() {
    for (seeds, valid) in [(&[4_u8, 5][..], 0), (&[1, 4, 5], 1)] {
        let mut forge = Forge::new();
        let office = Box_::new(&forge);
        forge.rotate(RoleType::Root, keys(&[4, 5], 2), seeds);
        office.refuses(&forge.server, &format!("rule signature: root has {valid} of 2 signatures"));
        assert_eq!(office.open().root_version(), 1);
    }
}

/// The new keys must sign, too: otherwise nobody could ever sign the next one.
#[test]
fn a_rotation_without_the_new_keys() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    forge.rotate(RoleType::Root, keys(&[4, 5], 2), &[1, 2, 4]);
    office.refuses(&forge.server, "rule signature: root has 1 of 2 signatures");
}

#[test]
fn a_skipped_root() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    *forge.versions.get_mut(&RoleType::Root).unwrap() = 2;
    forge.rotate(RoleType::Root, keys(&[1, 2, 3], 2), &[1, 2]);
    let third = forge.server.get("metadata/3.root.json").unwrap();
    forge.server.put("metadata/2.root.json", third);
    office.refuses(&forge.server, "rule mix: root is version 3, and what was signed names 2");
}

#[test]
fn an_old_root_under_the_next_number() {
    let forge = Forge::new();
    let office = Box_::new(&forge);
    forge.server.put("metadata/2.root.json", forge.shipped());
    office.refuses(&forge.server, "rule rollback: root 1 is older than 1, which was seen before");
}

#[test]
fn more_roots_than_anybody_needs() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    (0..65).for_each(|_| forge.rotate(RoleType::Snapshot, keys(&[21], 1), &[1, 2]));
    office.refuses(&forge.server, "rule root updates: more than 64 new versions of root at once");
    assert_eq!(
        office.open().root_version(),
        65,
        "what was verified is kept, and the next look goes on there"
    );
    office.accepts(&forge.server);
}

/// What was verified before the rest failed is kept: the stolen keys are worth nothing from then on.
#[test]
fn a_new_root_is_remembered_even_when_the_rest_fails() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    let old = forge.server.copy();
    forge.rotate(RoleType::Timestamp, keys(&[32], 1), &[1, 2]);
    office.refuses(&forge.server, "rule signature: timestamp has 0 of 1 signatures");
    assert_eq!(office.open().root_version(), 2);
    office.refuses(&old, "rule signature: timestamp has 0 of 1 signatures");
}

/// A thief has driven the versions up, so that the real ones look old; new keys end that.
#[test]
fn recovery_from_fast_forward() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    let honest = forge.clone();
    for role in [RoleType::Snapshot, RoleType::Timestamp] {
        forge.versions.insert(role, 1_000_000);
    }
    forge.publish();
    office.accepts(&forge.server);
    let mut forge = honest;
    forge.publish_next();
    office.refuses(&forge.server, "rule rollback: timestamp 2 is older than 1000000, which was seen before");
    forge.rotate(RoleType::Snapshot, keys(&[22], 1), &[1, 2]);
    forge.rotate(RoleType::Timestamp, keys(&[32], 1), &[1, 2]);
    forge.publish_next();
    assert_eq!(office.accepts(&forge.server).versions()[1].1, 3);
    // And the thief's are not taken any more.
    forge.forged.insert(RoleType::Timestamp, vec![31]);
    forge.versions.insert(RoleType::Timestamp, 1_000_001);
    forge.publish();
    office.refuses(&forge.server, "rule signature: timestamp has 0 of 1 signatures");
}

/// The server answers as one that was never rotated would, after the box has lost its newest root by a bad block.
#[test]
fn a_damaged_root_is_no_way_back() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    let old = forge.server.copy();
    forge.rotate(RoleType::Timestamp, keys(&[32], 1), &[1, 2]);
    forge.publish_next();
    office.accepts(&forge.server);
    std::fs::write(office.path().join("2.root.json"), "{").unwrap();
    let store = office.open();
    assert!(store.reports()[0].contains("2.root.json is unusable, kept as 2.root.json.damaged"));
    assert!(office.path().join("2.root.json.damaged").exists());
    office.refuses(&old, "rule rollback: root 1 is older than 2, which was seen before");
    office.accepts(&forge.server);
    assert_eq!(office.open().root_version(), 2, "found again");
    assert!(office.open().reports().is_empty());
}

/// A box that was flashed for another repository is not bound by what it saw of the first.
#[test]
fn another_repositorys_memory_is_no_reason_to_stop() {
    let mut first = Forge::new();
    first.rotate(RoleType::Timestamp, keys(&[32], 1), &[1, 2]);
    first.publish_next();
    let mut office = Box_::new(&first);
    office.accepts(&first.server);
    let mut second = Forge::new();
    second.keys.insert(RoleType::Root, keys(&[7, 8], 2));
    second.keys.insert(RoleType::Timestamp, keys(&[33], 1));
    second.put_root(&[7, 8]);
    second.publish();
    office.shipped = second.shipped();
    assert!(!office.open().reports().is_empty(), "the other root is set aside");
    office.accepts(&second.server);
}

/// A newer release ships the newer root; what leads to it is not needed any more.
#[test]
fn a_newer_shipped_root_takes_the_place_of_those_before() {
    let mut forge = Forge::new();
    let mut office = Box_::new(&forge);
    forge.rotate(RoleType::Targets, keys(&[13, 14], 1), &[1, 2]);
    forge.publish_next();
    office.accepts(&forge.server);
    assert!(office.path().join("2.root.json").exists());
    office.shipped = forge.server.get("metadata/2.root.json").unwrap();
    office.accepts(&forge.server);
    assert!(!office.path().join("2.root.json").exists());
    office.accepts(&forge.server);
}
