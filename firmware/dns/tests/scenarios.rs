//! Plays every file in `tests/scenarios/` (the language is described in `scenario/mod.rs`).

#![allow(clippy::unwrap_used)] // test code: a wrong fixture may panic

mod scenario;

#[test]
fn every_scenario() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let mut played = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        scenario::play(&path.file_name().unwrap().to_string_lossy(), &text);
        played += 1;
    }
    assert!(played >= 5, "scenario files are missing");
}
