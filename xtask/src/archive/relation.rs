//! Dependency fields of binary packages: groups of alternatives (Debian policy, section 7.1).

use super::version::Operator;

/// What the field may say about the architecture of a named package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qualifier {
    /// No qualifier: the depending package's own architecture, or `all`.
    Native,
    /// `:any`: any architecture, if the package says `Multi-Arch: allowed`.
    Any,
    /// An architecture we do not build for; never satisfied.
    Foreign,
}

/// One named package with an optional version bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Package or virtual package.
    pub name: String,
    /// Architecture qualifier.
    pub qualifier: Qualifier,
    /// Version bound.
    pub bound: Option<(Operator, String)>,
}

impl Relation {
    /// A bare name without bounds.
    pub fn named(name: &str) -> Self {
        Relation { name: name.to_owned(), qualifier: Qualifier::Native, bound: None }
    }

    /// Whether `version` is within the bound.
    pub fn admits(&self, version: &str) -> bool {
        self.bound.as_ref().is_none_or(|(operator, bound)| operator.holds(version, bound))
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match self.qualifier {
            Qualifier::Native => {}
            Qualifier::Any => f.write_str(":any")?,
            Qualifier::Foreign => f.write_str(":foreign")?,
        }
        let Some((operator, version)) = &self.bound else { return Ok(()) };
        let sign = match operator {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        };
        write!(f, " ({sign} {version})")
    }
}

/// Alternatives, any one of which is enough.
pub type Group = Vec<Relation>;

/// Parses a field such as `Depends`: groups by comma, alternatives by `|`.
///
/// A relation that cannot be read is reported: leaving it out would make a set incomplete without a word.
pub fn parse(field: &str) -> Result<Vec<Group>, String> {
    field
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(|group| group.split('|').map(|text| parse_one(text.trim())).collect())
        .collect()
}

fn parse_one(text: &str) -> Result<Relation, String> {
    let malformed = || format!("malformed relation {text:?}");
    let (head, bound) = match text.split_once('(') {
        Some((head, rest)) => {
            let (inside, _) = rest.split_once(')').ok_or_else(malformed)?;
            (head.trim(), Some(parse_bound(inside.trim()).ok_or_else(malformed)?))
        }
        None => (text.split_whitespace().next().ok_or_else(malformed)?, None),
    };
    let (name, qualifier) = match head.split_once(':') {
        Some((name, "any")) => (name, Qualifier::Any),
        Some((name, "native" | "amd64" | "all")) => (name, Qualifier::Native),
        Some((name, _)) => (name, Qualifier::Foreign),
        None => (head, Qualifier::Native),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if name.is_empty() || !name.chars().all(legal) {
        return Err(malformed());
    }
    Ok(Relation { name: name.to_owned(), qualifier, bound })
}

fn parse_bound(text: &str) -> Option<(Operator, String)> {
    let split = text.find(|c: char| !"<>=".contains(c))?;
    let version = text[split..].trim();
    (!version.is_empty()).then_some(())?;
    Some((Operator::parse(&text[..split])?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(field: &str, expect: &str) {
        let groups = parse(field).unwrap();
        let shown: Vec<String> = groups
            .iter()
            .map(|group| group.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | "))
            .collect();
        assert_eq!(shown.join(", "), expect);
    }

    #[test]
    fn fields_are_read_as_policy_says() {
        check("libc6 (>= 2.38), a|b (<<1:2~)", "libc6 (>= 2.38), a | b (<< 1:2~)");
        check("python3:any, perl:amd64 (>= 5), x:i386", "python3:any, perl (>= 5), x:foreign");
        check(" , ", "");
        check("x (= 1.0-1+b2)", "x (= 1.0-1+b2)");
    }

    #[test]
    fn malformed_fields_are_reported() {
        for field in ["a (>= )", "a (~ 1)", "a (>= 1", "a | ", "a/b"] {
            assert!(parse(field).is_err(), "{field}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(field in "[a-z0-9:|,()<>=~.+ -]{0,60}") {
            if let Ok(groups) = parse(&field) {
                for relation in groups.iter().flatten() {
                    // What is shown reads back as the same.
                    let again = parse(&relation.to_string().replace(":foreign", ":x")).unwrap();
                    proptest::prop_assert_eq!(&again, &vec![vec![relation.clone()]]);
                    relation.admits("1:2.0~rc1-3+b4");
                }
            }
        }
    }
}
