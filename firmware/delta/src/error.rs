//! What can go wrong with a form of an image.

use std::fmt;
use std::io;

/// Why an image could not be described or put together.
#[derive(Debug)]
pub enum Error {
    /// A file of the release is not what it should be; another try with the same file will not help.
    Malformed(&'static str),
    /// A part is not what its digest says: damaged on the way, or on the disk it was read from. Try again.
    Damaged {
        /// What kind of part.
        part: &'static str,
        /// Where in the image.
        offset: u64,
    },
    /// Reading or writing failed.
    Io(io::Error),
}

impl Error {
    /// Whether the same attempt may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Malformed(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::Damaged { part, offset } => write!(f, "the {part} at {offset} is damaged"),
            Self::Io(_) => f.write_str("input or output failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Malformed(_) | Self::Damaged { .. } => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
