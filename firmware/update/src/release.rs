//! The release manifest: everything a release is made of, by hash, and who may come to it from where.
//!
//! It is a TUF target, `release/PRODUCT/VERSION.json`: signed metadata has its hash. What it names by hash lies as
//! `objects/SHA256` beside the metadata; whoever checks the manifest's hash has checked everything.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Hex;
use crate::version::Version;

/// The form of document that this program reads and writes.
pub const SCHEMA: u32 = 1;
/// No manifest is longer: 64 KiB hold a hundred components, each in ten forms.
pub const MAX_BYTES: u64 = 1 << 20;

/// A release of one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Release {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What it is a release of.
    pub product: String,
    /// Its version.
    pub version: Version,
    /// Machine types it serves.
    pub boards: Vec<String>,
    /// Day of the release, for people.
    pub date: String,
    /// That day in seconds since 1970: no clock of a box that runs it is before it.
    pub epoch_s: u64,
    /// Grows when releases before it must never run again; a step back to an older version stays possible within it.
    pub security_epoch: u32,
    /// Boxes with an older version need another release first.
    pub from_minimum: Version,
    /// What is new, for operators.
    #[serde(default)]
    pub changelog: String,
    /// The slot's file system, byte for byte.
    pub slot: Image,
    /// Components' images.
    #[serde(default)]
    pub components: Vec<Component>,
    /// Of what it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Object>,
}

/// A file of the repository, `objects/SHA256`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Object {
    /// SHA-256 of its bytes, and its name.
    pub sha256: Sha256Hex,
    /// Its length.
    pub bytes: u64,
}

/// What must come out, and in which forms it can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Image {
    /// Length.
    pub bytes: u64,
    /// SHA-256 of the whole.
    pub sha256: Sha256Hex,
    /// At least one is [`Form::Full`].
    pub forms: Vec<Form>,
}

/// A component's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Component {
    /// The component's name.
    pub name: String,
    /// What the kernel measures when it is sealed; the image's name on the box.
    pub verity: Sha256Hex,
    /// The image.
    #[serde(flatten)]
    pub image: Image,
}

/// How an image travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "form")]
pub enum Form {
    /// One zstd stream of the whole, window at most 8 MiB.
    Full(Object),
    /// Chunks by content: an index, and a pack with each chunk compressed.
    Chunks {
        /// What chunks there are.
        index: Object,
        /// Their bytes.
        pack: Object,
    },
    /// What makes it of an image that the box may have.
    Patch {
        /// SHA-256 of the old image.
        from: Sha256Hex,
        /// The patch.
        patch: Object,
    },
    /// A form that a later firmware knows.
    #[serde(other)]
    Unknown,
}

/// Why bytes are no release manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseError {
    /// Not the JSON it should be.
    Syntax(String),
    /// A form of document that this firmware does not know.
    Schema(u32),
    /// It contradicts itself.
    Invalid(String),
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => write!(f, "the release manifest is damaged: {error}"),
            Self::Schema(schema) => {
                write!(
                    f,
                    "the release manifest has schema {schema}; this firmware knows {SCHEMA}: update to a release between first"
                )
            }
            Self::Invalid(what) => write!(f, "the release manifest is wrong: {what}"),
        }
    }
}

impl std::error::Error for ReleaseError {}

