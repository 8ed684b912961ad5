//! Metadata with any byte changed. Every third is tried: a signature is checked each time.

use crate::forge::{Box_, Forge};

#[track_caller]
fn check(file: &str, rules: &[&str]) {
    let forge = Forge::new();
    let office = Box_::new(&forge);
    let name = format!("metadata/{file}");
    let honest = forge.server.get(&name).unwrap();
    // tough signs and checks by the type it expects and does not read this field: what stands in it changes nothing.
    let text = String::from_utf8(honest.clone()).unwrap();
    let unread = text.find("\"_type\"").map(|at| at..at + text[at..].find('\n').unwrap()).unwrap();
    let mut tried = 0;
    for at in (0..honest.len()).step_by(3).filter(|at| !unread.contains(at)) {
        let mut bytes = honest.clone();
        bytes[at] ^= 1;
        forge.server.put(&name, bytes);
        let error = office.look(&forge.server).expect_err(&format!("byte {at} of {file}"));
        assert!(error.rule().is_some_and(|rule| rules.contains(&rule)), "byte {at} of {file}: {error}");
        tried += 1;
    }
    assert!(tried > 100);
    forge.server.put(&name, honest);
    office.accepts(&forge.server);
}

#[test]
fn a_timestamp_with_any_byte_changed() {
    check("timestamp.json", &["signature", "form"]);
}

#[test]
fn a_snapshot_with_any_byte_changed() {
    check("1.snapshot.json", &["hash"]);
}

#[test]
fn targets_with_any_byte_changed() {
    check("1.targets.json", &["hash"]);
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
    for at in (0..honest.len()).step_by(17).filter(|at| !unread.contains(at)) {
        let mut bytes = honest.clone();
        bytes[at] ^= 1;
        forge.server.put(name, bytes);
        let error = office.look(&forge.server).expect_err(&format!("byte {at}"));
        assert!(matches!(error.rule(), Some("signature" | "form")), "byte {at}: {error}");
    }
    assert_eq!(office.open().root_version(), 1);
}
