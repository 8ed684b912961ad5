//! What an image is made of: every package, the kernel, the boot loader and our own crates, with versions, sources,
//! licences and what needs what.
//!
//! Written beside each image as CycloneDX, together with the licence texts that must go with it. Everything comes
//! from the lock files and from inside the locked packages; nothing is guessed and nothing looked up elsewhere.

mod bundle;
pub mod component;
pub mod copyright;
mod crates;
mod cyclonedx;
mod debian;
pub(crate) mod facts;
pub mod spdx;

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use self::component::Component;
use crate::archive::cache::Cache;
use crate::archive::lock_file::{LockFile, LockedPackage};
use crate::archive::sets::{self, Declaration};
use crate::image::plan::{BASE_SET, Plan, TOOLS_SET};
use crate::image::step::{Key, Steps};
use crate::scratch;
use crate::workspace::Workspace;

pub use bundle::bundle;
pub use cyclonedx::document;

/// Packages of the tools set whose code is in the image: GRUB's boot sectors and modules. The others only run here.
const BOOT_CODE: [&str; 2] = ["grub-efi-amd64-bin", "grub-pc-bin"];
/// Raise it when this module's code changes what it makes.
const VERSION: u32 = 2;
/// Names in the step's directory, and the extensions beside an image.
const DOCUMENT: &str = "cdx.json";
const TEXTS: &str = "licences.tar.zst";

/// An image's parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sbom {
    /// `images/NAME.toml`.
    pub product: String,
    /// Version of the release.
    pub version: String,
    /// Day of the release, ISO 8601.
    pub date: String,
    /// Package URLs of what the product asks for; everything else is there because these need it.
    pub roots: Vec<String>,
    /// All parts, sorted.
    pub components: Vec<Component>,
}

/// A finished document and its licence texts.
#[derive(Debug, Clone)]
pub struct Written {
    /// The CycloneDX document.
    pub document: Utf8PathBuf,
    /// The licence texts.
    pub texts: Utf8PathBuf,
}

impl Written {
    /// Copies both beside the image they belong to, unless they are there already.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn copy_beside(&self, image: &Utf8Path) -> Result<()> {
        for (from, extension) in [(&self.document, DOCUMENT), (&self.texts, TEXTS)] {
            let to = image.with_extension(extension);
            let bytes = std::fs::read(from).with_context(|| format!("cannot read {from}"))?;
            if std::fs::read(&to).ok().as_ref() != Some(&bytes) {
                write_atomically(&to, &bytes)?;
            }
        }
        Ok(())
    }
}

/// What the steps need to know.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What the image is.
    pub plan: &'a Plan,
    /// The packages.
    pub lock: &'a LockFile,
    /// Where they are.
    pub cache: &'a Cache,
    /// Where our crates are.
    pub workspace: &'a Workspace,
}

impl Source<'_> {
    /// The step `sbom`: document and texts, made again only when a package or a crate changes.
    ///
    /// # Errors
    /// When a package or crate cannot be read, or names no licence.
    pub fn make(&self, steps: &Steps) -> Result<Written> {
        let step = steps.result("sbom", &self.key()?, |out| {
            let sbom = self.gather()?;
            write(&out.join(DOCUMENT), document(&sbom).as_bytes())?;
            write(&out.join(TEXTS), &bundle(&sbom, self.plan.release.epoch_s)?)
        })?;
        Ok(Written { document: step.join(DOCUMENT), texts: step.join(TEXTS) })
    }

    fn key(&self) -> Result<Key> {
        let release = &self.plan.release;
        let mut key =
            Key::new("sbom", VERSION).with(&release.product).with(&release.version).with(&release.date);
        for declared in self.declared()? {
            key.add(declared.fingerprint().as_bytes());
        }
        for package in self.groups()?.into_iter().flatten() {
            key.add(package.sha256.as_bytes());
        }
        for path in crates::inputs(self.workspace)? {
            key.add(&std::fs::read(&path).with_context(|| format!("cannot read {path}"))?);
        }
        Ok(key)
    }

    /// The base's set and those of the components.
    fn sets(&self) -> impl Iterator<Item = &str> {
        [BASE_SET].into_iter().chain(self.plan.components.iter().map(|component| component.name()))
    }

    /// Every package with something in the image, by root file system: what a package needs is met within its own. The same
    /// package may be in several of them, also in another version.
    fn groups(&self) -> Result<Vec<Vec<&LockedPackage>>> {
        let tools = self.lock.set(TOOLS_SET)?.iter();
        let boot_code = tools.filter(|package| BOOT_CODE.contains(&package.name.as_str()));
        let mut groups = self
            .sets()
            .map(|set| Ok(self.lock.set(set)?.iter().collect()))
            .collect::<Result<Vec<Vec<_>>>>()?;
        groups[0].extend(boot_code);
        Ok(groups)
    }

    /// The parts, from the lock files and from inside the packages.
    ///
    /// # Errors
    /// When a package or crate cannot be read, or names no licence.
    pub fn gather(&self) -> Result<Sbom> {
        let groups = self.groups()?;
        let mut components = Vec::new();
        for packages in &groups {
            let facts = facts::facts(packages, self.cache, &self.workspace.target())?;
            components.extend(debian::components(packages, &facts, &self.documentation(packages, &facts)?)?);
        }
        let crates = crates::components(self.workspace)?;
        let declared = self.declared()?;
        let asked = |package: &&&LockedPackage| self.is_asked_for(package, &declared);
        let roots = groups.iter().flatten().filter(asked).map(|package| debian::purl(package));
        let mut roots: Vec<String> =
            roots.chain(crates.first().map(|program| program.purl.clone())).collect();
        components.extend(crates);
        let components = component::united(components);
        roots.sort();
        roots.dedup();
        let release = &self.plan.release;
        Ok(Sbom {
            product: release.product.clone(),
            version: release.version.clone(),
            date: release.date.clone(),
            roots,
            components,
        })
    }

    /// What is known of packages that only hold the copyright files of those in the image.
    fn documentation(
        &self,
        packages: &[&LockedPackage],
        facts: &[facts::Facts],
    ) -> Result<BTreeMap<String, facts::Facts>> {
        let wanted = debian::documented_elsewhere(packages, facts);
        let tools = self.lock.set(TOOLS_SET)?.iter().filter(|package| wanted.contains(&package.name));
        let found: Vec<&LockedPackage> = tools.collect();
        let facts = facts::facts(&found, self.cache, &self.workspace.target())?;
        Ok(found.iter().map(|package| package.name.clone()).zip(facts).collect())
    }

    fn declared(&self) -> Result<Vec<Declaration>> {
        let mut sets = sets::load(&self.workspace.root().join("rootfs"))?;
        let mut take = |set: &str| {
            sets.remove(set).with_context(|| format!("no file below rootfs/ declares the set {set:?}"))
        };
        self.sets().map(&mut take).collect()
    }

    fn is_asked_for(&self, package: &LockedPackage, declared: &[Declaration]) -> bool {
        let names = declared.iter().flat_map(|one| one.closure.iter().chain(&one.single));
        let named = names.into_iter().any(|name| *name == package.name);
        named || package.name == self.plan.kernel.name || BOOT_CODE.contains(&package.name.as_str())
    }
}

fn write(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {path}"))
}

/// Under a temporary name first, so that a file of this name is always whole.
pub fn write_atomically(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let (mut file, _claim) = scratch::file(parent, ".unfinished-", 0o666)?;
    file.write_all(bytes).with_context(|| format!("cannot write {path}"))?;
    file.persist(path).with_context(|| format!("cannot write {path}"))?;
    Ok(())
}
