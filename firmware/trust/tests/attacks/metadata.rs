//! Metadata that is old, mixed, too long, or signed by others.

use kontor_trust::tough::schema::RoleType;
use kontor_update::Channel;

use crate::forge::{Box_, DAY, Forge, NOW, ROLES, run};

#[test]
fn a_repository_as_it_should_be_is_trusted() {
    let forge = Forge::new();
    let office = Box_::new(&forge);
    let trusted = office.accepts(&forge.server);
    assert_eq!(trusted.names(), ["channel/stable.json", "release/branch/0.2.0.json"]);
    let channel = run(trusted.channel("stable")).unwrap();
    let release = run(trusted.release("branch", channel.current[0].version)).unwrap();
    assert_eq!(release.boards, ["generic-x86-64"]);
    assert!(office.open().reports().is_empty());
    office.accepts(&forge.server);
}

/// A daemon may look in a task of its own.
#[test]
fn a_look_can_be_another_threads() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let forge = Forge::new();
    let office = Box_::new(&forge);
    let mut store = office.open();
    let clock = kontor_trust::Clock { now: NOW, floor: 0 };
    let trusted = run(sent(crate::forge::look(&mut store, &forge.server, clock))).unwrap();
    assert!(run(sent(trusted.channel("stable"))).is_ok());
    let soonest = trusted.expires_at();
    assert_eq!(soonest, (kontor_trust::Role::Root, NOW + 20 * DAY));
}

/// An old answer, whole and well signed, after a newer one was seen.
#[test]
fn rollback_of_the_timestamp() {
    let mut forge = Forge::new();
    let old = forge.server.copy();
    forge.publish_next();
    let office = Box_::new(&forge);
    office.accepts(&forge.server);
    office.refuses(&old, "rule rollback: timestamp 1 is older than 2, which was seen before");
}

/// A thief of the server's keys signs a new timestamp for an old snapshot.
#[test]
fn rollback_of_the_snapshot() {
    let mut forge = Forge::new();
    let old = forge.server.get("metadata/1.snapshot.json").unwrap();
    forge.publish_next();
    let office = Box_::new(&forge);
    office.accepts(&forge.server);
    let role = |forge: &Forge| {
        let mut thief = forge.clone();
        thief.versions.insert(RoleType::Timestamp, 3);
        thief
    };
    let thief = role(&forge);
    let signed: kontor_trust::tough::schema::Signed<kontor_trust::tough::schema::Snapshot> =
        serde_json::from_slice(&old).unwrap();
    thief.publish_snapshot(signed.signed);
    office.refuses(&forge.server, "rule rollback: snapshot 1 is older than 2, which was seen before");
}

/// A thief of the server's keys signs a new snapshot with old targets, which their keepers have signed once.
#[test]
fn rollback_of_the_targets() {
    let mut forge = Forge::new();
    forge.publish_next();
    let office = Box_::new(&forge);
    office.accepts(&forge.server);
    forge.versions.insert(RoleType::Targets, 1);
    forge.versions.insert(RoleType::Snapshot, 3);
    forge.versions.insert(RoleType::Timestamp, 3);
    forge.publish();
    office.refuses(&forge.server, "rule rollback: targets 1 is older than 2, which was seen before");
}

/// The channel's document is a target: an old one is refused with the targets, or by its hash.
#[test]
fn rollback_of_a_channel() {
    let mut forge = Forge::new();
    let name = Channel::target("stable");
    let old = forge.targets[&name].clone();
    let new = crate::forge::channel("0.3.0").to_json();
    forge.targets.insert(name.clone(), new.clone());
    forge.publish_next();
    let office = Box_::new(&forge);
    let path = crate::forge::target_path(&name, &new);
    forge.server.put(&path, old);
    let trusted = office.accepts(&forge.server);
    let error = run(trusted.channel("stable")).unwrap_err().to_string();
    let file = path.trim_start_matches("targets/");
    assert_eq!(error, format!("rule hash: {file} has other bytes than those that were signed"));
}

/// The server goes on serving what it once had.
#[test]
fn freeze() {
    let mut forge = Forge::new();
    forge.expires.insert(RoleType::Timestamp, NOW + DAY);
    forge.publish();
    let mut office = Box_::new(&forge);
    office.accepts(&forge.server);
    office.now = NOW + DAY + 1;
    office.refuses(
        &forge.server,
        "rule expired: timestamp was valid until 2027-01-16 08:00 UTC, and nobody has signed it anew",
    );
}

#[test]
fn every_role_expires() {
    for role in ROLES {
        let mut forge = Forge::new();
        let old = forge.expires.insert(role, NOW - 1);
        forge.put_root(&[1, 2]);
        forge.publish();
        let office = Box_::new(&forge);
        let error = office.look(&forge.server).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("rule expired: {role} was valid until 2027-01-15 07:59")),
            "{error}"
        );
        // It does no harm for ever: the keepers sign anew.
        forge.expires.insert(role, old.unwrap());
        forge.put_root(&[1, 2]);
        forge.publish();
        let shipped = forge.shipped();
        Box_ { shipped, ..office }.accepts(&forge.server);
    }
}

/// Files of two states of the repository.
#[test]
fn mix_and_match() {
    let mut forge = Forge::new();
    let old = forge.server.copy();
    forge.publish_next();
    let office = Box_::new(&forge);
    for file in ["snapshot", "targets"] {
        let mixed = forge.server.copy();
        mixed.put(&format!("metadata/2.{file}.json"), old.get(&format!("metadata/1.{file}.json")).unwrap());
        let expected = format!("rule hash: 2.{file}.json has other bytes than those that were signed");
        office.refuses(&mixed, &expected);
    }
}

