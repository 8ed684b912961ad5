//! The migrations that this release knows, and what they do to bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Schemas from the oldest to the newest that a release reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Span {
    /// The lowest.
    pub oldest: u32,
    /// The highest.
    pub newest: u32,
}

impl Default for Span {
    /// That of releases from before there were numbers.
    fn default() -> Self {
        Self { oldest: 1, newest: 1 }
    }
}

impl Span {
    /// Whether it reads this schema.
    #[must_use]
    pub const fn contains(self, schema: u32) -> bool {
        self.oldest <= schema && schema <= self.newest
    }

    /// Whether there is a schema that both read.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.oldest.max(other.oldest) <= self.newest.min(other.newest)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        if oldest == newest { write!(f, "{oldest}") } else { write!(f, "{oldest} to {newest}") }
    }
}

/// One file, from one schema to the next. Both ways are total: what a way does not understand it leaves as it is, for the
/// file's owner to report, because damage must not keep a box in the past. Of a file that is appended to, whole lines are changed
/// one by one: pieces become what the whole would.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// Below `/state`.
    pub path: &'static str,
    /// To the higher schema.
    pub forward: fn(&[u8]) -> Vec<u8>,
    /// To the lower one: may leave out only what the older release does not know.
    pub back: fn(&[u8]) -> Vec<u8>,
}

/// From one schema to the next.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The files that differ; all others are the same in both.
    pub changes: &'static [Change],
}

/// The migrations of a release.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// The schema that the first migration begins with.
    pub oldest: u32,
    /// The schema in which this release's programs read and write.
    pub native: u32,
    /// One after the other.
    pub migrations: &'static [Migration],
}

/// What this release knows. Whoever adds a migration here reads docs/releases.md first.
#[cfg(not(feature = "test-migration"))]
pub const TABLE: Table = Table { oldest: 1, native: 1, migrations: &[] };
/// The same with a migration for tests.
#[cfg(feature = "test-migration")]
pub const TABLE: Table = trial::TABLE;

impl Table {
    /// What the release reads.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span { oldest: self.oldest, newest: self.oldest + self.migrations.len() as u32 }
    }

    /// A file's bytes in another schema; both must be in [`Table::span`], otherwise nothing is changed.
    #[must_use]
    pub fn convert(&self, path: &str, bytes: &[u8], from: u32, to: u32) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let is_up = from < to;
        for migration in self.between(from, to) {
            for change in migration.changes.iter().filter(|change| change.path == path) {
                bytes = if is_up { (change.forward)(&bytes) } else { (change.back)(&bytes) };
            }
        }
        bytes
    }

    /// The files that are different in these two schemas.
    #[must_use]
    pub fn changed(&self, from: u32, to: u32) -> Vec<&'static str> {
        let changes = self.between(from, to).into_iter().flat_map(|migration| migration.changes);
        let mut paths: Vec<_> = changes.map(|change| change.path).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// The migrations from one to the other, in the order of the way.
    fn between(&self, from: u32, to: u32) -> Vec<&'static Migration> {
        let index = |schema: u32| schema.checked_sub(self.oldest).map(|index| index as usize);
        let (Some(low), Some(high)) = (index(from.min(to)), index(from.max(to))) else { return Vec::new() };
        let mut way: Vec<_> = self.migrations.get(low..high).unwrap_or_default().iter().collect();
        if from > to {
            way.reverse();
        }
        way
    }
}

/// The migration for tests: the checksum of a line of the lease journal comes behind it instead of before.
#[cfg(any(test, feature = "test-migration"))]
pub(crate) mod trial {
    use super::{Change, Migration, Table};

    const LEASES: Change = Change { path: "dhcpd/leases.journal", forward: behind, back: before };
    pub(crate) const TABLE: Table =
        Table { oldest: 1, native: 1, migrations: &[Migration { changes: &[LEASES] }] };
    const CHECKSUM: usize = 8;

