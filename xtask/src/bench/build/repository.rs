//! A package repository made of cached packages, so that a peer installs exactly what ours does, without a network.
//!
//! It has one suite, and the packages stay where they are; it only links to them, by names from which the peers tell
//! what a file holds. Dependencies are left out on purpose: the set is complete as the lock says, and apt then takes
//! exactly the packages it is told.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};

use crate::archive;
use crate::archive::lock_file::LockedPackage;

/// The suite's name: the peers treat the Debian release of that name.
pub(super) const SUITE: &str = "trixie";
/// Where the index says the packages are.
const POOL: &str = "pool";
/// Where the folder of the cache is to be put; it is empty.
pub(super) const CACHED: &str = "cached";
/// Where apt looks for the index below a suite.
const INDEX: &str = "main/binary-amd64/Packages";

/// Writes the index of `packages`, which lie below `cached`, and links to them into `repository`.
///
/// # Errors
/// When a package lies elsewhere, or something cannot be written.
pub(super) fn write(
    repository: &Utf8Path,
    cached: &Utf8Path,
    packages: &[(LockedPackage, Utf8PathBuf)],
) -> Result<()> {
    let index: String = packages.iter().map(|(package, _)| stanza(package)).collect();
    let suite = repository.join("dists").join(SUITE);
    let hash = archive::hex(&Sha256::digest(&index));
    let release = format!(
        "Suite: {SUITE}\nCodename: {SUITE}\nArchitectures: amd64\nComponents: main\nSHA256:\n {hash} {} {INDEX}\n",
        index.len()
    );
    for folder in [repository.join(CACHED), repository.join(POOL), suite.join("main/binary-amd64")] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {folder}"))?;
    }
    for (path, text) in [(suite.join(INDEX), index), (suite.join("Release"), release)] {
        fs::write(&path, text).with_context(|| format!("cannot write {path}"))?;
    }
    for (package, deb) in packages {
        let file = deb.strip_prefix(cached).with_context(|| format!("{deb} is not below {cached}"))?;
        let link = repository.join(POOL).join(file_name(package));
        symlink(Utf8Path::new("..").join(CACHED).join(file), &link)
            .with_context(|| format!("cannot link {link}"))?;
    }
    Ok(())
}

/// As apt calls it in its own cache.
fn file_name(package: &LockedPackage) -> String {
    let LockedPackage { name, version, architecture, .. } = package;
    format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a"))
}

fn stanza(package: &LockedPackage) -> String {
    let LockedPackage { name, version, architecture, size, sha256, .. } = package;
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(text, "Package: {name}\nVersion: {version}\nArchitecture: {architecture}");
    let _ = writeln!(text, "Maintainer: nobody <nobody@localhost>\nDescription: {name}");
    let _ = writeln!(text, "Filename: {POOL}/{}\nSize: {size}\nSHA256: {sha256}\n", file_name(package));
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
            version: "1:0.5".to_owned(),
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
        assert!(index.contains("\nFilename: pool/dash_1%3a0.5_amd64.deb\nSize: 7\nSHA256: abab"), "{index}");
        let link = fs::read_link(directory.join("pool/dash_1%3a0.5_amd64.deb")).unwrap();
        assert_eq!(link.to_str(), Some("../cached/ab/x.deb"));
        let other = tempfile::tempdir().unwrap();
        let other = Utf8Path::from_path(other.path()).unwrap();
        let error = write(other, Utf8Path::new("/cache"), &[(package, "/x.deb".into())]).unwrap_err();
        assert_eq!(error.to_string(), "/x.deb is not below /cache");
    }
}
