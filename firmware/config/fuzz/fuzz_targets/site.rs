//! Any bytes as a site file: a report that can be shown, or a site that is read again from the same text.
#![no_main]

use std::sync::LazyLock;

use kontor_config::{Board, Site};
use libfuzzer_sys::fuzz_target;

static BOARD: LazyLock<Board> = LazyLock::new(|| {
    let text = "schema = 1\nname = \"box\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n[[port]]\nname = \"port3\"\n";
    Board::parse("box.toml", text).expect("a right board")
});

fuzz_target!(|bytes: &[u8]| {
    match Site::parse_bytes("site.toml", bytes, &BOARD) {
        Ok(site) => assert_eq!(Site::parse_bytes("site.toml", bytes, &BOARD).as_ref(), Ok(&site)),
        Err(report) => {
            assert!((1..=20).contains(&report.diagnostics.len()));
            assert!(report.to_string().contains("site.toml"));
        }
    }
});
