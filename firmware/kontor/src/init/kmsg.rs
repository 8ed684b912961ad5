//! Lines of PID 1 itself: to the kernel's log, whose console shows them even when nothing else works.

use std::fs::OpenOptions;
use std::io::Write;

/// Severities of the kernel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Shown on the console.
    Error = 3,
    /// In the log only.
    Info = 6,
}

/// Something went wrong; shown on every console.
pub(super) fn error(text: &str) {
    write(Level::Error, text);
}

/// Progress.
pub(super) fn info(text: &str) {
    write(Level::Info, text);
}

fn write(level: Level, text: &str) {
    let line = format!("<{}>kontor: {text}\n", level as u8);
    let logged =
        OpenOptions::new().write(true).open("/dev/kmsg").and_then(|mut log| log.write_all(line.as_bytes()));
    if logged.is_err() {
        eprintln!("kontor: {text}");
    }
}
