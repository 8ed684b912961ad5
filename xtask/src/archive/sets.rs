//! The package sets as declared in `rootfs/*/*.toml`, `[packages]`: what the resolver is asked for.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use camino::Utf8Path;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What one set asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Declaration {
    /// Packages with everything they depend on.
    #[serde(default)]
    pub closure: Vec<String>,
    /// Packages without their dependencies.
    #[serde(default)]
    pub single: Vec<String>,
    /// The meta-package that names the kernel; the versioned package it depends on is taken, alone.
    pub kernel: Option<String>,
    /// Packages that are never taken into a closure; what depends on them counts as satisfied.
    #[serde(default)]
    pub exclude: Vec<String>,
}

impl Declaration {
    /// Identifies what was asked for, so that a lock made for another request is noticed.
    pub fn fingerprint(&self) -> String {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names.join(" ")
        };
        // Order matters to the solver's choices for `closure` alone.
        let kernel = self.kernel.as_deref().unwrap_or_default();
        let text = format!(
            "closure {}\nsingle {}\nkernel {kernel}\nexclude {}\n",
            self.closure.join(" "),
            sorted(&self.single),
            sorted(&self.exclude)
        );
        super::hex(&Sha256::digest(text))[..16].to_owned()
    }
}

/// Reads the declaration of every folder below `rootfs`; the folder's name is the set's name.
pub fn load(rootfs: &Utf8Path) -> Result<BTreeMap<String, Declaration>> {
    let mut sets = BTreeMap::new();
    let folders = rootfs.read_dir_utf8().with_context(|| format!("reading {rootfs}"))?;
    for folder in folders {
        let folder = folder.with_context(|| format!("reading {rootfs}"))?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in folder.path().read_dir_utf8()? {
            let path = file?.into_path();
            if path.extension() != Some("toml") {
                continue;
            }
            let Some(declaration) = read(&path)? else { continue };
            if sets.insert(folder.file_name().to_owned(), declaration).is_some() {
                bail!("{}: more than one file declares [packages]", folder.path());
            }
        }
    }
    Ok(sets)
}

fn read(path: &Utf8Path) -> Result<Option<Declaration>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    parse(&text).with_context(|| format!("in {path}"))
}

/// The declaration in the text of a file, if there is one.
///
/// # Errors
/// When it is malformed.
pub fn parse(text: &str) -> Result<Option<Declaration>> {
    #[derive(Deserialize)]
    struct File {
        packages: Option<Declaration>,
    }
    let file: File = toml::from_str(text)?;
    Ok(file.packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_packages_are_sets() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::create_dir_all(root.join("base")).unwrap();
        std::fs::create_dir_all(root.join("keys")).unwrap();
        std::fs::write(root.join("base/base.toml"), "[packages]\nclosure = [\"a\"]\n[other]\nx = 1\n")
            .unwrap();
        std::fs::write(root.join("base/more.toml"), "x = 1\n").unwrap();
        let sets = load(root).unwrap();
        assert_eq!(sets.keys().collect::<Vec<_>>(), ["base"]);
        assert_eq!(sets["base"].closure, ["a"]);
        std::fs::write(root.join("base/base.toml"), "[packages]\nclosures = [\"a\"]\n").unwrap();
        assert!(format!("{:#}", load(root).unwrap_err()).contains("unknown field `closures`"));
    }

    #[test]
    fn the_fingerprint_changes_with_the_request_only() {
        let with = |single: &[&str]| {
            let single = single.iter().map(ToString::to_string).collect();
            Declaration { single, ..Declaration::default() }.fingerprint()
        };
        assert_eq!(with(&["a", "b"]), with(&["b", "a"]));
        assert_ne!(with(&["a", "b"]), with(&["a"]));
    }
}
