//! Progress with rate and time left: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where there is no terminal, a line is due when a tenth is done or this much time has passed.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one pass over the disk.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    began: Instant,
    told: (u64, Instant),
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of `total` bytes; `what` is the verb (`writing`).
    #[must_use]
    pub fn new(what: &'static str, total: u64) -> Self {
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| bar(what, total));
        Self { what, total, done: 0, began: now, told: (0, now), bar }
    }

    /// So many bytes more.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.done - self.told.0 >= self.total.div_ceil(10) || self.told.1.elapsed() >= LINE_EVERY {
            self.told = (self.done, Instant::now());
            eprintln!("{}", line(self.what, self.done, self.total, self.began.elapsed()));
        }
    }

    /// Leaves one line with the average.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let (seconds, mib) = (self.began.elapsed().as_secs_f64(), mib(self.done));
        eprintln!("{}: {mib:.0} MiB in {seconds:.1} s, {:.0} MiB/s", self.what, mib / seconds.max(0.001));
    }
}

fn bar(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{msg} {bytes}/{total_bytes} [{wide_bar}] {binary_bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let (done_mib, total_mib) = (mib(done), mib(total));
    let rate = done_mib / elapsed.as_secs_f64().max(0.001);
    let left = (total_mib - done_mib) / rate.max(0.001);
    format!("{what}: {done_mib:.0} of {total_mib:.0} MiB, {rate:.0} MiB/s, {left:.0} s left")
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left() {
        let text = line("writing", 100 << 20, 400 << 20, Duration::from_secs(2));
        assert_eq!(text, "writing: 100 of 400 MiB, 50 MiB/s, 6 s left");
        assert!(line("writing", 0, 0, Duration::ZERO).ends_with("0 s left"));
    }
}
