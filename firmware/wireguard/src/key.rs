//! Keys of Curve25519, and how people read them: base64, 44 characters.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Octets of a key.
const KEY_LENGTH: usize = 32;

/// What the other end is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; KEY_LENGTH]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What nobody is told: it has no `Display`, and its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey([u8; KEY_LENGTH]);

impl PrivateKey {
    /// From random octets, or from what the kernel says. Clamped as the kernel does it (RFC 7748, section 5), so that two can be
    /// compared.
    #[must_use]
    pub fn new(mut octets: [u8; KEY_LENGTH]) -> Self {
        octets[0] &= 248;
        octets[31] = octets[31] & 127 | 64;
        Self(octets)
    }

    /// For the kernel.
    #[must_use]
    pub fn octets(&self) -> [u8; KEY_LENGTH] {
        self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    /// The error must not hold the text: it goes into logs.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octets = STANDARD.decode(text).ok().and_then(|octets| octets.try_into().ok());
        octets.map(Self::new).ok_or_else(|| de::Error::custom("a private key is 44 characters of base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_is_not_shown() {
        let key = PrivateKey::new([0xff; 32]);
        assert_eq!((key.octets()[0], key.octets()[31]), (0xf8, 0x7f));
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text.len(), 46);
        assert_eq!(serde_json::from_str::<PrivateKey>(&text).unwrap(), key);
        assert_eq!(format!("{key:?}"), "PrivateKey");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in ["", "c2VjcmV0", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "!secret!"] {
            let error = serde_json::from_str::<PrivateKey>(&format!("{text:?}")).unwrap_err().to_string();
            assert!(error.contains("44 characters") && !error.contains("c2Vj"), "{error}");
        }
    }

    #[test]
    fn a_public_key_reads_as_wg_shows_it() {
        let mut octets = [0; 32];
        octets[31] = 1;
        assert_eq!(PublicKey(octets).to_string(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=");
    }
}
