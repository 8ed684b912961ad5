//! `rootfs/packages.lock`: the exact packages of every set.
//!
//! It names no host. One entry per package, sorted, whatever number of sets it is in: the difference between two locks
//! reads as the packages that changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::index::Package;
use super::sets::Declaration;

/// The version of the lock file's format.
const SCHEMA: u32 = 1;

/// One package, pinned by its hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LockedPackage {
    /// Binary package name.
    pub name: String,
    /// Full Debian version.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// Source package.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
    /// Suite it was found in; decides the mirror.
    pub suite: String,
    /// Path below the mirror's root.
    pub pool_path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

impl From<&Package> for LockedPackage {
    fn from(package: &Package) -> Self {
        LockedPackage {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            source: package.source.clone(),
            source_version: package.source_version.clone(),
            suite: package.suite.clone(),
            pool_path: package.filename.clone(),
            size: package.size,
            sha256: package.sha256.to_ascii_lowercase(),
        }
    }
}

#[derive(Deserialize)]
struct Entry {
    sets: Vec<String>,
    #[serde(flatten)]
    package: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    schema: u32,
    #[serde(default)]
    release: BTreeMap<String, String>,
    #[serde(default)]
    request: BTreeMap<String, String>,
    #[serde(default)]
    package: Vec<Entry>,
}

/// Every set's packages, and the archive state they come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockFile {
    /// Where it was read from.
    path: Utf8PathBuf,
    /// Suite → date of the release file the lock was made from (ISO 8601): older ones are a step back.
    pub releases: BTreeMap<String, String>,
    /// Set → fingerprint of its declaration.
    pub requests: BTreeMap<String, String>,
    sets: BTreeMap<String, Vec<LockedPackage>>,
}

impl LockFile {
    /// An empty lock that will be written to `path`.
    pub fn new(path: &Utf8Path) -> Self {
        LockFile { path: path.to_owned(), ..LockFile::default() }
    }

    /// Reads a lock file.
    pub fn load(path: impl AsRef<Utf8Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading {path} (`cargo xtask lock` makes it)"))?;
        Self::parse(path, &text).with_context(|| format!("in {path}"))
    }

