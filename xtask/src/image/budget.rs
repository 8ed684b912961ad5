//! Size budgets: what may not grow unnoticed.

use std::fmt::Write;

use anyhow::{Result, bail};

/// How many contributors an exceeded budget names.
const SHOWN: usize = 10;

/// A size with its limit and what makes it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// What was measured.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What it may be.
    pub limit_kib: u64,
    /// Its parts and their sizes, in any order.
    pub parts: Vec<(String, u64)>,
}

impl Measured {
    /// Whether it is larger than it may be.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.bytes > self.limit_kib << 10
    }
}

/// Fails when anything is over its budget.
///
/// # Errors
/// Every exceeded budget with its ten largest contributors.
pub fn check(measured: &[Measured]) -> Result<()> {
    let over: Vec<String> = measured.iter().filter(|size| size.is_over()).map(complaint).collect();
    if over.is_empty() { Ok(()) } else { bail!("{}", over.join("\n")) }
}

fn complaint(size: &Measured) -> String {
    let (is, limit) = (kib(size.bytes), size.limit_kib);
    let mut text = format!("{} is {is} KiB, {} KiB over its budget of {limit} KiB", size.name, is - limit);
    let mut parts: Vec<&(String, u64)> = size.parts.iter().collect();
    parts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (name, bytes) in parts.into_iter().take(SHOWN) {
        // Writing into a string cannot fail.
        let _ = write!(text, "\n  {:>8} KiB  {name}", kib(*bytes));
    }
    text
}

/// Whole KiB, rounded up.
#[must_use]
pub const fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(bytes: u64) -> Measured {
        let parts = (1..=12).map(|n| (format!("part{n:02}"), n * 1024)).collect();
        Measured { name: "the slot image".to_owned(), bytes, limit_kib: 10, parts }
    }

    #[test]
    fn exactly_the_limit_is_fine() {
        check(&[measured(10 << 10)]).unwrap();
    }

    #[test]
    fn one_byte_more_names_the_ten_largest() {
        let error = check(&[measured((10 << 10) + 1)]).unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines[0], "the slot image is 11 KiB, 1 KiB over its budget of 10 KiB");
        assert_eq!(lines[1], "        12 KiB  part12");
        assert_eq!(lines.len(), 11);
    }
}
