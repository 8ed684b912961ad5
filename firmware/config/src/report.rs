//! What is wrong with a file, shown the way a compiler shows it.

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
    /// At least one.
    pub diagnostics: Vec<Diagnostic>,
}
