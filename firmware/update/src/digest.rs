//! A SHA-256 as it stands in documents and in names of files: 64 lower-case hexadecimal digits and nothing else.
//!
//! Objects of a repository are named by it, so that no name from outside ever becomes a path.

use std::fmt;

use serde::{Deserialize, Serialize};

const DIGITS: usize = 64;

/// The digits, checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Hex(String);

/// A text that is no SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestError;

impl fmt::Display for DigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a SHA-256 is {DIGITS} lower-case hexadecimal digits")
    }
}

impl std::error::Error for DigestError {}

impl Sha256Hex {
    /// Of a digest as bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; DIGITS / 2]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digest as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; DIGITS / 2] {
        let digit = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
        let digits = self.0.as_bytes();
        std::array::from_fn(|place| digit(digits[2 * place]) << 4 | digit(digits[2 * place + 1]))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        let plain =
            text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if plain { Ok(Self(text)) } else { Err(DigestError) }
    }
}

impl From<Sha256Hex> for String {
    fn from(digest: Sha256Hex) -> Self {
        digest.0
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_digits() {
        assert!(Sha256Hex::try_from("0f".repeat(32)).is_ok());
        for text in [String::new(), "0F".repeat(32), "0f".repeat(31), format!("../{}", "0".repeat(61))] {
            assert_eq!(Sha256Hex::try_from(text), Err(DigestError));
        }
    }
}
