//! What is wrong with a file, shown the way a compiler shows it.
//!
//! Owns the rendering and the way from byte offsets to lines and columns. The quoted text comes from a
//! file nobody has checked: control characters never reach the terminal, and both the number of mistakes
//! and the length of a quoted line are bounded, because reports are kept in status files.

use std::fmt;
use std::ops::Range;

/// How many mistakes one report keeps; more than a screenful helps nobody, and a report is stored in RAM.
const MAX_DIAGNOSTICS: usize = 20;
/// How many characters of a source line are quoted.
const MAX_QUOTE: usize = 100;

/// One mistake: where it is and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// 1-based line.
    pub line: usize,
    /// 1-based column, in characters.
    pub column: usize,
    /// How many characters the caret underlines (at least 1).
    pub width: usize,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What is allowed here, if that is not obvious.
    pub help: Option<String>,
}

/// Every mistake found in one file, in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Name of the file as the user knows it.
    pub file: String,
    /// The file's text, for the quoted lines.
    pub text: String,
    /// At least one, at most 20.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there are.
    pub omitted: usize,
}

impl Report {
    /// A report about the file as a whole, when its text is of no use (too big, not UTF-8).
    #[must_use]
    pub fn about_file(file: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        let diagnostic = Diagnostic { line: 1, column: 1, width: 1, message: message.into(), help };
        Self { file: file.to_owned(), text: String::new(), diagnostics: vec![diagnostic], omitted: 0 }
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            self.render(diagnostic, f)?;
        }
        if self.omitted > 0 {
            writeln!(f, "\n… and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl Report {
    fn render(&self, diagnostic: &Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { line, column, .. } = *diagnostic;
        let margin = " ".repeat(line.to_string().len());
        writeln!(f, "error: {}", printable(&diagnostic.message))?;
        writeln!(f, "{margin}--> {}:{line}:{column}", printable(&self.file))?;
        if let Some(source) = self.text.lines().nth(line - 1) {
            let (quote, start) = quote(source, column - 1);
            let room = quote.chars().count().saturating_sub(start).max(1);
            let carets = "^".repeat(diagnostic.width.min(room));
            writeln!(f, "{margin} |")?;
            writeln!(f, "{line} | {quote}")?;
            writeln!(f, "{margin} | {}{carets}", " ".repeat(start))?;
        }
        if let Some(help) = &diagnostic.help {
            writeln!(f, "{margin} |\n{margin} = help: {}", printable(help))?;
        }
        Ok(())
    }
}

/// The part of a line that is shown, and where in it the column is.
fn quote(source: &str, column: usize) -> (String, usize) {
    let skip = if column < MAX_QUOTE - 20 { 0 } else { column - 20 };
    let shown: String = source.chars().skip(skip).take(MAX_QUOTE).collect();
    let shown = printable(shown.trim_end());
    if skip == 0 { (shown, column) } else { (format!("…{shown}"), column - skip + 1) }
}

/// The text without control characters, so that a file cannot steer the operator's terminal; one
/// character stays one character.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Mistakes as they are found, by byte offset.
#[derive(Debug)]
pub(crate) struct Findings<'t> {
    file: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
    found: Vec<(Range<usize>, String, Option<String>)>,
    secrets: Vec<Range<usize>>,
}

impl<'t> Findings<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, line_starts, found: Vec::new(), secrets: Vec::new() }
    }

    /// Notes a mistake at `span` (bytes); `help` says what is allowed, and may be empty.
    pub(crate) fn add(&mut self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.found.push((span.clone(), message.into(), help));
    }

    /// Blanks `span` in the report's text: reports are kept and shown where the file itself is not.
    pub(crate) fn conceal(&mut self, span: &Range<usize>) {
        self.secrets.push(span.clone());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// 1-based line of a byte offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }

    /// The report in file order, or nothing when nothing was found.
    pub(crate) fn into_report(mut self) -> Option<Report> {
        self.found.sort_by_key(|(span, ..)| span.start);
        let omitted = self.found.len().saturating_sub(MAX_DIAGNOSTICS);
        let found = std::mem::take(&mut self.found);
        let diagnostics: Vec<_> =
            found.into_iter().take(MAX_DIAGNOSTICS).map(|found| self.locate(found)).collect();
        let (file, text) = (self.file.to_owned(), self.concealed());
        (!diagnostics.is_empty()).then_some(Report { file, text, diagnostics, omitted })
    }

    fn concealed(&self) -> String {
        let secret = |at: usize| self.secrets.iter().any(|span| span.contains(&at));
        if self.secrets.is_empty() {
            return self.text.to_owned();
        }
        let blank = |(at, c)| if secret(at) && c != '\n' { '*' } else { c };
        self.text.char_indices().map(blank).collect()
    }

    fn locate(&self, (span, message, help): (Range<usize>, String, Option<String>)) -> Diagnostic {
        let start = self.floor(span.start);
        let line = self.line(start);
        let line_start = self.line_starts[line - 1];
        let line_end = self.text[line_start..].find('\n').map_or(self.text.len(), |end| line_start + end);
        let end = self.floor(span.end).clamp(start, line_end.max(start));
        let column = self.text[line_start..start].chars().count() + 1;
        let width = self.text[start..end].trim_end().chars().count().max(1);
        Diagnostic { line, column, width, message, help }
    }

    /// The character boundary at or before `offset`.
    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}
