//! What can be wrong with bytes from the network.

use std::fmt;

/// Why a message could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// The message ends too early.
    Truncated,
    /// A name is malformed, too long, or compressed where it may not be.
    Name,
    /// More records, or other counts, than any honest sender uses.
    Counts,
    /// A record's data does not fit its type.
    Record,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "message ends too early",
            Self::Name => "malformed domain name",
            Self::Counts => "implausible record counts",
            Self::Record => "malformed record",
        })
    }
}

impl std::error::Error for WireError {}

/// Why an upstream's message is not the answer to what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerError {
    /// Not a response, another id, another opcode or another question: somebody guesses, or it is late.
    Unrelated,
    /// Related, but malformed.
    Wire(WireError),
}

impl From<WireError> for AnswerError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrelated => f.write_str("not an answer to the question asked"),
            Self::Wire(_) => f.write_str("malformed answer"),
        }
    }
}

impl std::error::Error for AnswerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unrelated => None,
            Self::Wire(error) => Some(error),
        }
    }
}
