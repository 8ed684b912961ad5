//! What the consoles and the log are told of an installation.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kontor_status::{InstallProgress, InstallStatus, paths};
use kontor_sys::file::write_atomic;

/// A serial line shows each change as a line.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Publishes and logs.
pub(super) struct Report {
    status: InstallStatus,
    /// The disk that is written.
    disk: String,
    what: &'static str,
    began: Instant,
    told: Instant,
}

impl Report {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { status: InstallStatus::default(), disk: String::new(), what: "", began: now, told: now }
    }

    /// Something else begins, or all is done.
    pub(super) fn phase(&mut self, phase: &str) {
        eprintln!("{phase}");
        self.status = InstallStatus { phase: phase.to_owned(), ..InstallStatus::default() };
        self.publish();
    }

    /// This disk is about to be written.
    pub(super) fn disk(&mut self, name: &str) {
        name.clone_into(&mut self.disk);
    }

    /// It does not go on.
    pub(super) fn problem(&mut self, problem: &str) {
        eprintln!("error: {problem}");
        self.status = InstallStatus { problem: Some(problem.to_owned()), ..InstallStatus::default() };
        self.publish();
    }

    /// So many bytes of `what` are done.
    pub(super) fn progress(&mut self, what: &'static str, done: u64, total: u64) {
        let is_new = self.what != what;
        if is_new {
            (self.what, self.began) = (what, Instant::now());
        }
        if !is_new && done < total && self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        let progress = InstallProgress { done, total, rate: rate(done, self.began.elapsed()) };
        self.status.phase = format!("{what} {}", self.disk);
        self.status.progress = Some(progress);
        eprintln!("{}", line(&self.status));
        self.publish();
    }

    fn publish(&self) {
        if let Err(error) = publish(&self.status) {
            eprintln!("error: {error:#}");
        }
    }
}

fn publish(status: &InstallStatus) -> anyhow::Result<()> {
    let path = Path::new(paths::INSTALL_STATUS);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    write_atomic(path, &serde_json::to_vec(status)?).with_context(|| paths::INSTALL_STATUS.to_owned())
}

fn rate(bytes: u64, time: Duration) -> u64 {
    match u64::try_from(time.as_millis()) {
        // So little says nothing: it may all be in the kernel's memory.
        Ok(0..1000) | Err(_) => 0,
        Ok(milliseconds) => bytes.saturating_mul(1000) / milliseconds,
    }
}

/// `writing sda: 100 of 1200 MB, 50 MB/s, 22 s left`
pub(crate) fn line(status: &InstallStatus) -> String {
    let Some(InstallProgress { done, total, rate }) = status.progress else { return status.phase.clone() };
    let mb = |bytes: u64| bytes / 1_000_000;
    let text = format!("{}: {} of {} MB", status.phase, mb(done), mb(total));
    match total.saturating_sub(done).checked_div(rate) {
        Some(left) => format!("{text}, {} MB/s, {left} s left", mb(rate)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_a_rate_and_an_end() {
        let progress = Some(InstallProgress { done: 100_000_000, total: 1_200_000_000, rate: 50_000_000 });
        let mut status = InstallStatus { phase: "writing".into(), progress, problem: None };
        assert_eq!(line(&status), "writing: 100 of 1200 MB, 50 MB/s, 22 s left");
        status.progress = Some(InstallProgress::default());
        assert_eq!(line(&status), "writing: 0 of 0 MB");
        status.progress = None;
        assert_eq!(line(&status), "writing");
        assert_eq!(rate(100_000_000, Duration::from_secs(2)), 50_000_000);
        assert_eq!([rate(1 << 20, Duration::ZERO), rate(1 << 20, Duration::from_millis(999))], [0; 2]);
    }
}
