//! Debian versions: order and the relation operators of dependency fields (Debian policy, section 5.6.12 and 7.1).

use std::cmp::Ordering;
use std::str::FromStr;

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

/// The order of two versions; a text that is no version sorts before every version.
pub fn compare(left: &str, right: &str) -> Ordering {
    if left == right {
        return Ordering::Equal;
    }
    let parse = |text| debversion::Version::from_str(text).ok();
    parse(left).cmp(&parse(right)).then_with(|| match (parse(left), parse(right)) {
        (None, None) => left.cmp(right),
        _ => Ordering::Equal,
    })
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
}
