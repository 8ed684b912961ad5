//! The schema of a site file: which one it has, and how one of an older schema is read.
//!
//! Only what was read is brought up, never the file: on the disk stays what the operator has written, comments included, and
//! errors name its own lines.

use toml::de::DeTable;

use crate::document::Table;
use crate::report::Findings;

/// From one schema to the next, in what was read: keys get their new names and places, with the spans they had.
pub(crate) type Step = fn(&mut DeTable<'_>);

/// From schema 1 on.
pub(crate) const STEPS: &[Step] = &[];

/// Brings a document to the newest schema; nothing (and a finding) when it has one that is not known.
pub(crate) fn bring_up(document: &mut DeTable<'_>, steps: &[Step], findings: &mut Findings) -> Option<()> {
    let newest = 1 + steps.len();
    // One that is missing, or no number, is reported with all other keys.
    let Some(schema) = Table::unchecked(document).integer("schema", findings) else { return Some(()) };
    let known = usize::try_from(schema.value).ok().filter(|number| (1..=newest).contains(number));
    let Some(found) = known else {
        // Under another schema every other complaint would be misleading.
        let number = schema.value;
        let is_newer = usize::try_from(number).is_ok_and(|number| number > newest);
        let message = if is_newer {
            format!("the file has schema {number}, which only newer releases read")
        } else {
            format!("unknown schema {number}")
        };
        let knows = if newest == 1 { "schema 1".to_owned() } else { format!("the schemas 1 to {newest}") };
        findings.add(&schema.span, message, format!("this firmware reads {knows}"));
        return None;
    };
    steps[found - 1..].iter().for_each(|step| step(document));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Findings;

    /// In schema 2 of this test `[name-service]` is `[dns]`.
    const RENAMED: Step = |document| {
        if let Some((key, value)) = document.remove_entry("name-service") {
            let span = key.span();
            document.insert(toml::Spanned::new(span, "dns".into()), value);
        }
    };

    #[track_caller]
    fn check(text: &str, steps: &[Step], expect: Result<&[&str], &str>) {
        let (document, errors) = DeTable::parse_recoverable(text);
        assert!(errors.is_empty(), "{errors:?}");
        let mut document = document.into_inner();
        let mut findings = Findings::new("site.toml", text);
        let known = bring_up(&mut document, steps, &mut findings).is_some();
        let report = findings.into_report().map(|report| report.to_string());
        match (expect, report) {
            (Ok(keys), None) => {
                let found: Vec<_> = document.keys().map(|key| key.get_ref().to_string()).collect();
                assert_eq!((known, found), (true, keys.iter().map(|key| (*key).to_owned()).collect()));
            }
            (Err(part), Some(report)) => assert!(!known && report.contains(part), "{report}"),
            (expect, report) => panic!("{report:?} instead of {expect:?}"),
        }
    }

    #[test]
    fn a_file_of_an_older_schema_is_brought_up() {
        let steps = &[RENAMED][..];
        check("schema = 1\n[name-service]\n", steps, Ok(&["dns", "schema"]));
        check("schema = 2\n[name-service]\n", steps, Ok(&["name-service", "schema"]));
        check("[name-service]\n", steps, Ok(&["name-service"]));
    }

    #[test]
    fn one_of_a_newer_schema_is_refused_where_it_says_so() {
        check(
            "# ours\nschema = 3\n",
            &[RENAMED],
            Err("the file has schema 3, which only newer releases read"),
        );
        check("# ours\nschema = 3\n", &[RENAMED], Err("site.toml:2:10"));
        check("schema = 3\n", &[RENAMED], Err("this firmware reads the schemas 1 to 2"));
        check("schema = 0\n", &[RENAMED], Err("unknown schema 0"));
    }
}
