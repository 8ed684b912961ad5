//! A component as a release ships it: its manifest, and by what its image is known, in one file of the sealed base.
//!
//! The box learns from it, before any image is looked at, which components there are, what they may take and which ports
//! they open; and it trusts an image only if the kernel measures what stands here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::manifest::{Error, Manifest, invalid};

/// Where a release has these files, one for each component, `NAME.toml`.
pub const SHIPPED_DIRECTORY: &str = "/usr/share/kontor/component";
/// Digits of a SHA-256.
const DIGITS: usize = 64;

/// By what an image is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Seal {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What the kernel measures when it is sealed with fs-verity: SHA-256, 4 KiB blocks, no salt.
    pub verity: String,
}

/// A component of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// How it runs; the same as in its image.
    pub manifest: Manifest,
    /// By what its image is known.
    pub seal: Seal,
}

impl Seal {
    /// The image's name on the `system` partition, below the partition's root: it says what is in it, so that images of two
    /// releases lie side by side, and one that both have lies there once.
    #[must_use]
    pub fn path(&self) -> String {
        format!("component/{}.erofs", self.verity)
    }

    /// The digest of [`Self::verity`] as the kernel gives it; nothing when it is none.
    #[must_use]
    pub fn digest(&self) -> Option<[u8; DIGITS / 2]> {
        let byte = |at: usize| u8::from_str_radix(self.verity.get(2 * at..2 * at + 2)?, 16).ok();
        let mut digest = [0; DIGITS / 2];
        for (at, place) in digest.iter_mut().enumerate() {
            *place = byte(at)?;
        }
        (self.verity.len() == DIGITS).then_some(digest)
    }
}

impl Shipped {
    /// The file's text: the manifest's, and a table `[seal]`.
    #[must_use]
    pub fn text(manifest: &str, seal: &Seal) -> String {
        let Seal { bytes, sha256, verity } = seal;
        let mut text = manifest.trim_end().to_owned();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n\n[seal]\nbytes = {bytes}\nsha256 = \"{sha256}\"\nverity = \"{verity}\"");
        text
    }

    /// Reads and validates a file's text.
    ///
    /// # Errors
    /// When the manifest or the seal is not valid.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let syntax = |error: toml::de::Error| Error::Syntax(error.to_string());
        let mut table: toml::Table = toml::from_str(text).map_err(syntax)?;
        let Some(seal) = table.remove("seal") else {
            return invalid("there is no [seal]".to_owned());
        };
        let seal: Seal = seal.try_into().map_err(syntax)?;
        if seal.digest().is_none() {
            return invalid(format!("verity {:?} is not {DIGITS} hexadecimal digits", seal.verity));
        }
        let manifest: Manifest = toml::Value::Table(table).try_into().map_err(syntax)?;
        Ok(Self { manifest: manifest.validated()?, seal })
    }

    /// Every component that a release has in `directory`, by name, and what is wrong with others.
    #[must_use]
    pub fn load_all(directory: &Path) -> (Vec<Self>, Vec<String>) {
        let mut paths: Vec<PathBuf> = match std::fs::read_dir(directory) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            // A release without components has no such directory.
            Err(_) => return (Vec::new(), Vec::new()),
        };
        paths.sort();
        let (mut all, mut problems) = (Vec::new(), Vec::new());
        for path in paths {
            let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
            match text.and_then(|text| Self::parse(&text).map_err(|error| error.to_string())) {
                Ok(one) => all.push(one),
                Err(error) => problems.push(format!("{}: {error}", path.display())),
            }
        }
        (all, problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "schema = 1\nname = 'samba'\nmemory-mib = 512\nprocesses = 200\n\
                            [[service]]\nname = 'smbd'\ncommand = ['/usr/sbin/smbd']\n";

    fn seal() -> Seal {
        Seal { bytes: 7, sha256: "00".repeat(32), verity: "0f".repeat(32) }
    }

    #[test]
    fn what_is_written_is_read() {
        let shipped = Shipped::parse(&Shipped::text(MANIFEST, &seal())).unwrap();
        assert_eq!((shipped.manifest.name.as_str(), &shipped.seal), ("samba", &seal()));
        assert_eq!(shipped.seal.digest(), Some([0x0f; 32]));
        assert_eq!(shipped.seal.path(), format!("component/{}.erofs", "0f".repeat(32)));
    }

    #[test]
    fn without_a_seal_nothing_is_trusted() {
        let refused = |text: &str, expected: &str| {
            let error = Shipped::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(MANIFEST, "there is no [seal]");
        refused(&Shipped::text(MANIFEST, &Seal { verity: "0f".into(), ..seal() }), "is not 64 hexadecimal");
        refused(&Shipped::text(MANIFEST, &Seal { verity: "ö".repeat(32), ..seal() }), "is not 64 hex");
        refused(&Shipped::text("schema = 1\n", &seal()), "missing field `name`");
        refused(&Shipped::text(&MANIFEST.replace("= 1", "= 2"), &seal()), "schema 2 is not known");
    }

    #[test]
    fn one_that_is_damaged_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(path.join("samba.toml"), Shipped::text(MANIFEST, &seal())).unwrap();
        std::fs::write(path.join("mail.toml"), "schema").unwrap();
        let (all, problems) = Shipped::load_all(path);
        assert_eq!((all.len(), problems.len()), (1, 1), "{problems:?}");
        assert!(problems[0].contains("mail.toml"), "{problems:?}");
        assert!(Shipped::load_all(&path.join("none")).0.is_empty());
    }
}
