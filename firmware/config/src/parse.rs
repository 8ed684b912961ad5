//! From text to [`Site`], stage by stage.

use toml::de::DeTable;

use crate::board::Board;
use crate::report::{Findings, Report};
use crate::site::Site;
use crate::{check, raw, schema};

/// The biggest site file that is looked at: thousands of reservations, and still nothing for the RAM of
/// the smallest box.
pub const MAX_SITE_SIZE: usize = 256 * 1024;

const DEFAULT_TEXT: &str = include_str!("default.toml");

impl Site {
    /// Parses and validates a site file for a board.
    ///
    /// # Errors
    /// A [`Report`] with every mistake of the first stage that found any.
    pub fn parse(file_name: &str, text: &str, board: &Board) -> Result<Self, Report> {
        if text.len() > MAX_SITE_SIZE {
            let message = format!("the file is too big: {} bytes", text.len());
            return Err(Report::about_file(file_name, message, format!("at most {MAX_SITE_SIZE} bytes")));
        }
        let mut findings = Findings::new(file_name, text);
        let site = read(text, board, &mut findings);
        match (findings.into_report(), site) {
            (None, Some(site)) => Ok(site),
            (Some(report), _) => Err(report),
            (None, None) => Err(Report::about_file(file_name, "the file describes no site", "")),
        }
    }

    /// Like [`Site::parse`], for bytes of unknown origin.
    ///
    /// # Errors
    /// As [`Site::parse`], and when the bytes are not UTF-8.
    pub fn parse_bytes(file_name: &str, bytes: &[u8], board: &Board) -> Result<Self, Report> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            let message = format!("the file is not UTF-8 text (line {line})");
            Report::about_file(file_name, message, "save it as UTF-8")
        })?;
        Self::parse(file_name, text, board)
    }

    /// The text of the default site: the one in force on a box without a site file.
    #[must_use]
    pub fn default_text() -> &'static str {
        DEFAULT_TEXT
    }

    /// The default site. Its ports are those every board has; a board without them is reported.
    ///
    /// # Errors
    /// A [`Report`] when the board lacks `port1` or `port2`.
    pub fn default_site(board: &Board) -> Result<Self, Report> {
        Self::parse("default.toml", DEFAULT_TEXT, board)
    }
}

fn read(text: &str, board: &Board, findings: &mut Findings) -> Option<Site> {
    let (document, errors) = DeTable::parse_recoverable(text);
    // One syntax error shifts everything behind it: only the first is told.
    if let Some(error) = errors.first() {
        findings.add(&error.span().unwrap_or(0..0), error.message(), "");
        return None;
    }
    let mut document = document.into_inner();
    schema::bring_up(&mut document, schema::STEPS, findings)?;
    let raw = raw::read(&document, findings)?;
    if !findings.is_empty() {
        return None;
    }
    check::site(&raw, board, findings);
    findings.is_empty().then(|| raw.into_site())
}
