//! The release manifest: everything a release is made of, by hash, and who may come to it from where.
//!
//! It is a TUF target, `release/PRODUCT/VERSION.json`: signed metadata has its hash. What it names by hash lies as
//! `objects/SHA256` beside the metadata; whoever checks the manifest's hash has checked everything.

use std::fmt;

use kontor_migrate::Span;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256Hex;
use crate::version::Version;

/// The form of document that this program reads and writes.
pub const SCHEMA: u32 = 1;
/// No manifest is longer: 64 KiB hold a hundred components, each in ten forms.
pub const MAX_BYTES: u64 = 1 << 20;
/// No image is longer: what the forms can describe, and four times what a box has room for.
pub const MAX_IMAGE_BYTES: u64 = 4 << 30;
/// Nobody offers more ways to one image: some thirty older releases.
const MAX_FORMS: usize = 32;

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
    /// Schemas of a box's state that it reads. Manifests from before there were several do not say so.
    #[serde(default, skip_serializing_if = "is_first")]
    pub state_schema: Span,
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

fn is_first(span: &Span) -> bool {
    *span == Span::default()
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

/// How an image travels: each is one or two objects.
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
        /// Its length: a slot is longer than what lies in it.
        from_bytes: u64,
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
        let Span { oldest, newest } = self.state_schema;
        if oldest == 0 || newest < oldest {
            return Err(format!("it reads the state's schemas from {oldest} to {newest}"));
        }
        for (position, component) in self.components.iter().enumerate() {
            if !is_name(&component.name) {
                return Err(format!("{:?} is not a component's name", component.name));
            }
            if self.components[..position].iter().any(|other| other.name == component.name) {
                return Err(format!("component {} is there twice", component.name));
            }
        }
        self.images().try_for_each(|(name, image)| image.check().map_err(|what| format!("{name} {what}")))
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

impl Image {
    /// What contradicts itself, after the image's name.
    fn check(&self) -> Result<(), String> {
        if self.bytes == 0 {
            return Err("is empty".to_owned());
        }
        if self.bytes > MAX_IMAGE_BYTES {
            return Err(format!("has {} bytes; no image is longer than {MAX_IMAGE_BYTES}", self.bytes));
        }
        if self.forms.len() > MAX_FORMS {
            return Err(format!("has {} forms; the most is {MAX_FORMS}", self.forms.len()));
        }
        self.full().ok_or("has no full form")?;
        // What does not compress grows by less than a hundredth.
        let most = self.bytes + self.bytes / 100 + (64 << 10);
        let mut objects = self.forms.iter().flat_map(Form::objects);
        if let Some(object) = objects.find(|object| object.bytes == 0 || object.bytes > most) {
            return Err(format!("has a form of {} bytes, for {} of the image", object.bytes, self.bytes));
        }
        for form in &self.forms {
            if let Form::Patch { from, from_bytes, .. } = form {
                if *from == self.sha256 {
                    return Err("has a patch from itself".to_owned());
                }
                if !(1..=MAX_IMAGE_BYTES).contains(from_bytes) {
                    return Err(format!("has a patch from an image of {from_bytes} bytes"));
                }
            }
        }
        Ok(())
    }

    /// Index and pack of its chunks.
    #[must_use]
    pub fn chunks(&self) -> Option<(&Object, &Object)> {
        self.forms.iter().find_map(|form| match form {
            Form::Chunks { index, pack } => Some((index, pack)),
            _ => None,
        })
    }

    /// Its patches: the old image's hash and length, and the patch.
    pub fn patches(&self) -> impl Iterator<Item = (&Sha256Hex, u64, &Object)> {
        self.forms.iter().filter_map(|form| match form {
            Form::Patch { from, from_bytes, patch } => Some((from, *from_bytes, patch)),
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
pub(crate) mod tests;
