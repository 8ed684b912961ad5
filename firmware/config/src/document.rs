//! A TOML document with the place of every key and value.
//!
//! Reads tables by declared [`Shape`]s: unknown keys, missing keys and wrong types are reported where they
//! stand, and reading goes on, so that one look shows every mistake. (A serde derive stops at the first.)

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::report::Findings;

/// A value and where it stands in the file (bytes).
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// The keys of one kind of table.
#[derive(Debug)]
pub(crate) struct Shape {
    /// How people call it: `[office]`.
    pub(crate) title: &'static str,
    pub(crate) required: &'static [&'static str],
    pub(crate) optional: &'static [&'static str],
}

/// A table whose keys have been compared with its shape.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    entries: &'a DeTable<'a>,
    pub(crate) span: Range<usize>,
}

/// What is wrong with a string that should have been a value, and what would be right.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) help: String,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl<'a> Table<'a> {
    /// A table of which no shape is known (yet).
    pub(crate) fn unchecked(entries: &'a DeTable<'a>) -> Self {
        Self { entries, span: 0..0 }
    }

    /// Compares the keys with `shape` and reports unknown and missing ones.
    pub(crate) fn open(
        entries: &'a DeTable<'a>,
        span: Range<usize>,
        shape: &Shape,
        findings: &mut Findings,
    ) -> Self {
        let table = Self { entries, span };
        for key in entries.keys() {
            let name: &str = key.get_ref();
            if !shape.required.contains(&name) && !shape.optional.contains(&name) {
                let help = format!("allowed in {}: {}", shape.title, shape.all().join(", "));
                findings.add(&key.span(), format!("unknown key `{name}`"), help);
            }
        }
        for name in shape.required.iter().filter(|name| table.get(name).is_none()) {
            let help = format!("required in {}: {}", shape.title, shape.required.join(", "));
            findings.add(&table.span, format!("missing key `{name}`"), help);
        }
        table
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries.get(key)
    }

    pub(crate) fn string(&self, key: &str, findings: &mut Findings) -> Option<At<String>> {
        as_string(key, self.get(key)?, findings)
    }

    /// A string that `parse` turns into a value.
    pub(crate) fn parsed<T>(
        &self,
        key: &str,
        findings: &mut Findings,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        parse_at(self.string(key, findings)?, findings, &parse)
    }

    /// An array of strings that `parse` turns into values. Absent is nothing, not an empty list.
    pub(crate) fn parsed_list<T>(
        &self,
        key: &str,
        findings: &mut Findings,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<At<Vec<At<T>>>> {
        let value = self.get(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            wrong_type(key, value, "an array of strings", findings);
            return None;
        };
        let mut list = Vec::new();
        for item in items.iter() {
            let text = as_string(key, item, findings);
            list.extend(text.and_then(|text| parse_at(text, findings, &parse)));
        }
        Some(At { value: list, span: value.span() })
    }

    pub(crate) fn boolean(&self, key: &str, findings: &mut Findings) -> Option<At<bool>> {
        let value = self.get(key)?;
        if let DeValue::Boolean(boolean) = value.get_ref() {
            return Some(At { value: *boolean, span: value.span() });
        }
        wrong_type(key, value, "true or false", findings);
        None
    }

    pub(crate) fn integer(&self, key: &str, findings: &mut Findings) -> Option<At<i64>> {
        let value = self.get(key)?;
        if let DeValue::Integer(integer) = value.get_ref()
            && let Ok(number) = i64::from_str_radix(integer.as_str(), integer.radix())
        {
            return Some(At { value: number, span: value.span() });
        }
        wrong_type(key, value, "a whole number", findings);
        None
    }

    /// The sub-table `key`, compared with its shape.
    pub(crate) fn table(&self, key: &str, shape: &Shape, findings: &mut Findings) -> Option<Table<'a>> {
        let value = self.get(key)?;
        if let DeValue::Table(entries) = value.get_ref() {
            return Some(Table::open(entries, value.span(), shape, findings));
        }
        wrong_type(key, value, &format!("a table {}", shape.title), findings);
        None
    }

    /// The array of tables `key`, each compared with the shape; absent is empty.
    pub(crate) fn tables(&self, key: &str, shape: &Shape, findings: &mut Findings) -> Vec<Table<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let expected = format!("tables {}", shape.title);
        let DeValue::Array(items) = value.get_ref() else {
            wrong_type(key, value, &expected, findings);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(entries) => {
                    tables.push(Table::open(entries, item.span(), shape, findings));
                }
                _ => wrong_type(key, item, &expected, findings),
            }
        }
        tables
    }
}

impl Shape {
    fn all(&self) -> Vec<&'static str> {
        self.required.iter().chain(self.optional).copied().collect()
    }
}

fn as_string(key: &str, value: &Spanned<DeValue<'_>>, findings: &mut Findings) -> Option<At<String>> {
    if let DeValue::String(text) = value.get_ref() {
        return Some(At { value: text.clone().into_owned(), span: value.span() });
    }
    wrong_type(key, value, "a string in quotes", findings);
    None
}

fn parse_at<T>(
    text: At<String>,
    findings: &mut Findings,
    parse: &impl Fn(&str) -> Result<T, Wrong>,
) -> Option<At<T>> {
    match parse(&text.value) {
        Ok(value) => Some(At { value, span: text.span }),
        Err(wrong) => {
            findings.add(&text.span, wrong.message, wrong.help);
            None
        }
    }
}

fn wrong_type(key: &str, value: &Spanned<DeValue<'_>>, expected: &str, findings: &mut Findings) {
    let is = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    // A number can be of the right type and still too big to be any.
    let message = if is == expected {
        format!("`{key}` is too big a number")
    } else {
        format!("`{key}` has the wrong type: {is}")
    };
    findings.add(&value.span(), message, format!("expected {expected}"));
}
