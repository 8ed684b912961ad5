//! Any text as a board file.
#![no_main]

use kontor_config::{Board, Site};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Board::parse("board.toml", text) {
        Ok(board) => drop(Site::default_site(&board)),
        Err(report) => assert!(report.to_string().contains("board.toml")),
    }
});
