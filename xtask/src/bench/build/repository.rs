//! A package repository made of cached packages, so that a peer installs exactly what ours does, without a network.
//!
//! It has one suite, and the packages stay where they are. Dependencies are left out on purpose: the set is complete as the lock says, and apt then
//! takes exactly the packages it is told.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};

use crate::archive;
use crate::archive::lock_file::LockedPackage;

/// The suite's name: the peers treat the Debian release of that name.
pub(super) const SUITE: &str = "trixie";
/// Where the index says the packages are; the folder to put them at is empty.
pub(super) const POOL: &str = "pool";
/// Where apt looks for the index below a suite.
const INDEX: &str = "main/binary-amd64/Packages";

/// Writes the index of `packages`, which lie below `cached`, and an empty folder for them into `repository`.
///
/// # Errors
/// When a package lies elsewhere, or something cannot be written.
pub(super) fn write(
    repository: &Utf8Path,
    cached: &Utf8Path,
    packages: &[(LockedPackage, Utf8PathBuf)],
) -> Result<()> {
    let mut index = String::new();
    for (package, deb) in packages {
        let file = deb.strip_prefix(cached).with_context(|| format!("{deb} is not below {cached}"))?;
        index += &stanza(package, file);
    }
    let suite = repository.join("dists").join(SUITE);
    let hash = archive::hex(&Sha256::digest(&index));
    let release = format!(
        "Suite: {SUITE}\nCodename: {SUITE}\nArchitectures: amd64\nComponents: main\nSHA256:\n {hash} {} {INDEX}\n",
        index.len()
    );
    for folder in [repository.join(POOL), suite.join("main/binary-amd64")] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder}"))?;
    }
    for (path, text) in [(suite.join(INDEX), index), (suite.join("Release"), release)] {
        fs::write(&path, text).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

fn stanza(package: &LockedPackage, file: &Utf8Path) -> String {
    let LockedPackage { name, version, architecture, size, sha256, .. } = package;
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(text, "Package: {name}\nVersion: {version}\nArchitecture: {architecture}");
    let _ = writeln!(text, "Maintainer: nobody <nobody@localhost>\nDescription: {name}");
    let _ = writeln!(text, "Filename: {POOL}/{file}\nSize: {size}\nSHA256: {sha256}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_points_into_the_pool() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(directory.path()).unwrap();
        let package = LockedPackage {
            name: "dash".to_owned(),
            version: "0.5".to_owned(),
            architecture: "amd64".to_owned(),
            source: "dash".to_owned(),
            source_version: "0.5".to_owned(),
            suite: "trixie".to_owned(),
            pool_path: "pool/d/dash.deb".to_owned(),
            size: 7,
            sha256: "ab".repeat(32),
        };
        write(directory, Utf8Path::new("/cache/deb"), &[(package.clone(), "/cache/deb/ab/x.deb".into())])
            .unwrap();
        let index = fs::read_to_string(directory.join("dists/trixie/main/binary-amd64/Packages")).unwrap();
        assert!(index.contains("\nFilename: pool/ab/x.deb\nSize: 7\nSHA256: abab"), "{index}");
        let error = write(directory, Utf8Path::new("/cache"), &[(package, "/x.deb".into())]).unwrap_err();
        assert_eq!(error.to_string(), "/x.deb is not below /cache");
    }
}
