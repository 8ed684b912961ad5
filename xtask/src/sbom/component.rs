//! What an image is made of, one value per part, whatever format it is written in.

/// One part of the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Identifies it in the document and towards vulnerability databases (package URL).
    pub purl: String,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the archive it came in; our own crates come in none.
    pub sha256: Option<String>,
    /// Every licence that its files are under.
    pub licences: Vec<Licence>,
    /// Where it is made.
    pub homepage: Option<String>,
    /// Further facts, by name.
    pub properties: Vec<(&'static str, String)>,
    /// Package URLs of what it needs.
    pub needs: Vec<String>,
    /// Its licence texts.
    pub texts: Vec<Text>,
}

/// Sorted, and each once: what is in several root file systems needs what it needs in any of them.
#[must_use]
pub fn united(mut components: Vec<Component>) -> Vec<Component> {
    components.sort();
    components.dedup_by(|next, first| {
        let same = next.purl == first.purl;
        if same {
            first.needs.append(&mut next.needs);
            first.needs.sort();
            first.needs.dedup();
        }
        same
    });
    components
}

/// The kind of a component, in CycloneDX's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A program.
    Application,
    /// Code that programs use.
    Library,
    /// The kernel.
    OperatingSystem,
    /// What runs on a device, or before the kernel.
    Firmware,
}

/// What is known of a licence. Nothing is guessed: what is not certain keeps the words of its source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Licence {
    /// An SPDX identifier.
    Id(String),
    /// An SPDX expression; then it is the only one.
    Expression(String),
    /// A name that its source gives.
    Name(String),
}

/// One licence text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text {
    /// The file's name at its source.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Escapes what a package URL does not take as it is (purl specification, "Character encoding").
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_package_url_does_not_take_is_escaped() {
        assert_eq!(escaped("2:1.0~rc1+b1-2"), "2:1.0~rc1%2Bb1-2");
    }
}
