//! Which schema is to be in force.

use std::fmt;

use crate::table::Span;

/// The release in the slot that does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// It cannot be chosen: there is nothing to go back to.
    Gone,
    /// It can be booted, and nobody has noted what it reads.
    Unknown,
    /// It can be booted, and reads these.
    Reads(Span),
}

/// The state has a schema that this release does not read: it must not be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable {
    /// That of the state.
    pub schema: u32,
    /// What the release reads.
    pub ours: Span,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema, ours } = self;
        let other = if *schema > ours.newest { "newer" } else { "older" };
        write!(
            f,
            "the state partition has schema {schema}, which only {other} releases read; this one reads {ours}: nothing was \
             touched, install one of those"
        )
    }
}

impl std::error::Error for Unreadable {}

/// The schema that should be in force when this release runs: the newest that it, the one in the other slot, and the one that
/// is about to be installed all read. `now` is that of the state, nothing when it is empty.
///
/// # Errors
/// When the state cannot be read by this release.
pub fn target(now: Option<u32>, ours: Span, other: Other, next: Option<Span>) -> Result<u32, Unreadable> {
    if let Some(schema) = now.filter(|schema| !ours.contains(*schema)) {
        return Err(Unreadable { schema, ours });
    }
    let limit = match other {
        Other::Gone => ours.newest,
        Other::Reads(theirs) => theirs.newest,
        // What is there it has written or read; of empty state, whatever is old is known longest.
        Other::Unknown => now.unwrap_or(ours.oldest),
    };
    let next = next.map_or(ours.newest, |next| next.newest);
    // One that reads nothing of ours was refused when it was to be installed; should it be there, it is no reason to fail.
    Ok(ours.newest.min(limit).min(next).max(ours.oldest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(oldest: u32, newest: u32) -> Span {
        Span { oldest, newest }
    }

    #[track_caller]
    fn check(now: Option<u32>, ours: Span, other: Other, next: Option<Span>, expect: u32) {
        assert_eq!(target(now, ours, other, next), Ok(expect));
    }

    #[test]
    fn the_schema_is_one_that_every_slot_can_read() {
        let (old, new, newer) = (span(1, 1), span(1, 2), span(2, 3));
        check(Some(1), old, Other::Unknown, None, 1);
        // On trial, proven, or back again: the same, as long as the old one can be booted.
        check(Some(1), new, Other::Reads(old), None, 1);
        check(Some(1), old, Other::Reads(new), None, 1);
        check(Some(1), new, Other::Reads(new), None, 2);
        check(Some(1), new, Other::Gone, None, 2);
        check(Some(2), new, Other::Reads(newer), None, 2);
        check(Some(2), newer, Other::Gone, None, 3);
        // The old one is to be installed again; it then lies in the other slot.
        check(Some(2), new, Other::Gone, Some(old), 1);
        check(Some(1), new, Other::Reads(old), None, 1);
        check(Some(1), new, Other::Gone, Some(newer), 2);
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        check(Some(2), span(1, 3), Other::Unknown, None, 2);
        check(None, span(2, 3), Other::Unknown, None, 2);
        check(None, span(2, 3), Other::Gone, None, 3);
        check(Some(2), span(2, 3), Other::Reads(span(1, 1)), None, 2);
    }

    #[test]
    fn what_only_others_read_is_refused() {
        let error = target(Some(3), span(1, 2), Other::Gone, None).unwrap_err().to_string();
        assert!(error.contains("schema 3, which only newer releases read; this one reads 1 to 2"), "{error}");
        let error = target(Some(1), span(2, 2), Other::Gone, None).unwrap_err().to_string();
        assert!(error.contains("only older releases"), "{error}");
    }
}
