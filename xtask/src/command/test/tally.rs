//! Counting what test programs print.

use std::fmt::Write;
use std::time::Duration;

/// How a test run went so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    /// What was skipped, and why as far as it was said.
    reasons: Vec<String>,
    /// What failed outside any test program.
    troubles: Vec<String>,
    failures: Vec<String>,
}

impl Tally {
    /// Takes one line of a test program's output.
    ///
    /// `SKIPPED: WHAT: REASON` on a line of its own is a test program that says why it ignores tests.
    pub(super) fn line(&mut self, line: &str) {
        let line = line.trim();
        if let Some(counts) = line.strip_prefix("test result:") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.skipped += count(counts, "ignored");
        } else if let Some(what) = line.strip_prefix("SKIPPED: ") {
            self.reasons.push(what.to_owned());
        } else if let Some((name, result)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            self.result(name.trim(), result.trim());
        }
    }

    fn result(&mut self, name: &str, result: &str) {
        if let Some(reason) = result.strip_prefix("ignored") {
            let reason = reason.trim_start_matches([',', ' ', ':']);
            let separator = if reason.is_empty() { "" } else { ": " };
            self.reasons.push(format!("{name}{separator}{reason}"));
        } else if result.starts_with("FAILED") {
            self.failures.push(name.to_owned());
        }
    }

    /// With another one.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.reasons.extend(other.reasons);
        self.troubles.extend(other.troubles);
        self.failures.extend(other.failures);
    }

    /// Something failed that is no test.
    pub(super) fn fail(&mut self, what: &str) {
        self.failed += 1;
        self.troubles.push(what.to_owned());
    }

    /// Whether no test was even met.
    pub(super) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped == 0
    }

    /// The end of the output; its last line is `N passed, N failed, N skipped`.
    pub(super) fn summary(&self, elapsed: Duration) -> String {
        let mut text = format!("\n=== {} s\n", elapsed.as_secs());
        let lists = [("skipped", &self.reasons), ("failed", &self.failures), ("failed", &self.troubles)];
        for (word, list) in lists {
            for item in list {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{word}: {item}");
            }
        }
        let _ = writeln!(text, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        text
    }
}

/// The number before `word` in ` ok. 3 passed; 0 failed; …`.
fn count(counts: &str, word: &str) -> u64 {
    let mut words = counts.split([' ', ';', '.']).filter(|part| !part.is_empty()).rev();
    words.find(|part| *part == word);
    words.next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &str, expect: &str) {
        let mut tally = Tally::default();
        lines.lines().for_each(|line| tally.line(line));
        assert_eq!(tally.summary(Duration::from_secs(7)), format!("\n=== 7 s\n{expect}\n"));
    }

    #[test]
    fn results_of_all_programs_are_added() {
        check(
            "running 2 tests\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.41s\n\
             test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
            "5 passed, 1 failed, 0 skipped",
        );
    }

    #[test]
    fn two_runs_are_one() {
        let tally = |lines: &str| {
            let mut tally = Tally::default();
            lines.lines().for_each(|line| tally.line(line));
            tally
        };
        let mut one = tally("test lease ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored");
        one.add(tally("test boot ... ignored, no image\ntest result: ok. 2 passed; 0 failed; 1 ignored"));
        let expect = "\n=== 7 s\nskipped: boot: no image\nfailed: lease\n3 passed, 1 failed, 1 skipped\n";
        assert_eq!(one.summary(Duration::from_secs(7)), expect);
    }

    #[test]
    fn a_filter_that_fits_no_test_is_told_from_tests_that_ran() {
        let mut tally = Tally::default();
        tally.line(
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0s",
        );
        assert!(tally.is_empty());
        tally.line(
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 8 filtered out; finished in 0s",
        );
        assert!(!tally.is_empty());
    }

    #[test]
    fn what_was_skipped_says_why() {
        check(
            "test boot ... ignored, no image\n\
             test lease ... FAILED\n\
             test result: FAILED. 0 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
            "skipped: boot: no image\nfailed: lease\n0 passed, 1 failed, 1 skipped",
        );
        check(
            "SKIPPED: like apt: no apt-get\ntest same ... ignored\ntest result: ok. 4 passed; 0 failed; 1 ignored",
            "skipped: like apt: no apt-get\nskipped: same\n4 passed, 0 failed, 1 skipped",
        );
    }
}
