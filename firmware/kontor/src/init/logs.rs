//! Lines of the services, bounded in RAM: the last 64 KiB of each, and the last errors of all.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::calendar;

/// Bytes kept per service.
const RING_BYTES: usize = 64 << 10;
/// A longer line is cut; one event needs no more.
const MAX_LINE: usize = 1 << 10;
/// Lines a service may write per second; what is above is counted, not kept.
const MAX_RATE: u32 = 500;
/// Errors kept.
const MAX_ERRORS: usize = 20;

/// The last lines of one service.
#[derive(Debug, Default)]
pub(super) struct Ring {
    lines: VecDeque<String>,
    bytes: usize,
    partial: Vec<u8>,
    second: u64,
    in_second: u32,
}

/// A whole line, as it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Without its severity prefix.
    pub(super) text: String,
    /// Warning or worse.
    pub(super) is_problem: bool,
}

impl Ring {
    /// Takes what a service wrote; returns the lines that became whole and were kept.
    pub(super) fn feed(&mut self, now: Duration, stamp: &str, bytes: &[u8]) -> Vec<Line> {
        let mut taken = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => taken.extend(self.finish_line(now, stamp)),
                _ if self.partial.len() < MAX_LINE => self.partial.push(*byte),
                _ => {}
            }
        }
        taken
    }

    fn finish_line(&mut self, now: Duration, stamp: &str) -> Option<Line> {
        if self.partial.is_empty() {
            return None;
        }
        if now.as_secs() != self.second {
            let dropped = self.in_second.saturating_sub(MAX_RATE);
            (self.second, self.in_second) = (now.as_secs(), 0);
            if dropped > 0 {
                self.push(format!("{stamp} ({dropped} lines dropped)"));
            }
        }
        self.in_second += 1;
        if self.in_second > MAX_RATE {
            // Read all the same: a daemon must not stall because it has much to say.
            self.partial.clear();
            return None;
        }
        let raw = std::mem::take(&mut self.partial);
        let text: String = String::from_utf8_lossy(&raw).chars().filter(|c| !c.is_control()).collect();
        if text.is_empty() {
            return None;
        }
        let line = classify(&text);
        self.push(format!("{stamp} {}", line.text));
        Some(line)
    }

    /// Adds a line of the supervisor's own about this service.
    pub(super) fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > RING_BYTES {
            match self.lines.pop_front() {
                Some(old) => self.bytes -= old.len(),
                None => break,
            }
        }
    }

    /// The last `count` lines, oldest first.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = &str> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count)).map(String::as_str)
    }
}

/// The last errors of all services.
#[derive(Debug, Default)]
pub(super) struct Errors(VecDeque<String>);

impl Errors {
    /// Adds one; the oldest goes.
    pub(super) fn push(&mut self, line: String) {
        if self.0.len() == MAX_ERRORS {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

/// Severity: an sd-daemon(3) prefix `<N>`, or the word the line begins with.
fn classify(text: &str) -> Line {
    if let Some((digit, rest)) = text.strip_prefix('<').and_then(|rest| rest.split_once('>'))
        && let Ok(level) = digit.parse::<u8>()
        && level < 8
    {
        return Line { text: rest.trim_start().to_owned(), is_problem: level <= 4 };
    }
    let lower = text.to_ascii_lowercase();
    let is_problem = ["error", "warning", "kontor ", "thread '"].iter().any(|word| lower.starts_with(word));
    Line { text: text.to_owned(), is_problem }
}

/// The wall clock as RFC 3339, in UTC and to the second.
pub(super) fn wall_clock() -> String {
    calendar::utc(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn line(text: &str, is_problem: bool) -> Line {
        Line { text: text.to_owned(), is_problem }
    }

    #[test]
    fn lines_are_whole_cut_and_classified() {
        let mut ring = Ring::default();
        assert_eq!(ring.feed(S, "t", b"lease 1\nerr"), [line("lease 1", false)]);
        assert_eq!(
            ring.feed(S, "t", b"or: bad\n\n<4>warn\n<6>fine\n"),
            [line("error: bad", true), line("warn", true), line("fine", false)]
        );
        let long = [vec![b'x'; 5000], b"\n".to_vec()].concat();
        assert_eq!(ring.feed(S, "t", &long)[0].text.len(), MAX_LINE);
        assert_eq!(ring.last(2).collect::<Vec<_>>()[0], "t fine");
    }

    #[test]
    fn a_ring_is_bounded_in_bytes_and_a_flood_is_counted() {
        let mut ring = Ring::default();
        for second in 0..20 {
            ring.feed(second * S, "t", "a line of some length, again and again\n".repeat(1000).as_bytes());
        }
        assert!(ring.bytes <= RING_BYTES && ring.bytes > RING_BYTES / 2);
        assert!(ring.last(5000).any(|line| line.contains("(500 lines dropped)")));
    }

    #[test]
    fn the_newest_errors_are_kept() {
        let mut errors = Errors::default();
        (0..25).for_each(|n| errors.push(n.to_string()));
        assert_eq!(errors.all().len(), MAX_ERRORS);
        assert_eq!(errors.all().last().unwrap(), "24");
    }
}
