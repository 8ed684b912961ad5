//! The progress of downloads and copies: one bar on a terminal, one summary line elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One bar for all files together.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    files: usize,
    total: u64,
    done: AtomicU64,
}

impl Progress {
    /// For `files` files of `total` bytes.
    pub(crate) fn new(quiet: bool, files: usize, total: u64) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = "{spinner} {bytes}/{total_bytes} [{wide_bar}] {binary_bytes_per_sec} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Progress { bar, files, total, done: AtomicU64::new(0) }
    }

    /// Runs one download; it reports its position in its file.
    pub(crate) fn track<T>(&self, name: &str, download: impl FnOnce(&(dyn Fn(u64) + Sync)) -> T) -> T {
        let before = AtomicU64::new(0);
        let report = |position: u64| {
            let last = before.swap(position, Ordering::Relaxed);
            self.bar.inc(position.wrapping_sub(last));
        };
        let result = download(&report);
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.bar.set_message(format!("{done}/{} {name}", self.files));
        result
    }

    /// Ends the bar with the one line that stays; `done` is what was done with the packages.
    pub(crate) fn finish(&self, done: &str, elapsed: Duration) {
        self.bar.finish_and_clear();
        let (files, size) = (self.files, HumanBytes(self.total));
        eprintln!("{done} {files} packages, {size} in {:.1} s", elapsed.as_secs_f64());
    }
}
