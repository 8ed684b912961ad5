//! What the SBOM must know from inside packages: relations, home page, copyright file.
//!
//! Kept by the package's hash, so that a package is opened once in its life here: by whoever reads it first, be it for
//! the image or for the SBOM alone. Nothing depends on what is kept: it can be read again.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::archive::cache::Cache;
use crate::archive::lock_file::LockedPackage;
use crate::deb::{self, Deb, Kind};

/// Version of the facts' form on disk, in the name of their directory.
const FACTS: &str = "package-facts-2";
/// Where the texts are that copyright files refer to.
const COMMON_LICENSES: &str = "usr/share/common-licenses/";

/// What is read from inside a package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Raw relation fields.
    pub(super) depends: Vec<String>,
    pub(super) provides: String,
    pub(super) homepage: Option<String>,
    pub(super) copyright: Option<Raw>,
    /// The package whose documentation directory this one's is a link to.
    pub(super) documented_in: Option<String>,
    /// Shared licence texts, by name; only base-files has any.
    pub(super) common_licenses: BTreeMap<String, Raw>,
}

/// A file's bytes. As JSON they are a string, if they are one: an array of numbers takes twenty times as long to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Raw {
    Text(String),
    Bytes(Vec<u8>),
}

impl Raw {
    fn new(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Reads every package, in the order given.
///
/// # Errors
/// When one cannot be had or read.
pub(super) fn facts(packages: &[&LockedPackage], cache: &Cache, target: &Utf8Path) -> Result<Vec<Facts>> {
    let directory = opened(target)?;
    let debs = cache.debs(packages)?;
    packages.iter().zip(debs).map(|(package, deb)| kept(package, &deb, &directory)).collect()
}

fn kept(package: &LockedPackage, deb: &Deb, directory: &Utf8Path) -> Result<Facts> {
    let path = path_of(package, directory);
    // A file that does not parse is from an interrupted run or another version: as good as none.
    if let Some(facts) = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return Ok(facts);
    }
    let mut reader = Reader::new(&package.name);
    deb.entries(|entry| {
        reader.see(&entry.path, &entry.kind);
        Ok(())
    })?;
    let facts = reader.with_control(deb.path())?;
    super::write_atomically(&path, &serde_json::to_vec(&facts)?)?;
    Ok(facts)
}

fn path_of(package: &LockedPackage, directory: &Utf8Path) -> Utf8PathBuf {
    directory.join(format!("{}.json", package.sha256))
}

/// Takes the facts out of a package that is being read.
#[derive(Debug)]
pub(crate) struct Reader {
    documentation: String,
    facts: Facts,
}

impl Reader {
    /// For a package of this name.
    pub(crate) fn new(package: &str) -> Self {
        Self { documentation: format!("usr/share/doc/{package}"), facts: Facts::default() }
    }

    /// Takes what there is to take from one entry.
    pub(crate) fn see(&mut self, path: &str, kind: &Kind) {
        let below = path.strip_prefix(&self.documentation);
        match (kind, below) {
            (Kind::Symlink { target }, Some("")) => {
                self.facts.documented_in = target.rsplit('/').next().map(str::to_owned);
            }
            (Kind::Symlink { target }, Some("/copyright")) => {
                self.facts.documented_in = target.rsplit('/').nth(1).map(str::to_owned);
            }
            (Kind::File { bytes }, Some("/copyright")) => {
                self.facts.copyright = Some(Raw::new(bytes.clone()));
            }
            (Kind::File { bytes }, _) => {
                if let Some(name) = path.strip_prefix(COMMON_LICENSES) {
                    self.facts.common_licenses.insert(name.to_owned(), Raw::new(bytes.clone()));
                }
            }
            _ => {}
        }
    }

    /// Keeps what was seen of the whole package for the SBOM, unless it is kept already.
    ///
    /// # Errors
    /// When the package's control file cannot be read, or the facts cannot be written.
    pub(crate) fn keep(self, package: &LockedPackage, deb: &Utf8Path, target: &Utf8Path) -> Result<()> {
        let directory = opened(target)?;
        let path = path_of(package, &directory);
        if path.exists() {
            return Ok(());
        }
        super::write_atomically(&path, &serde_json::to_vec(&self.with_control(deb)?)?)
    }

    fn with_control(self, deb: &Utf8Path) -> Result<Facts> {
        let control = deb::control(deb)?;
        let field = |name: &str| {
            control
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(|value| value.trim().to_owned())
        };
        Ok(Facts {
            depends: ["Pre-Depends", "Depends"].iter().filter_map(|name| field(name)).collect(),
            provides: field("Provides").unwrap_or_default(),
            homepage: field("Homepage"),
            ..self.facts
        })
    }
}

/// Forgets all that is kept, as on a machine that builds for the first time.
///
/// # Errors
/// When it cannot be removed.
pub(crate) fn forget(target: &Utf8Path) -> Result<()> {
    let directory = opened(target)?;
    std::fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {directory}"))
}

fn opened(target: &Utf8Path) -> Result<Utf8PathBuf> {
    let directory = target.join(FACTS);
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {directory}"))?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_encoding_are_kept_as_they_are() {
        for bytes in [&b"plain \"quoted\"\n"[..], "Stra\u{df}e".as_bytes(), b"Stra\xdfe", b""] {
            let facts = Facts { copyright: Some(Raw::new(bytes.to_vec())), ..Facts::default() };
            let json = serde_json::to_vec(&facts).unwrap();
            let read: Facts = serde_json::from_slice(&json).unwrap();
            assert_eq!(read, facts);
            assert_eq!(read.copyright.unwrap().bytes(), bytes);
        }
    }

    #[test]
    fn whoever_reads_a_package_first_keeps_its_facts() {
        let directory = tempfile::tempdir().unwrap();
        let target = Utf8Path::from_path(directory.path()).unwrap();
        let file = |text: &str| Kind::File { bytes: text.as_bytes().to_vec() };
        let mut reader = Reader::new("nftables");
        reader.see("usr/share/doc/nftables-doc/copyright", &file("of another package"));
        reader.see("usr/share/doc/nftables/copyright", &file("GPL-2"));
        reader.see("usr/share/common-licenses/GPL-2", &file("text"));
        assert_eq!(reader.facts.copyright, Some(Raw::Text("GPL-2".to_owned())));
        assert_eq!(reader.facts.common_licenses["GPL-2"].bytes(), b"text");
        let mut reader = Reader::new("libnftables1");
        let link = Kind::Symlink { target: "nftables".to_owned() };
        reader.see("usr/share/doc/libnftables1", &link);
        assert_eq!(reader.facts.documented_in.as_deref(), Some("nftables"));
        forget(target).unwrap();
        assert!(!target.join(FACTS).exists());
    }
}
