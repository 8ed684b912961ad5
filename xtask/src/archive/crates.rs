//! The crates that Cargo.lock names, in an archive: packed as they were published, laid out as cargo's home.
//!
//! A copy of `cargo` is a home with which cargo builds without a network, and unpacks every crate to the path, below its home,
//! that it has elsewhere: paths of sources get into programs.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use super::cache::hash_file;
use super::keep::Archive;
use crate::image::{firmware, process};

/// The folder in the archive.
pub const FOLDER: &str = "cargo";
/// How cargo calls the registry that crates come from; behind it, a hash of its address.
const REGISTRY: &str = "index.crates.io-";
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

/// A crate, as Cargo.lock names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

impl Locked {
    fn file(&self) -> String {
        format!("{}-{}.crate", self.name, self.version)
    }
}

/// Keeps the crates of the workspace in `root`; how many they are.
///
/// # Errors
/// When one cannot be had, or has another hash than Cargo.lock says.
pub fn keep(archive: &Archive, root: &Utf8Path, offline: bool) -> Result<usize> {
    let path = root.join("Cargo.lock");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let crates = locked(&text).with_context(|| path.to_string())?;
    let mut fetch = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    fetch.current_dir(root).args(["fetch", "--quiet", "--locked"]);
    if offline {
        fetch.arg("--offline");
    }
    process::run(fetch)?;
    let home = firmware::cargo_home().context("cargo has no home: neither CARGO_HOME nor HOME is set")?;
    keep_from(archive, &home, &crates)?;
    Ok(crates.len())
}

/// What Cargo.lock names beyond the workspace itself.
fn locked(text: &str) -> Result<Vec<Locked>> {
    let lock: Lock = toml::from_str(text)?;
    let from_elsewhere: Vec<Locked> =
        lock.package.into_iter().filter(|package| package.source.is_some()).collect();
    for package in &from_elsewhere {
        ensure!(
            package.source.as_deref() == Some(SOURCE),
            "{} comes from {}; only crates from crates.io can be kept",
            package.name,
            package.source.as_deref().unwrap_or_default()
        );
    }
    Ok(from_elsewhere)
}

fn keep_from(archive: &Archive, home: &Utf8Path, crates: &[Locked]) -> Result<()> {
    let registry = registry(home)?;
    let place = |name: &str| -> Result<()> {
        let bytes = fs::read(home.join(name)).with_context(|| format!("cannot read {}", home.join(name)))?;
        archive.place(&format!("{FOLDER}/{name}"), &bytes)
    };
    let index = format!("registry/index/{registry}");
    place(&format!("{index}/config.json"))?;
    for package in crates {
        let name = format!("registry/cache/{registry}/{}", package.file());
        let found = hash_file(&home.join(&name))?;
        ensure!(
            Some(&found) == package.checksum.as_ref(),
            "{}: has another hash than Cargo.lock says: remove it, and run the command again",
            home.join(&name)
        );
        place(&name)?;
        place(&format!("{index}/.cache/{}", index_path(&package.name)))?;
    }
    Ok(())
}

/// What cargo calls the registry in its home.
fn registry(home: &Utf8Path) -> Result<String> {
    let folder = home.join("registry/index");
    for entry in folder.read_dir_utf8().with_context(|| format!("cannot read {folder}"))? {
        let name = entry?.file_name().to_owned();
        if name.starts_with(REGISTRY) {
            return Ok(name);
        }
    }
    bail!(
        "{folder} has nothing of crates.io itself: cargo's configuration names another source, and crates from there are \
         unpacked to other paths, which get into the firmware; build with `CARGO_HOME` set to a new folder"
    )
}

/// Where a sparse index has the versions of a crate.
fn index_path(name: &str) -> Utf8PathBuf {
    let name = name.to_lowercase();
    let part = |from: usize, to: usize| name.get(from..to).unwrap_or_default();
    match name.len() {
        length @ 0..=2 => format!("{length}/{name}"),
        3 => format!("3/{}/{name}", part(0, 1)),
        _ => format!("{}/{}/{name}", part(0, 2), part(2, 4)),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "\
version = 4
[[package]]
name = \"kontor\"
version = \"0.1.0\"
[[package]]
name = \"nix\"
version = \"0.30.1\"
source = \"registry+https://github.com/rust-lang/crates.io-index\"
checksum = \"CHECKSUM\"
";

    #[test]
    fn crates_are_kept_as_cargo_has_them() {
        let scratch = tempfile::tempdir().unwrap();
        let scratch = Utf8Path::from_path(scratch.path()).unwrap();
        let home = scratch.join("home");
        let files = [
            "registry/index/index.crates.io-19/config.json",
            "registry/index/index.crates.io-19/.cache/3/n/nix",
            "registry/cache/index.crates.io-19/nix-0.30.1.crate",
        ];
        for name in files {
            fs::create_dir_all(home.join(name).parent().unwrap()).unwrap();
            fs::write(home.join(name), name).unwrap();
        }
        let archive = Archive::open(&scratch.join("archive"), &[]).unwrap();
        let right = hash_file(&home.join(files[2])).unwrap();
        keep_from(&archive, &home, &locked(&LOCK.replace("CHECKSUM", &right)).unwrap()).unwrap();
        for name in files {
            assert_eq!(fs::read_to_string(archive.root().join(FOLDER).join(name)).unwrap(), name);
        }
        let error = keep_from(&archive, &home, &locked(LOCK).unwrap()).unwrap_err().to_string();
        assert!(error.contains("nix-0.30.1.crate: has another hash"), "{error}");
    }

    #[test]
    fn only_crates_of_the_registry_itself_can_be_kept() {
        let git = LOCK.replace("registry+https://github.com/rust-lang/crates.io-index", "git+https://x");
        assert!(locked(&git).unwrap_err().to_string().starts_with("nix comes from git+https://x"));
        let scratch = tempfile::tempdir().unwrap();
        let home = Utf8Path::from_path(scratch.path()).unwrap();
        fs::create_dir_all(home.join("registry/index/mirror-1")).unwrap();
        assert!(registry(home).unwrap_err().to_string().contains("nothing of crates.io itself"));
    }

    #[test]
    fn the_index_is_laid_out_by_names() {
        let paths = ["a", "ab", "nix", "Serde", "aws-lc-rs"].map(|name| index_path(name).into_string());
        assert_eq!(paths, ["1/a", "2/ab", "3/n/nix", "se/rd/serde", "aw/s-/aws-lc-rs"]);
    }
}
