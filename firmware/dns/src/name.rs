//! Domain names in wire form (RFC 1035 §3.1), lower case, without compression.
//!
//! A [`Name`] is a fixed-size value: reading one from a query allocates nothing, and comparing two is a
//! comparison of bytes because ASCII case is folded on the way in (RFC 4343).

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::error::WireError;

/// Longest name on the wire, root label included (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 255;
/// Longest label (RFC 1035 §2.3.4).
pub const MAX_LABEL: usize = 63;

/// A domain name, lower case.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    octets: [u8; MAX_NAME],
}

impl Name {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self { len: 1, octets: [0; MAX_NAME] }
    }

    /// Reads an uncompressed name at `at`; also returns where it ends.
    ///
    /// # Errors
    /// [`WireError::Truncated`] past the end; [`WireError::Name`] on a compression pointer (a question has
    /// nothing to point at), an extended label type or more than 255 octets.
    #[inline]
    pub fn read(message: &[u8], at: usize) -> Result<(Self, usize), WireError> {
        let mut end = at;
        loop {
            let length = usize::from(*message.get(end).ok_or(WireError::Truncated)?);
            if length > MAX_LABEL {
                return Err(WireError::Name);
            }
            end += 1 + length;
            if end - at > MAX_NAME {
                return Err(WireError::Name);
            }
            if length == 0 {
                break;
            }
        }
        let mut name = Self::root();
        let wire = message.get(at..end).ok_or(WireError::Truncated)?;
        let octets = &mut name.octets[..wire.len()];
        octets.copy_from_slice(wire);
        // Length octets are below 64 and so never look like upper-case letters (65..=90).
        octets.make_ascii_lowercase();
        name.len = u8::try_from(wire.len()).map_err(|_| WireError::Name)?;
        Ok((name, end))
    }

    /// From dotted text; a trailing dot is optional.
    ///
    /// # Errors
    /// [`WireError::Name`] on empty or long labels, long names, or bytes outside `a-z A-Z 0-9 - _`.
    pub fn from_text(text: &str) -> Result<Self, WireError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            push_label(&mut wire, label)?;
        }
        wire.push(0);
        Self::read(&wire, 0).map(|(name, _)| name)
    }

    /// `label` in front of this name.
    ///
    /// # Errors
    /// As [`Name::from_text`].
    pub fn child(&self, label: &str) -> Result<Self, WireError> {
        let mut wire = Vec::with_capacity(label.len() + 1 + self.wire().len());
        push_label(&mut wire, label)?;
        wire.extend_from_slice(self.wire());
        Self::read(&wire, 0).map(|(name, _)| name)
    }

    /// Wire form, root label included.
    #[must_use]
    #[inline]
    pub fn wire(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }

    /// Labels from the left with their offset in [`Name::wire`]; without the root.
    pub fn labels(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let wire = self.wire();
        let mut at = 0;
        std::iter::from_fn(move || {
            let length = usize::from(*wire.get(at)?);
            let label = wire.get(at + 1..at + 1 + length).filter(|label| !label.is_empty())?;
            let start = at;
            at += 1 + length;
            Some((start, label))
        })
    }

    /// Offset in [`Name::wire`] at which `ancestor` begins, if this name is `ancestor` or below it.
    #[must_use]
    pub fn offset_of(&self, ancestor: &Name) -> Option<usize> {
        let start = self.wire().len().checked_sub(ancestor.wire().len())?;
        if self.wire()[start..] != *ancestor.wire() {
            return None;
        }
        let on_boundary = ancestor.len == 1 || self.labels().any(|(at, _)| at == start);
        on_boundary.then_some(start)
    }
}

fn push_label(wire: &mut Vec<u8>, label: &str) -> Result<(), WireError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if label.is_empty() || label.len() > MAX_LABEL || !label.bytes().all(allowed) {
        return Err(WireError::Name);
    }
    wire.push(u8::try_from(label.len()).map_err(|_| WireError::Name)?);
    wire.extend_from_slice(label.as_bytes());
    Ok(())
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.wire() == other.wire()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.wire().hash(state);
    }
}

impl fmt::Display for Name {
    /// Master-file form with a trailing dot; unprintable bytes as `\DDD` (RFC 1035 §5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == 1 {
            return f.write_str(".");
        }
        for (_, label) in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                    b'!'..=b'~' => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_folds_case() {
        let name = Name::from_text("Printer.Office.Internal.").unwrap();
        assert_eq!(name.to_string(), "printer.office.internal.");
        assert_eq!(Name::from_text("").unwrap(), Name::root());
    }

    #[test]
    fn bad_text_is_refused() {
        for text in ["a..b", ".a", "a b", &"x".repeat(64), &"abcdefg.".repeat(40)] {
            assert_eq!(Name::from_text(text), Err(WireError::Name), "{text}");
        }
    }

    #[test]
    fn ancestors_are_found_on_label_boundaries_only() {
        let domain = Name::from_text("office.internal").unwrap();
        let below = Name::from_text("nas.office.internal").unwrap();
        assert_eq!(below.offset_of(&domain), Some(4));
        assert_eq!(domain.offset_of(&domain), Some(0));
        assert_eq!(Name::from_text("xoffice.internal").unwrap().offset_of(&domain), None);
        assert_eq!(below.offset_of(&Name::root()), Some(20));
        // A label that contains the bytes of the ancestor's wire form is not below it.
        let (trick, _) = Name::read(b"\x11a\x06office\x08internal\x00", 0).unwrap();
        assert_eq!(trick.offset_of(&domain), None);
    }

    #[test]
    fn pointers_and_overlong_names_are_refused() {
        assert_eq!(Name::read(&[0xc0, 0], 0), Err(WireError::Name));
        assert_eq!(Name::read(&[3, b'a'], 0), Err(WireError::Truncated));
        let long: Vec<u8> = std::iter::repeat_n([1, b'a'], 128).flatten().chain([0]).collect();
        assert_eq!(Name::read(&long, 0), Err(WireError::Name));
    }
}