    /// Reads the text of a lock file that is, or will be, at `path`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(path: &Utf8Path, text: &str) -> Result<Self> {
        let raw: Raw = toml::from_str(text)?;
        ensure!(raw.schema == SCHEMA, "schema {}, but this builder reads {SCHEMA}", raw.schema);
        let mut sets: BTreeMap<String, Vec<LockedPackage>> =
            raw.request.keys().map(|name| (name.clone(), Vec::new())).collect();
        for entry in raw.package {
            let table = toml::Table::from_iter(entry.package);
            let package: LockedPackage = table.try_into()?;
            validate(&package)?;
            for set in entry.sets {
                let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                ensure!(!set.is_empty() && set.chars().all(legal), "{set:?} is no name of a set");
                sets.entry(set).or_default().push(package.clone());
            }
        }
        for packages in sets.values_mut() {
            packages.sort();
            packages.dedup();
        }
        Ok(LockFile { path: path.to_owned(), releases: raw.release, requests: raw.request, sets })
    }

    /// Where it was read from or will be written to.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The packages of one set, sorted by name.
    pub fn set(&self, name: &str) -> Result<&[LockedPackage]> {
        match self.sets.get(name) {
            Some(packages) => Ok(packages),
            None => bail!(
                "the lock file {} has no set {name:?}; it has {}",
                self.path,
                self.sets.keys().cloned().collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// Every set.
    pub fn sets(&self) -> impl Iterator<Item = (&str, &[LockedPackage])> {
        self.sets.iter().map(|(name, packages)| (name.as_str(), packages.as_slice()))
    }

    /// Replaces the packages of one set.
    pub fn replace(&mut self, set: &str, mut packages: Vec<LockedPackage>) {
        packages.sort();
        packages.dedup();
        self.sets.insert(set.to_owned(), packages);
    }

    /// Refuses a lock that was made for other requests than those declared now.
    pub fn check_requests(&self, declared: &BTreeMap<String, Declaration>) -> Result<()> {
        for (name, declaration) in declared {
            if self.requests.get(name) != Some(&declaration.fingerprint()) {
                bail!(
                    "[packages] of the set {name:?} has changed since the lock was made: run `cargo xtask lock`"
                );
            }
        }
        Ok(())
    }

    /// The file's text: deterministic, one line per fact.
    pub fn to_text(&self) -> Result<String> {
        let mut text = String::from(
            "# The exact Debian packages of every set. Made by `cargo xtask lock`; do not edit.\n\n",
        );
        writeln!(text, "schema = {SCHEMA}\n")?;
        text += "# The archive state: date of each suite's signed release file.\n[release]\n";
        text += &toml::to_string(&self.releases)?;
        text += "\n# Which [packages] declaration each set was resolved for.\n[request]\n";
        text += &toml::to_string(&self.requests)?;
        let mut entries: BTreeMap<&LockedPackage, BTreeSet<&str>> = BTreeMap::new();
        for (set, packages) in &self.sets {
            for package in packages {
                entries.entry(package).or_default().insert(set);
            }
        }
        for (package, sets) in entries {
            writeln!(text, "\n[[package]]\nsets = {}", serde_json::to_string(&sets)?)?;
            text += &toml::to_string(package)?;
        }
        Ok(text)
    }

    /// Writes the lock to its path, atomically.
    pub fn save(&self) -> Result<()> {
        let directory = self.path.parent().filter(|p| !p.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
        let write = || -> Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(self.to_text()?.as_bytes())?;
            file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().with_context(|| format!("writing {}", self.path))
    }

    /// What changed from `self` to `new`, one line per package and set.
    pub fn changes(&self, new: &LockFile) -> Vec<String> {
        let mut lines = Vec::new();
        let names: BTreeSet<&String> = self.sets.keys().chain(new.sets.keys()).collect();
        for set in names {
            let versions = |lock: &LockFile| -> BTreeMap<String, (String, String)> {
                let packages = lock.sets.get(set).into_iter().flatten();
                packages.map(|p| (p.name.clone(), (p.version.clone(), p.sha256.clone()))).collect()
            };
            let (old, new) = (versions(self), versions(new));
            let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            lines.extend(all.into_iter().filter_map(|name| match (old.get(name), new.get(name)) {
                (None, Some((version, _))) => Some(format!("{set}: + {name} {version}")),
                (Some((version, _)), None) => Some(format!("{set}: - {name} {version}")),
                (Some(a), Some(b)) if a != b => Some(format!("{set}:   {name} {} -> {}", a.0, b.0)),
                _ => None,
            }));
        }
        lines
    }
}

/// Whether a path is one below a mirror's root, or below a folder that is laid out as one.
pub(super) fn is_below_the_mirror(path: &str) -> bool {
    path.split('/').all(|part| !part.is_empty() && part != ".." && part != "." && !part.contains('\0'))
}

fn validate(package: &LockedPackage) -> Result<()> {
    let LockedPackage { name, pool_path, sha256, .. } = package;
    ensure!(sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit()), "{name}: malformed sha256");
    ensure!(is_below_the_mirror(pool_path), "{name}: pool-path {pool_path:?} is not a path below the mirror");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> LockedPackage {
        LockedPackage {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            source: name.to_owned(),
            source_version: version.to_owned(),
            suite: "trixie".to_owned(),
            pool_path: format!("pool/{name}_{version}.deb"),
            size: 7,
            sha256: "ab".repeat(32),
        }
    }

    fn lock(sets: &[(&str, &[(&str, &str)])]) -> LockFile {
        let mut lock = LockFile::new("packages.lock".into());
        for (set, packages) in sets {
            lock.requests.insert(set.to_string(), "f".to_owned());
            lock.replace(set, packages.iter().map(|(name, version)| package(name, version)).collect());
        }
        lock.releases.insert("trixie".to_owned(), "2026-09-12T07:55:41Z".to_owned());
        lock
    }

    #[test]
    fn text_and_back() {
        let before = lock(&[("base", &[("b", "1"), ("a", "1")]), ("tools", &[("a", "1")]), ("void", &[])]);
        let text = before.to_text().unwrap();
        assert_eq!(text.matches("[[package]]").count(), 2);
        assert!(text.contains("sets = [\"base\",\"tools\"]"), "{text}");
        let after = LockFile::parse("packages.lock".into(), &text).unwrap();
        assert_eq!(before, after);
        assert_eq!(after.to_text().unwrap(), text);
        assert!(after.set("mail").unwrap_err().to_string().contains("base, tools, void"));
    }

    #[track_caller]
    fn check_reading_back(text: &str) {
        let read = LockFile::parse("packages.lock".into(), text).unwrap();
        let again = LockFile::parse("packages.lock".into(), &read.to_text().unwrap()).unwrap();
        assert_eq!(read, again);
    }

    #[test]
    fn what_was_edited_by_hand_is_written_as_it_was_read() {
        let text = lock(&[("base", &[("a", "1")])]).to_text().unwrap();
        let package = &text[text.find("[[package]]").unwrap()..];
        check_reading_back(&format!("{text}\n{package}"));
        check_reading_back(&text.replace("[\"base\"]", "[\"base\", \"base\", \"more\"]"));
        for name in ["", "a\u{7f}", "../a", "A b"] {
            let odd = text.replace("[\"base\"]", &format!("[{name:?}]").replace("\\u{7f}", "\\u007f"));
            let error = format!("{:#}", LockFile::parse("packages.lock".into(), &odd).unwrap_err());
            assert!(error.contains("is no name of a set"), "{error}");
        }
    }

    #[test]
    fn a_path_outside_the_mirror_is_refused() {
        let text = lock(&[("base", &[("a", "1")])]).to_text().unwrap().replace("pool/a", "../a");
        let error = LockFile::parse("packages.lock".into(), &text).unwrap_err();
        assert!(error.to_string().contains("not a path below"), "{error}");
    }

    #[test]
    fn changes_are_told_per_set() {
        let old = lock(&[("base", &[("a", "1"), ("b", "1")])]);
        let new = lock(&[("base", &[("a", "2"), ("c", "1")])]);
        assert_eq!(old.changes(&new), ["base:   a 1 -> 2", "base: - b 1", "base: + c 1"]);
        assert!(old.changes(&old).is_empty());
    }
}
