//! A release in a folder of its own: the manifest of each product, and the objects that they name.
//!
//! The folder is what `publish` takes. The same images give the same bytes in it.

use std::fs;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_update::release::{Component, SCHEMA};
use kontor_update::{Release, Sha256Hex, Version};

use super::{forms, objects};
use crate::archive::cache::hash_file;
use crate::image::{self, BuiltImage, ImageOptions};
use crate::workspace::Workspace;

/// What it was built from; for people.
const SOURCE: &str = "source.toml";

/// What to release.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its version.
    pub version: Version,
    /// Boxes with an older version need another release first.
    pub from_minimum: Version,
    /// What is new.
    pub changelog: String,
    /// Folders with older releases, from which boxes will come: each gets patches.
    pub from: Vec<Utf8PathBuf>,
    /// The folder it goes to; by default `target/releases/VERSION`.
    pub folder: Option<Utf8PathBuf>,
}

/// A finished release.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Where it is.
    pub path: Utf8PathBuf,
    /// The manifests.
    pub releases: Vec<Release>,
}

/// Builds a product's image with this version and puts the release into its folder. Only the version, and what the options say
/// of the image, make it another image than `cargo xtask image` would.
///
/// # Errors
/// When the image cannot be built, or the folder cannot be written.
pub fn build(image: &ImageOptions, options: &Options) -> Result<Release> {
    let image = ImageOptions { version: Some(options.version), ..image.clone() };
    // Mistakes first.
    older(options)?;
    assemble(&image::build(&image)?, options)
}

/// Puts a built image into the release's folder.
///
/// # Errors
/// When something cannot be read or written.
pub fn assemble(built: &BuiltImage, options: &Options) -> Result<Release> {
    let folder = folder(options);
    let store = folder.join(objects::FOLDER);
    let named = &built.release;
    let folders = older(options)?;
    let make = |name: &str, path: &Utf8Path, component: Option<&str>| {
        forms::make(name, path, &forms::older(&folders, &named.product, component), &store)
    };
    let component = |sealed: &crate::component::Sealed| -> Result<Component> {
        let verity = Sha256Hex::try_from(sealed.seal.verity.clone())?;
        let image = make(&sealed.name, &sealed.path, Some(&sealed.name))?;
        Ok(Component { name: sealed.name.clone(), verity, image })
    };
    let release = Release {
        schema: SCHEMA,
        product: named.product.clone(),
        version: options.version,
        boards: named.boards.clone(),
        date: named.date.clone(),
        epoch_s: u64::from(named.epoch_s),
        security_epoch: named.security_epoch,
        from_minimum: options.from_minimum,
        // The program is built from the same sources, without its features for tests.
        state_schema: kontor_migrate::TABLE.span(),
        changelog: options.changelog.clone(),
        slot: make("slot", &built.slot_image, None)?,
        components: built.components.iter().map(component).collect::<Result<_>>()?,
        sbom: Some(objects::copy_in(&built.sbom, &store)?),
    };
    ensure!(
        named.version == options.version.to_string(),
        "the image is of version {}, not {}",
        named.version,
        options.version
    );
    write(&folder, &release)?;
    Ok(release)
}

pub(crate) fn older(options: &Options) -> Result<Vec<Folder>> {
    options.from.iter().map(|folder| Folder::open(folder)).collect()
}

/// Writes a manifest beside its objects.
///
/// # Errors
/// When it contradicts itself or cannot be written.
pub fn write(folder: &Utf8Path, release: &Release) -> Result<()> {
    release.check().map_err(|problem| anyhow::anyhow!("the manifest of {}: {problem}", release.product))?;
    super::atomic(&folder.join(format!("{}.json", release.product)), &release.to_json())
}

/// The folder of a release.
#[must_use]
pub fn folder(options: &Options) -> Utf8PathBuf {
    options.folder.clone().unwrap_or_else(|| default_folder(options.version))
}

/// Where releases are unless it is said otherwise. Not `target/release`, which is cargo's.
#[must_use]
pub fn default_folder(version: Version) -> Utf8PathBuf {
    Workspace::locate().target().join("releases").join(version.to_string())
}

impl Folder {
    /// Reads the manifests of a release.
    ///
    /// # Errors
    /// When there are none, or one is wrong.
    pub fn open(path: &Utf8Path) -> Result<Self> {
        let entries = path
            .read_dir_utf8()
            .with_context(|| format!("there is no release in {path}; `cargo xtask release` makes one"))?;
        let mut releases = Vec::new();
        for entry in entries {
            let file = entry?.into_path();
            if file.extension() == Some("json") {
                let bytes = fs::read(&file).with_context(|| format!("cannot read {file}"))?;
                let release = Release::parse(&bytes).with_context(|| file.to_string())?;
                ensure!(file.file_stem() == Some(&release.product), "{file} is of {}", release.product);
                releases.push(release);
            }
        }
        ensure!(!releases.is_empty(), "there is no manifest in {path}");
        releases.sort_by(|a, b| a.product.cmp(&b.product));
        Ok(Self { path: path.to_owned(), releases })
    }

    /// Where its objects are.
    #[must_use]
    pub fn objects(&self) -> Utf8PathBuf {
        self.path.join(objects::FOLDER)
    }
}

/// What a release was built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    /// The commit, if there is git.
    pub commit: Option<String>,
    /// Whether files differ from it, or nobody knows.
    pub dirty: bool,
    /// SHA-256 of `rootfs/packages.lock`.
    pub packages_lock: String,
    /// SHA-256 of `Cargo.lock`.
    pub cargo_lock: String,
}

impl SourceFacts {
    /// Of this repository, now.
    ///
    /// # Errors
    /// When a lock cannot be read.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let git = |arguments: &[&str]| -> Option<String> {
            let output = super::git(workspace.root(), arguments).ok()?;
            Some(String::from_utf8_lossy(&output).trim().to_owned())
        };
        Ok(Self {
            commit: git(&["rev-parse", "HEAD"]),
            dirty: git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty()),
            packages_lock: hash_file(&workspace.lock_file())?,
            cargo_lock: hash_file(&workspace.root().join("Cargo.lock"))?,
        })
    }

    /// Puts it beside the manifests.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Utf8Path) -> Result<()> {
        super::atomic(&folder.join(SOURCE), self.to_toml().as_bytes())
    }

    /// As a file for people.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let Self { commit, dirty, packages_lock, cargo_lock } = self;
        let commit = commit.as_deref().unwrap_or("unknown");
        format!(
            "commit = \"{commit}\"\ndirty = {dirty}\npackages-lock-sha256 = \"{packages_lock}\"\ncargo-lock-sha256 = \"{cargo_lock}\"\n"
        )
    }
}
