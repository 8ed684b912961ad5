//! What it takes to build a release again in ten years, in the archive of its packages: source, crates, root, notes, and how.
//!
//! Nothing in it is secret, and nothing needs a network. A release that is kept already has to be the same one.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_update::Version;

use super::release::{Folder, SourceFacts};
use super::{git, objects, root};
use crate::archive::keep::Archive;
use crate::image::process;

/// The folder of releases in an archive.
const FOLDER: &str = "releases";
const REBUILD: &str = include_str!("rebuild.sh");
const TOOLCHAIN: &str = include_str!("toolchain.sh");

/// A release as it was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its version.
    pub version: Version,
    /// One product alone.
    pub product: Option<String>,
    /// Its security epoch, if it is not the product's own.
    pub security_epoch: Option<u32>,
    /// Boxes with an older version need another release first.
    pub from_minimum: Version,
    /// What is new.
    pub changelog: String,
    /// The root it trusts.
    pub root: Vec<u8>,
    /// Older releases with patches to this one, in this order.
    pub from: Vec<Folder>,
}

/// The commit of this source tree, if it can be kept.
///
/// # Errors
/// When files differ from it, or the repository has not all of its history.
pub fn commit<'a>(facts: &'a SourceFacts, tree: &Utf8Path) -> Result<&'a str> {
    let Some(commit) = &facts.commit else {
        bail!("{} is no git repository: a release that is to be kept is built from a commit", tree)
    };
    ensure!(
        !facts.dirty,
        "files differ from commit {commit}: commit them, or nobody can build the release again"
    );
    let shallow = git(tree, &["rev-parse", "--is-shallow-repository"])?;
    ensure!(
        String::from_utf8_lossy(&shallow).trim() == "false",
        "this clone has a part of the history only, which cannot be kept: `git fetch --unshallow`"
    );
    Ok(commit)
}

/// Puts everything but packages and crates into the archive; the folder where it is.
///
/// # Errors
/// When something cannot be read or written, or another release of this version is there.
pub fn keep(
    archive: &Archive,
    tree: &Utf8Path,
    facts: &SourceFacts,
    asked: &Asked,
    built: &Folder,
) -> Result<Utf8PathBuf> {
    let commit = commit(facts, tree)?;
    let name = format!("{FOLDER}/{}", asked.version);
    let folder = archive.root().join(&name);
    for release in &built.releases {
        let file = format!("{}.json", release.product);
        match fs::read(folder.join(&file)) {
            Ok(kept) => ensure!(
                kept == release.to_json(),
                "{}/{file} is of another release {}: give this one another version",
                folder,
                asked.version
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {folder}/{file}")),
        }
    }
    let place = |file: &str, bytes: &[u8]| archive.place(&format!("{name}/{file}"), bytes);
    place(root::FILE, &asked.root)?;
    for (number, older) in asked.from.iter().enumerate() {
        keep_older(archive, &format!("{name}/from/{number}"), older)?;
    }
    place("changelog.md", asked.changelog.as_bytes())?;
    place("source.bundle", &git(tree, &["bundle", "create", "--quiet", "-", "HEAD"])?)?;
    place("source.toml", facts.to_toml().as_bytes())?;
    place("toolchain.sh", TOOLCHAIN.as_bytes())?;
    place("toolchain.txt", &toolchain()?)?;
    place("rebuild.sh", rebuild(commit, asked).as_bytes())?;
    place("README.md", readme(commit, asked.version).as_bytes())?;
    for release in &built.releases {
        place(&format!("{}.json", release.product), &release.to_json())?;
    }
    Ok(folder)
}

/// What a patch is made from: the images of an older release, as they are released whole.
fn keep_older(archive: &Archive, name: &str, older: &Folder) -> Result<()> {
    for release in &older.releases {
        for object in release.images().filter_map(|(_, image)| image.full()) {
            objects::check(object, &older.objects())?;
            let path = objects::path(&older.objects(), object);
            let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
            archive.place(&format!("{name}/{}/{}", objects::FOLDER, object.sha256), &bytes)?;
        }
        archive.place(&format!("{name}/{}.json", release.product), &release.to_json())?;
    }
    Ok(())
}

fn toolchain() -> Result<Vec<u8>> {
    let mut command = Command::new("sh");
    command.args(["-c", TOOLCHAIN]);
    process::run(command)
}

fn rebuild(commit: &str, asked: &Asked) -> String {
    let mut arguments = format!("{} --from-minimum {}", asked.version, asked.from_minimum);
    if let Some(epoch) = asked.security_epoch {
        arguments += &format!(" --security-epoch {epoch}");
    }
    if let Some(product) = &asked.product {
        arguments += &format!(" --product '{product}'");
    }
    for number in 0..asked.from.len() {
        arguments += &format!(" --from \"$here/from/{number}\"");
    }
    REBUILD.replace("@COMMIT@", commit).replace("@ARGUMENTS@", &arguments)
}

fn readme(commit: &str, version: Version) -> String {
    format!(
        "\
# Release {version}, to be built again

From commit `{commit}`, which `source.bundle` has with all that led to it. The packages are in `../../debian` and
`../../debian-security`, the crates in `../../cargo`. What is not here: the programs in `toolchain.txt`, `git` and a shell. Install that
Rust toolchain, the C compiler and the C library it names. Then, with or without a network:

    sh rebuild.sh /a/new/folder

builds the release below that folder and compares its manifests with those beside this file. A manifest names each of its
objects by SHA-256. `rebuild.sh` is short: what it does can be done by hand.

`root.json` is the public root that the release's boxes trust. There is no key here, and none is needed to build; publishing needs them.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_asked_for_in_the_same_words() {
        let asked = Asked {
            version: "0.2.0".parse().unwrap(),
            product: None,
            security_epoch: None,
            from_minimum: "0.1.0".parse().unwrap(),
            changelog: String::new(),
            root: Vec::new(),
            from: Vec::new(),
        };
        let text = rebuild("c0ffee", &asked);
        assert!(text.contains("cargo xtask release 0.2.0 --from-minimum 0.1.0 --changelog"), "{text}");
        assert!(text.contains("--detach \"c0ffee\"") && !text.contains('@'), "{text}");
        let asked = Asked { product: Some("branch".into()), security_epoch: Some(3), ..asked };
        let text = rebuild("c0ffee", &asked);
        assert!(text.contains(" --security-epoch 3 --product 'branch' --changelog"), "{text}");
    }

    #[test]
    fn only_a_commit_can_be_kept() {
        let facts = SourceFacts {
            commit: Some("c0ffee".into()),
            dirty: true,
            packages_lock: String::new(),
            cargo_lock: String::new(),
        };
        let error = commit(&facts, Utf8Path::new(".")).unwrap_err().to_string();
        assert!(error.starts_with("files differ from commit c0ffee: commit them"), "{error}");
        let error =
            commit(&SourceFacts { commit: None, ..facts }, Utf8Path::new(".")).unwrap_err().to_string();
        assert!(error.contains("is no git repository"), "{error}");
    }

    #[test]
    fn the_toolchain_is_described_the_same_way_twice() {
        let text = String::from_utf8(toolchain().unwrap()).unwrap();
        assert!(text.starts_with("rustc ") && text.contains("\nlibc.a "), "{text}");
        assert_eq!(text.as_bytes(), toolchain().unwrap());
    }
}
