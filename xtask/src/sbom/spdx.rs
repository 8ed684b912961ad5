//! Debian's licence names as SPDX identifiers, where both mean the same text for certain.
//!
//! Names that Debian uses for several texts (`BSD`, `MIT`, `Artistic`, `public-domain`) have none.

/// Debian's short name (machine-readable copyright format 1.0, section 7.1) → SPDX.
const EXACT: &[(&str, &str)] = &[
    ("0bsd", "0BSD"),
    ("apache-2.0", "Apache-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("bsl-1.0", "BSL-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("curl", "curl"),
    ("expat", "MIT"),
    ("fsfap", "FSFAP"),
    ("fsful", "FSFUL"),
    ("fsfullr", "FSFULLR"),
    ("isc", "ISC"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("unlicense", "Unlicense"),
    ("zlib", "Zlib"),
];

/// Families with a version and an optional `+`.
const FAMILIES: &[(&str, &str, &[&str])] = &[
    ("gpl-", "GPL", &["1.0", "2.0", "3.0"]),
    ("lgpl-", "LGPL", &["2.0", "2.1", "3.0"]),
    ("agpl-", "AGPL", &["1.0", "3.0"]),
    ("gfdl-niv-", "GFDL", &["1.1", "1.2", "1.3"]),
    ("gfdl-", "GFDL", &["1.1", "1.2", "1.3"]),
];

/// The SPDX identifier of one name, if there is one for certain.
#[must_use]
pub fn identifier(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    if let Some((_, id)) = EXACT.iter().find(|(debian, _)| *debian == name) {
        return Some((*id).to_owned());
    }
    FAMILIES.iter().find_map(|(prefix, family, versions)| {
        let rest = name.strip_prefix(prefix)?;
        let (version, suffix) = match rest.strip_suffix('+') {
            Some(version) => (version, "or-later"),
            None => (rest, "only"),
        };
        let version = if version.contains('.') { version.to_owned() } else { format!("{version}.0") };
        let invariants = if *prefix == "gfdl-niv-" { "no-invariants-" } else { "" };
        versions.contains(&version.as_str()).then(|| format!("{family}-{version}-{invariants}{suffix}"))
    })
}

/// A synopsis of names joined by `and`, `or` and commas as an SPDX expression, if every name has an identifier.
///
/// A comma binds weaker than the words (section 7.2): `A or B, and C` is `(A OR B) AND C`.
#[must_use]
pub fn expression(synopsis: &str) -> Option<String> {
    let groups: Vec<&str> = synopsis.split(',').collect();
    let whole = groups.len() == 1;
    let mut text = String::new();
    for group in groups {
        let (operator, group) = operator(group.trim());
        let one = group_expression(group)?;
        if !text.is_empty() {
            text.push_str(operator?);
        }
        text.push_str(&if whole || !one.contains(' ') { one } else { format!("({one})") });
    }
    Some(text)
}

fn operator(group: &str) -> (Option<&'static str>, &str) {
    for (word, operator) in [("and ", " AND "), ("or ", " OR ")] {
        if let Some(rest) = group.strip_prefix(word) {
            return (Some(operator), rest);
        }
    }
    (None, group)
}

fn group_expression(group: &str) -> Option<String> {
    let words: Vec<&str> = group.split_whitespace().collect();
    // Names and operators in turn; a mixture of both operators without a comma has no clear meaning.
    let operators: Vec<&str> = words.iter().skip(1).step_by(2).copied().collect();
    let joined = match operators.first() {
        None => " ",
        Some(&"and") => " AND ",
        Some(&"or") => " OR ",
        Some(_) => return None,
    };
    if words.len().is_multiple_of(2) || operators.iter().any(|operator| *operator != operators[0]) {
        return None;
    }
    let names: Option<Vec<String>> = words.iter().step_by(2).map(|name| identifier(name)).collect();
    Some(names?.join(joined))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(synopsis: &str, expect: Option<&str>) {
        assert_eq!(expression(synopsis).as_deref(), expect, "{synopsis}");
    }

    #[test]
    fn certain_names_have_identifiers() {
        check("Expat", Some("MIT"));
        check("GPL-2+", Some("GPL-2.0-or-later"));
        check("GPL-2", Some("GPL-2.0-only"));
        check("LGPL-2.1+", Some("LGPL-2.1-or-later"));
        check("GFDL-NIV-1.3+", Some("GFDL-1.3-no-invariants-or-later"));
        check("bsd-3-clause", Some("BSD-3-Clause"));
    }

    #[test]
    fn names_of_more_than_one_text_have_none() {
        for name in
            ["MIT", "BSD", "Artistic", "public-domain", "GPL", "GPL-4", "GPL-2+ with OpenSSL exception", ""]
        {
            check(name, None);
        }
    }

    #[test]
    fn operators_follow_the_format() {
        check("GPL-2+ or Expat", Some("GPL-2.0-or-later OR MIT"));
        check("GPL-2 or Expat, and Zlib", Some("(GPL-2.0-only OR MIT) AND Zlib"));
        check("GPL-2 and Expat or Zlib", None);
        check("GPL-2, Expat", None);
    }

    #[test]
    fn every_identifier_is_one_of_spdx() {
        let known = |id: &str| spdx::license_id(id).is_some();
        assert!(EXACT.iter().all(|(_, id)| known(id)));
        for (prefix, _, versions) in FAMILIES {
            for version in *versions {
                for plus in ["", "+"] {
                    let id = identifier(&format!("{prefix}{version}{plus}")).unwrap();
                    assert!(known(&id), "{id}");
                }
            }
        }
    }
}
