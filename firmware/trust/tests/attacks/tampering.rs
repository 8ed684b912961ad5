//! Metadata with any byte changed. Some are tried: a signature is checked each time.

use crate::forge::{Box_, Forge};

#[track_caller]
fn check(file: &str, step: usize, rules: &[&str]) {
    let forge = Forge::new();
    let office = Box_::new(&forge);
    let name = format!("metadata/{file}");
    let honest = forge.server.get(&name).unwrap();
    // tough signs and checks by the type it expects and does not read this field: what stands in it changes nothing.
    let text = String::from_utf8(honest.clone()).unwrap();
    let unread = text.find("\"_type\"").map(|at| at..at + text[at..].find('\n').unwrap()).unwrap();
    let mut tried = 0;
    for at in (0..honest.len()).step_by(step).filter(|at| !unread.contains(at)) {
        let mut bytes = honest.clone();
        bytes[at] ^= 1;
        forge.server.put(&name, bytes);
        let error = office.look(&forge.server).expect_err(&format!("byte {at} of {file}"));
        assert!(error.rule().is_some_and(|rule| rules.contains(&rule)), "byte {at} of {file}: {error}");
        tried += 1;
    }
    assert!(tried > 50);
    forge.server.put(&name, honest);
    office.accepts(&forge.server);
}

#[test]
fn a_timestamp_with_any_byte_changed() {
    check("timestamp.json", 3, &["signature", "form"]);
}

#[test]
fn a_snapshot_with_any_byte_changed() {
    check("1.snapshot.json", 7, &["hash"]);
}

#[test]
fn targets_with_any_byte_changed() {
    check("1.targets.json", 11, &["hash"]);
}

#[test]
fn a_new_root_with_any_byte_changed() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    let same = forge.keys[&kontor_trust::tough::schema::RoleType::Root].clone();
    forge.rotate(kontor_trust::tough::schema::RoleType::Root, same, &[1, 2]);
    let name = "metadata/2.root.json";
    let honest = forge.server.get(name).unwrap();
    let text = String::from_utf8(honest.clone()).unwrap();
    let unread = text.find("\"_type\"").map(|at| at..at + text[at..].find('\n').unwrap()).unwrap();
    for at in (0..honest.len()).step_by(31).filter(|at| !unread.contains(at)) {
        let mut bytes = honest.clone();
        bytes[at] ^= 1;
        forge.server.put(name, bytes);
        let error = office.look(&forge.server).expect_err(&format!("byte {at}"));
        assert!(matches!(error.rule(), Some("signature" | "form")), "byte {at}: {error}");
    }
    assert_eq!(office.open().root_version(), 1);
}
