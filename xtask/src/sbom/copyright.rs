//! A package's `copyright` file: the licences its machine-readable form names.
//!
//! Free text (Debian policy, section 12.5, allows it) is not interpreted: it counts as one licence named by its hash.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::component::Licence;
use super::spdx;
use crate::archive::hex;

/// How a machine-readable file's first paragraph begins (copyright format 1.0, section 4).
const FORMAT: &str = "format";

/// The licences of a copyright file, sorted.
#[must_use]
pub fn licences(bytes: &[u8]) -> Vec<Licence> {
    let text = String::from_utf8_lossy(bytes);
    let synopses = synopses(&text);
    if synopses.is_empty() {
        return vec![Licence::Name(format!("LicenseRef-copyright-{}", &hex(&Sha256::digest(bytes))[..16]))];
    }
    let licences: BTreeSet<Licence> = synopses.iter().map(|synopsis| licence(synopsis)).collect();
    licences.into_iter().collect()
}

/// Whether the file follows the machine-readable format.
#[must_use]
pub fn is_machine_readable(bytes: &[u8]) -> bool {
    !synopses(&String::from_utf8_lossy(bytes)).is_empty()
}

fn licence(synopsis: &str) -> Licence {
    match spdx::expression(synopsis) {
        Some(expression) if !expression.contains(' ') => Licence::Id(expression),
        // Among other licences CycloneDX takes a name, but no expression.
        Some(expression) => Licence::Name(expression),
        None => Licence::Name(synopsis.to_owned()),
    }
}

/// The first lines of the `License` fields of paragraphs about files.
fn synopses(text: &str) -> BTreeSet<String> {
    let mut paragraphs = text.split("\n\n").map(str::trim_start).filter(|paragraph| !paragraph.is_empty());
    let is_format =
        |header: &str| header.split_once(':').is_some_and(|(field, _)| field.eq_ignore_ascii_case(FORMAT));
    let Some(header) = paragraphs.next().filter(|header| is_format(header)) else { return BTreeSet::new() };
    // The header may name the licence of the package as a whole.
    std::iter::once(header)
        .chain(paragraphs.filter(|paragraph| field(paragraph, "Files").is_some()))
        .filter_map(|paragraph| field(paragraph, "License"))
        .map(|synopsis| synopsis.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|synopsis| !synopsis.is_empty())
        .collect()
}

/// The first line of a field.
fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    paragraph.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[Licence]) {
        assert_eq!(licences(text.as_bytes()), expect);
    }

    #[test]
    fn the_licences_of_files_are_listed_once() {
        check(
            "Format: https://example/1.0/\nUpstream-Name: x\n\nFiles: *\nCopyright: A\nLicense: GPL-2+\n\
             \nFiles: b\nCopyright: B\nlicense: GPL-2+ or Expat\n text\n\nFiles: c\nLicense: BSD\n\
             \nFiles: d\nLicense: GPL-2+\n\nLicense: LGPL-3\n stands alone\n",
            &[
                Licence::Id("GPL-2.0-or-later".into()),
                Licence::Name("BSD".into()),
                Licence::Name("GPL-2.0-or-later OR MIT".into()),
            ],
        );
    }

    #[test]
    fn free_text_is_named_by_its_hash() {
        let text = "This package was made by\n\nLicense: GPL-2, more or less\n";
        let [Licence::Name(name)] = &licences(text.as_bytes())[..] else { panic!("not one name") };
        assert!(name.starts_with("LicenseRef-copyright-"), "{name}");
        assert!(!is_machine_readable(text.as_bytes()));
    }
}