/// A thief of the server's keys can name another hash, but the number in the file is signed, too.
#[test]
fn mix_and_match_with_the_servers_keys() {
    let mut forge = Forge::new();
    let old = forge.server.get("metadata/1.targets.json").unwrap();
    forge.publish_next();
    let office = Box_::new(&forge);
    let mut snapshot = kontor_trust::tough::schema::Snapshot::new(
        crate::forge::SPEC.to_owned(),
        3.try_into().unwrap(),
        "2027-12-01T00:00:00Z".parse().unwrap(),
    );
    let meta = kontor_trust::tough::schema::Metafile {
        length: None,
        hashes: None,
        version: 2.try_into().unwrap(),
        _extra: Default::default(),
    };
    snapshot.meta.insert("targets.json".to_owned(), meta);
    forge.server.put("metadata/2.targets.json", old);
    forge.versions.insert(RoleType::Timestamp, 3);
    forge.publish_snapshot(snapshot);
    office.refuses(&forge.server, "rule mix: targets is version 1, and what was signed names 2");
}

#[test]
fn wrong_keys() {
    for (role, expected) in [
        (RoleType::Targets, "rule signature: targets has 0 of 2 signatures"),
        (RoleType::Snapshot, "rule signature: snapshot has 0 of 1 signatures"),
        (RoleType::Timestamp, "rule signature: timestamp has 0 of 1 signatures"),
    ] {
        let mut forge = Forge::new();
        forge.forged.insert(role, vec![99, 98]);
        forge.publish();
        Box_::new(&forge).refuses(&forge.server, expected);
    }
}

/// The server's own keys sign what they may not.
#[test]
fn keys_of_another_role() {
    let mut forge = Forge::new();
    forge.forged.insert(RoleType::Targets, vec![21, 31]);
    forge.publish();
    Box_::new(&forge).refuses(&forge.server, "rule signature: targets has 0 of 2 signatures");
}

#[test]
fn threshold_not_met() {
    let mut forge = Forge::new();
    forge.forged.insert(RoleType::Targets, vec![11]);
    forge.publish();
    Box_::new(&forge).refuses(&forge.server, "rule signature: targets has 1 of 2 signatures");
}

/// One key that signs twice is one key.
#[test]
fn the_same_key_twice() {
    let mut forge = Forge::new();
    forge.forged.insert(RoleType::Targets, vec![11, 11]);
    forge.publish();
    let error = Box_::new(&forge).look(&forge.server).unwrap_err().to_string();
    assert!(error.starts_with("rule form: targets is not what it should be: Duplicate key ID"), "{error}");
}

#[test]
fn endless_data() {
    for (file, expected) in [
        ("metadata/2.root.json", "rule length: 2.root.json is longer than 262144 bytes"),
        ("metadata/timestamp.json", "rule length: timestamp.json is longer than 262144 bytes"),
    ] {
        let forge = Forge::new();
        forge.server.never_end(file);
        Box_::new(&forge).refuses(&forge.server, expected);
    }
    let forge = Forge::new();
    let signed = forge.server.get("metadata/1.snapshot.json").unwrap().len();
    forge.server.never_end("metadata/1.snapshot.json");
    let expected = format!("rule length: 1.snapshot.json is longer than {signed} bytes");
    Box_::new(&forge).refuses(&forge.server, &expected);
}

/// A thief of the server's keys announces a snapshot as long as a disk.
#[test]
fn endless_data_that_was_announced() {
    let mut forge = Forge::new();
    forge.versions.insert(RoleType::Timestamp, 2);
    let hash = crate::forge::sha256(b"");
    let hashes = kontor_trust::tough::schema::Hashes { sha256: hash.into(), _extra: Default::default() };
    forge.publish_timestamp(kontor_trust::tough::schema::Metafile {
        length: Some(1 << 40),
        hashes: Some(hashes),
        version: 1.try_into().unwrap(),
        _extra: Default::default(),
    });
    forge.server.never_end("metadata/1.snapshot.json");
    Box_::new(&forge).refuses(&forge.server, "rule length: 1.snapshot.json is longer than 262144 bytes");
}

#[test]
fn oversize_metadata() {
    for (file, limit) in [("timestamp.json", 262_144), ("1.targets.json", 1_048_576)] {
        let mut forge = Forge::new();
        if file == "1.targets.json" {
            // Really signed, with more targets than a box can take.
            let names = (0..6000).map(|number| (format!("release/branch/0.0.{number}.json"), vec![b' ']));
            forge.targets.extend(names);
            forge.publish();
        } else {
            forge.server.change("metadata/timestamp.json", |bytes| bytes.resize(300_000, b' '));
        }
        let expected = format!("rule length: {file} is longer than {limit} bytes");
        Box_::new(&forge).refuses(&forge.server, &expected);
    }
}

#[test]
fn a_server_that_withholds_says_nothing_about_trust() {
    for file in ["timestamp.json", "1.snapshot.json", "1.targets.json"] {
        let forge = Forge::new();
        forge.server.remove(&format!("metadata/{file}"));
        let error = Box_::new(&forge).look(&forge.server).unwrap_err();
        assert!(error.is_temporary() && error.rule().is_none(), "{error}");
        assert!(error.to_string().starts_with(&format!("cannot fetch {file}: ")), "{error}");
    }
}
