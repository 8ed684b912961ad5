//! Digests: of a whole image, and of its parts.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// SHA-256 of a whole image, as the signed manifest has it.
pub type Sha256Sum = [u8; 32];

/// The first 128 bits of a part's SHA-256: enough that two parts of any images ever made do not meet by chance. Who could
/// make them meet on purpose would still not get past the SHA-256 of the whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; Digest::BYTES]);

impl Digest {
    /// Its length.
    pub const BYTES: usize = 16;

    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let whole: Sha256Sum = sha256(bytes);
        let mut first = [0; Self::BYTES];
        first.copy_from_slice(&whole[..Self::BYTES]);
        Self(first)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// SHA-256 of these bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Sha256Sum {
    Sha256::digest(bytes).into()
}