impl Release {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// When it is damaged, of another schema, or contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        #[derive(Deserialize)]
        struct Probe {
            schema: u32,
        }
        let syntax = |error: serde_json::Error| ReleaseError::Syntax(error.to_string());
        let probe: Probe = serde_json::from_slice(bytes).map_err(syntax)?;
        if probe.schema != SCHEMA {
            return Err(ReleaseError::Schema(probe.schema));
        }
        let release: Self = serde_json::from_slice(bytes).map_err(syntax)?;
        release.check().map_err(ReleaseError::Invalid)?;
        Ok(release)
    }

    /// What contradicts itself.
    ///
    /// # Errors
    /// With the reason.
    pub fn check(&self) -> Result<(), String> {
        if !is_name(&self.product) {
            return Err(format!("{:?} is not a product's name", self.product));
        }
        if self.boards.is_empty() {
            return Err("it serves no board".to_owned());
        }
        for (position, component) in self.components.iter().enumerate() {
            if !is_name(&component.name) {
                return Err(format!("{:?} is not a component's name", component.name));
            }
            if self.components[..position].iter().any(|other| other.name == component.name) {
                return Err(format!("component {} is there twice", component.name));
            }
        }
        self.images().try_for_each(|(name, image)| match image.full() {
            Some(_) if image.bytes > 0 => Ok(()),
            Some(_) => Err(format!("{name} is empty")),
            None => Err(format!("{name} has no full form")),
        })
    }

    /// As it is published: the same release gives the same bytes.
    ///
    /// # Panics
    /// Never: its keys are strings and its numbers finite.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The TUF target's name.
    #[must_use]
    pub fn target(product: &str, version: Version) -> String {
        format!("release/{product}/{version}.json")
    }

    /// Every image, with a name for people.
    pub fn images(&self) -> impl Iterator<Item = (&str, &Image)> {
        let components = self.components.iter().map(|component| (component.name.as_str(), &component.image));
        std::iter::once(("slot", &self.slot)).chain(components)
    }

    /// Every object that must lie in a repository that has this release.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.images().flat_map(|(_, image)| image.forms.iter().flat_map(Form::objects)).chain(&self.sbom)
    }
}

impl Image {
    /// The whole image as one compressed object.
    #[must_use]
    pub fn full(&self) -> Option<&Object> {
        self.forms.iter().find_map(|form| match form {
            Form::Full(object) => Some(object),
            _ => None,
        })
    }
}

impl Form {
    /// What it consists of.
    fn objects(&self) -> impl Iterator<Item = &Object> {
        let (first, second) = match self {
            Self::Full(object) | Self::Patch { patch: object, .. } => (Some(object), None),
            Self::Chunks { index, pack } => (Some(index), Some(pack)),
            Self::Unknown => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// Names of products, boards, channels and components become names of files.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=40).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-')
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn digest(digit: char) -> Sha256Hex {
        Sha256Hex::try_from(digit.to_string().repeat(64)).unwrap()
    }

    pub(crate) fn image(digit: char) -> Image {
        let forms = vec![
            Form::Full(Object { sha256: digest('1'), bytes: 10 }),
            Form::Patch { from: digest('2'), patch: Object { sha256: digest('3'), bytes: 3 } },
        ];
        Image { bytes: 100, sha256: digest(digit), forms }
    }

    pub(crate) fn release(version: &str) -> Release {
        Release {
            schema: SCHEMA,
            product: "branch".into(),
            version: version.parse().unwrap(),
            boards: vec!["generic-x86-64".into(), "qemu".into()],
            date: "2026-11-28".into(),
            epoch_s: 1_795_824_000,
            security_epoch: 1,
            from_minimum: "0.1.0".parse().unwrap(),
            changelog: "- faster".into(),
            slot: image('a'),
            components: vec![Component { name: "samba".into(), verity: digest('c'), image: image('b') }],
            sbom: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let release = release("0.2.0");
        assert_eq!(Release::parse(&release.to_json()), Ok(release.clone()));
        assert_eq!(Release::target("branch", release.version), "release/branch/0.2.0.json");
        assert_eq!(release.objects().count(), 4);
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Release), expected: &str) {
        let mut release = release("0.2.0");
        change(&mut release);
        let error = Release::parse(&release.to_json()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn contradictions_are_named() {
        refused(|release| release.schema = 2, "schema 2; this firmware knows 1");
        refused(|release| release.product = "../x".into(), "\"../x\" is not a product's name");
        refused(|release| release.boards.clear(), "serves no board");
        refused(|release| release.components.push(release.components[0].clone()), "samba is there twice");
        refused(|release| release.components[0].name = "a/b".into(), "is not a component's name");
        refused(|release| release.slot.forms.truncate(0), "slot has no full form");
        refused(|release| release.slot.bytes = 0, "slot is empty");
    }

    #[test]
    fn later_firmwares_may_know_more() {
        let text = String::from_utf8(release("0.2.0").to_json()).unwrap();
        let text = text.replacen("\"full\"", "\"wavelet\"", 1).replacen('{', "{ \"poem\": 1,", 1);
        // The slot's full form became one that nobody knows.
        let error = Release::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("slot has no full form"), "{error}");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Release::parse(&bytes);
        }

        #[test]
        fn a_damaged_manifest_never_panics(at in 0_usize..900, byte: u8) {
            let mut bytes = release("0.2.0").to_json();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Release::parse(&bytes);
        }
    }
}