    fn behind(bytes: &[u8]) -> Vec<u8> {
        by_line(bytes, |line| {
            let (checksum, rest) = line.split_at_checked(CHECKSUM)?;
            let json = rest.strip_prefix(b" ").filter(|_| checksum.iter().all(u8::is_ascii_hexdigit))?;
            Some([json, b" ", checksum].concat())
        })
    }

    fn before(bytes: &[u8]) -> Vec<u8> {
        by_line(bytes, |line| {
            let (rest, checksum) = line.split_at_checked(line.len().checked_sub(CHECKSUM)?)?;
            let json = rest.strip_suffix(b" ").filter(|_| checksum.iter().all(u8::is_ascii_hexdigit))?;
            Some([checksum, b" ", json].concat())
        })
    }

    /// What was torn or damaged stays as it is.
    fn by_line(bytes: &[u8], change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
        let mut changed = Vec::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_suffix(b"\n").and_then(&change) {
                Some(line) => changed.extend([&line[..], b"\n"].concat()),
                None => changed.extend_from_slice(line),
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASES: &str = "dhcpd/leases.journal";
    const OLD: &[u8] = b"0123abcd {\"a\":1}\nnonsense\n89abcdef {\"a\":2}\n0123ab";
    const NEW: &[u8] = b"{\"a\":1} 0123abcd\nnonsense\n{\"a\":2} 89abcdef\n0123ab";

    #[test]
    fn each_way_is_the_other_one_s_way_back() {
        let table = trial::TABLE;
        assert_eq!(table.span(), Span { oldest: 1, newest: 2 });
        assert_eq!(table.convert(LEASES, OLD, 1, 2), NEW);
        assert_eq!(table.convert(LEASES, NEW, 2, 1), OLD);
        assert_eq!(table.convert(LEASES, OLD, 1, 1), OLD);
        assert_eq!(table.convert(LEASES, OLD, 1, 7), OLD, "nobody knows the way");
        assert_eq!(table.convert("netd/ports.json", OLD, 1, 2), OLD);
        assert_eq!((table.changed(2, 1), table.changed(2, 2)), (vec![LEASES], vec![]));
    }

    /// What decides which schema is in force, and the files whose schema is the operator's, are the same in all of them.
    #[test]
    fn no_migration_touches_what_every_release_has_to_read() {
        for change in TABLE.migrations.iter().flat_map(|migration| migration.changes) {
            let is_fixed = ["updated/", "site/"].iter().any(|fixed| change.path.starts_with(fixed));
            assert!(!is_fixed && change.path.contains('/'), "{}", change.path);
        }
        assert!(TABLE.span().contains(TABLE.native));
    }

    #[test]
    fn spans_meet_where_both_can_read() {
        let span = |oldest, newest| Span { oldest, newest };
        assert!(span(1, 2).meets(span(2, 3)) && span(2, 3).meets(span(1, 2)));
        assert!(!span(1, 1).meets(span(2, 3)) && !span(2, 3).meets(span(1, 1)));
        assert_eq!((span(1, 1).to_string(), span(1, 3).to_string()), ("1".into(), "1 to 3".into()));
    }

    proptest! {
        #[test]
        fn what_is_appended_in_pieces_is_what_the_whole_would_be(
            lines in prop::collection::vec("([0-9a-f]{8} )?[ -~]{0,20}\n", 0..9), cut in 0usize..9,
        ) {
            let cut = cut.min(lines.len());
            let (first, rest) = (lines[..cut].concat(), lines[cut..].concat());
            let up = |text: &str| trial::TABLE.convert(LEASES, text.as_bytes(), 1, 2);
            prop_assert_eq!([up(&first), up(&rest)].concat(), up(&lines.concat()));
        }

        #[test]
        fn good_lines_come_back(lines in prop::collection::vec("[0-9a-f]{8} \\{[ -~]{0,20}\\}\n", 0..9)) {
            let text = lines.concat();
            let there = trial::TABLE.convert(LEASES, text.as_bytes(), 1, 2);
            prop_assert_eq!(trial::TABLE.convert(LEASES, &there, 2, 1), text.as_bytes());
        }
    }
}
