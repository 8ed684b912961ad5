//! Debian versions: order and the relation operators of dependency fields (Debian policy, section 5.6.12 and 7.1).

use std::cmp::Ordering;

/// A relation's operator: `<<`, `<=`, `=`, `>=` or `>>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=` (and the old `<`)
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=` (and the old `>`)
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// The operator as written in a control file.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Operator::Earlier,
            "<=" | "<" => Operator::EarlierOrEqual,
            "=" => Operator::Equal,
            ">=" | ">" => Operator::LaterOrEqual,
            ">>" => Operator::Later,
            _ => return None,
        })
    }

    /// Whether `left OP right` holds.
    pub fn holds(self, left: &str, right: &str) -> bool {
        let order = compare(left, right);
        match self {
            Operator::Earlier => order.is_lt(),
            Operator::EarlierOrEqual => order.is_le(),
            Operator::Equal => order.is_eq(),
            Operator::LaterOrEqual => order.is_ge(),
            Operator::Later => order.is_gt(),
        }
    }
}

/// The order of two versions `[epoch:]upstream[-revision]`; a part that is missing counts as zero.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    left.0
        .cmp(&right.0)
        .then_with(|| compare_part(left.1, right.1))
        .then_with(|| compare_part(left.2, right.2))
}

/// Epoch, upstream version and revision.
fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => epoch.parse().map_or((0, version), |epoch| (epoch, rest)),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Non-digits and numbers in turn, from the left.
fn compare_part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let order = compare_text(take(&mut left, false), take(&mut right, false));
        let order = order.then_with(|| compare_number(take(&mut left, true), take(&mut right, true)));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the longest beginning of digits, or of anything else.
fn take<'a>(text: &mut &'a str, digits: bool) -> &'a str {
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

/// `~` before the end, the end before letters, letters before everything else.
fn compare_text(left: &str, right: &str) -> Ordering {
    let weight = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => i32::from(other) + 256,
    };
    let (mut left, mut right) = (left.bytes(), right.bytes());
    loop {
        let (l, r) = (left.next(), right.next());
        let order = weight(l).cmp(&weight(r));
        if order.is_ne() || (l.is_none() && r.is_none()) {
            return order;
        }
    }
}

/// Of any length: dates and hashes are longer than a machine word.
fn compare_number(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(left: &str, operator: &str, right: &str, expect: bool) {
        assert_eq!(Operator::parse(operator).unwrap().holds(left, right), expect);
    }

    #[test]
    fn operators_follow_policy() {
        check("1.0-1", "<<", "1.0-1+b1", true);
        check("1.0~rc1", "<<", "1.0", true);
        check("1:0.9", ">>", "2.0", true);
        check("1.0", "=", "0:1.0", true);
        check("1.10", ">=", "1.9", true);
        check("1.0-1", "<=", "1.0-1", true);
        check("1.0-1", ">>", "1.0-1", false);
        check("6.12.117-1", ">=", "6.12.94-1", true);
        assert_eq!(Operator::parse("=="), None);
    }

    /// Each sorts before the next (the cases of dpkg's own test, and some of the archive's).
    #[test]
    fn the_order_is_dpkgs() {
        let sorted = [
            "0~~",
            "0~",
            "0",
            "0-1",
            "0.0",
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0~bpo1",
            "1.0",
            "1.0-0.1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb13u1",
            "1.0-10",
            "1.0a",
            "1.0+1",
            "1.0.1",
            "1.2-1-1",
            "1.10",
            "2.004",
            "2.5",
            "20261121000000000000000000001",
            "20261121000000000000000000002",
            "1:0.1",
            "2:0~rc1",
            "10:0",
        ];
        for (index, left) in sorted.iter().enumerate() {
            for (other, right) in sorted.iter().enumerate() {
                assert_eq!(compare(left, right), index.cmp(&other), "{left} and {right}");
            }
        }
        for (left, right) in [("1.0", "1.0-0"), ("0:1", "1"), ("1.00", "1.0"), ("001", "1"), ("", "0")] {
            assert_eq!(compare(left, right), Ordering::Equal, "{left} and {right}");
        }
    }
}
