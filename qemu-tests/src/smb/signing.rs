//! Signatures of SMB 3.0 ([MS-SMB2], sections 3.1.4.1 and 3.1.4.2): AES-128-CMAC under a key made from the session's.

use aes::Aes128;
use anyhow::{Context, Result, ensure};
use cmac::Cmac;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::message::{HEADER, SIGNATURE, SIGNED};

/// What signs and checks one session's messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key([u8; 16]);

impl Key {
    /// From the session's key: one step of the counter mode of SP 800-108, with HMAC-SHA-256.
    pub(super) fn of_session(session_key: &[u8; 16]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(session_key).expect("any length is a key");
        // Counter, label, a zero, context, length in bits.
        for part in [&[0, 0, 0, 1][..], b"SMB2AESCMAC\0", &[0], b"SmbSign\0", &[0, 0, 0, 128]] {
            mac.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        Self(key)
    }

    /// Signs a whole message.
    pub(super) fn sign(&self, message: &mut [u8]) {
        message[16] |= SIGNED;
        let signature = self.signature(message);
        message[SIGNATURE].copy_from_slice(&signature);
    }

    /// Whether a whole message is signed, and rightly.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn check(&self, message: &[u8]) -> Result<()> {
        let flags = message.get(16).filter(|_| message.len() >= HEADER).context("too short for a message")?;
        ensure!(flags & SIGNED != 0, "an unsigned answer");
        ensure!(message[SIGNATURE] == self.signature(message), "an answer with a wrong signature");
        Ok(())
    }

    /// Over all of it, with zeros where the signature is.
    fn signature(&self, message: &[u8]) -> [u8; 16] {
        let mut mac = Cmac::<Aes128>::new(&self.0.into());
        mac.update(&message[..SIGNATURE.start]);
        mac.update(&[0; 16]);
        mac.update(&message[SIGNATURE.end..]);
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example for SMB 3.0 in Microsoft's "anatomy of signing and cryptographic keys".
    #[test]
    fn the_key_of_a_documented_session() {
        let session = 0x7cd4_5182_5d04_50d2_3542_4e44_ba6e_78cc_u128;
        let key = Key::of_session(&session.to_be_bytes());
        assert_eq!(u128::from_be_bytes(key.0), 0x0b7e_9c5c_ac36_c0f6_ea9a_b275_298c_edce);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let key = Key([7; 16]);
        let mut message = vec![0x5a; HEADER + 10];
        assert!(key.check(&message).is_err());
        key.sign(&mut message);
        key.check(&message).unwrap();
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert!(key.check(&changed).is_err(), "byte {at}");
        }
        assert!(key.check(&message[..HEADER - 1]).is_err());
    }
}
