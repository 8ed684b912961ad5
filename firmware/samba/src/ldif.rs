//! What `ldbsearch` prints: LDIF (RFC 2849), as far as it is needed to read names.

/// One entry: attributes and values, in order; its name is the attribute `dn`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry(Vec<(String, String)>);

impl Entry {
    /// The values of an attribute, whatever the case of its name.
    pub fn values<'a>(&'a self, attribute: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(attribute));
        named.map(|(_, value)| value.as_str())
    }
}

/// The entries; referrals, comments and values that are no text are left out.
#[must_use]
pub fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in unfolded(text) {
        match value(&line) {
            Some((name, value)) if name == "dn" => entries.push(Entry(vec![(name, value)])),
            Some((name, _)) if name == "ref" => {}
            Some(pair) => entries.last_mut().into_iter().for_each(|entry| entry.0.push(pair.clone())),
            None => {}
        }
    }
    entries
}

/// A line that begins with a space goes on with the one before.
fn unfolded(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix(' '), lines.last_mut()) {
            (Some(rest), Some(last)) => last.push_str(rest),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

fn value(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':').filter(|(name, _)| !name.starts_with('#'))?;
    let value = match value.strip_prefix(':') {
        Some(encoded) => String::from_utf8(from_base64(encoded.trim())?).ok()?,
        None => value.trim_start().to_owned(),
    };
    Some((name.to_owned(), value))
}

/// RFC 4648, section 4.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = ALPHABET.iter().position(|known| *known == byte)?;
        bits = bits << 6 | u32::try_from(digit).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// A value in a search filter (RFC 4515, section 3).
#[must_use]
pub fn filter_value(text: &str) -> String {
    let escape = |c: char| match c {
        '\\' | '*' | '(' | ')' | '\0' => format!("\\{:02x}", u32::from(c)),
        _ => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_referrals_are_none() {
        let text = "# record 1\ndn: CN=Büro (Nord),CN=Users,DC=ad,DC=office,DC=inter\n nal\nsAMAccountName:: \
                    QsO8cm8gKE5vcmQp\nmember: CN=a\nMember: CN=b\n\n# Referral\nref: ldap://ad.office.internal/CN=x\n\n\
                    dn: CN=anna\nobjectSid:: /w==\n\n# returned 4 records\n";
        let entries = entries(text);
        assert_eq!(entries.len(), 2);
        let values = |at: usize, name| entries[at].values(name).collect::<Vec<_>>();
        assert_eq!(values(0, "dn"), ["CN=Büro (Nord),CN=Users,DC=ad,DC=office,DC=internal"]);
        assert_eq!(values(0, "samaccountname"), ["Büro (Nord)"]);
        assert_eq!(values(0, "member"), ["CN=a", "CN=b"]);
        assert!(values(1, "objectSid").is_empty());
    }

    #[test]
    fn base64_of_every_length() {
        for (text, expect) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")]
        {
            assert_eq!(from_base64(text).as_deref(), Some(expect.as_bytes()), "{text}");
        }
        assert_eq!(from_base64("Zm\u{f6}v"), None);
    }

    #[test]
    fn a_filter_takes_no_value_for_syntax() {
        assert_eq!(filter_value("Büro (Nord)*"), "Büro \\28Nord\\29\\2a");
    }
}
