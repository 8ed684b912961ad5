//! Releases for boxes under test: the image that is tested, under another version, in a repository of its own.
//!
//! They are signed with this checkout's development keys, whose root the tested image trusts. Objects are compressed quickly:
//! how small they get is the business of `cargo xtask release`.

mod bad;

use std::fs;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_delta::pack;
use kontor_update::release::{Component, Form, Image, Object, SCHEMA};
use kontor_update::{Release, Sha256Hex, Span, Version};
use sha2::{Digest, Sha256};
use xtask::archive::lock_file::LockFile;
use xtask::image::{self, BuiltImage, ImageOptions, firmware};
use xtask::publish::forms::put_chunks;
use xtask::publish::keys::Keys;
use xtask::publish::release::{Folder, write};
use xtask::publish::rollout::{self, Rollout};
use xtask::publish::{objects, root};
use xtask::tools::Tools;
use xtask::workspace::Workspace;

pub use bad::Fault;

/// Level 1, of whole images and of chunks: 200 MB in a second.
const LEVEL: i32 = 1;

/// A release in the making: whoever wants a bad one changes it before it is published.
#[derive(Debug)]
pub struct Draft {
    folder: Utf8PathBuf,
    slot: Utf8PathBuf,
    components: Vec<Utf8PathBuf>,
    tools: Tools,
    /// The manifest.
    pub release: Release,
}

impl Draft {
    /// The tested source under this version, in `folder`.
    ///
    /// # Errors
    /// When it cannot be built or compressed.
    pub fn build(version: &str, folder: &Utf8Path) -> Result<Self> {
        Self::build_of(options(version, None)?, folder)
    }

    /// A release that is built by these options, in `folder`.
    ///
    /// # Errors
    /// When it cannot be built or compressed.
    pub fn build_of(options: ImageOptions, folder: &Utf8Path) -> Result<Self> {
        let version = options.version.context("a release has a version")?;
        // Not in the release's folder, of whose files each has to be a manifest.
        let images = Utf8PathBuf::from(format!("{folder}-image"));
        fs::create_dir_all(&images).with_context(|| images.to_string())?;
        let output = Some(images.join("disk.img"));
        let built = image::build(&ImageOptions { output, ..options })?;
        Self::of(&built, version, folder)
    }

    /// The tested source under this version, with a migration of what the box keeps that is there for tests alone.
    ///
    /// # Errors
    /// When it cannot be built or compressed.
    pub fn build_migrating(version: &str, folder: &Utf8Path) -> Result<Self> {
        let program = Utf8PathBuf::from(format!("{folder}-kontor"));
        firmware::link_with_feature(&Workspace::locate(), "test-migration", &program)?;
        let mut draft =
            Self::build_of(ImageOptions { program: Some(program), ..options(version, None)? }, folder)?;
        draft.release.state_schema = Span { oldest: 1, newest: 2 };
        Ok(draft)
    }

    fn of(built: &BuiltImage, version: Version, folder: &Utf8Path) -> Result<Self> {
        let component = |sealed: &xtask::component::Sealed| -> Result<Component> {
            let verity = Sha256Hex::try_from(sealed.seal.verity.clone())?;
            Ok(Component {
                name: sealed.name.clone(),
                verity,
                image: compress(&read(&sealed.path)?, folder)?,
            })
        };
        let release = Release {
            schema: SCHEMA,
            product: built.release.product.clone(),
            version,
            boards: built.release.boards.clone(),
            date: built.release.date.clone(),
            epoch_s: u64::from(built.release.epoch_s),
            security_epoch: built.release.security_epoch,
            from_minimum: "0.0.0".parse()?,
            state_schema: kontor_migrate::TABLE.span(),
            changelog: "- under test".to_owned(),
            slot: compress(&read(&built.slot_image)?, folder)?,
            components: built.components.iter().map(component).collect::<Result<_>>()?,
            sbom: None,
        };
        let (slot, tools) = (built.slot_image.clone(), built.tools.clone());
        let components = built.components.iter().map(|sealed| sealed.path.clone()).collect();
        Ok(Self { folder: folder.to_owned(), slot, components, tools, release })
    }

    /// Makes it a release that does not work.
    ///
    /// # Errors
    /// When its slot cannot be made anew.
    pub fn spoil(&mut self, fault: Fault<'_>) -> Result<()> {
        let folder = Utf8PathBuf::from(format!("{}-bad", self.folder));
        let slot = bad::slot_with(&self.slot, fault, &folder, &self.tools)?;
        self.release.slot = compress(&read(&slot)?, &self.folder)?;
        Ok(())
    }

    /// Its first component has an image with one bit that is another one: what is signed is this image, and the digest that the
    /// right one has.
    ///
    /// # Errors
    /// When there is no component, or its image cannot be read.
    pub fn spoil_component(&mut self) -> Result<()> {
        let component = self.release.components.first_mut().context("the release has no component")?;
        let mut image = read(&self.components[0])?;
        let middle = image.len() / 2;
        image[middle] ^= 1;
        component.image = compress(&image, &self.folder)?;
        Ok(())
    }

    /// Puts it into the repository, as the channel's current release.
    ///
    /// # Errors
    /// When the publisher refuses it.
    pub fn publish(&self, repository: &Utf8Path) -> Result<()> {
        write(&self.folder, &self.release)?;
        let keys = Keys::open(&[root::development(&Workspace::locate())?])?;
        let folder = Folder::open(&self.folder)?;
        rollout::publish(repository, keys, &folder, &Rollout::default(), xtask::publish::now()?)?;
        Ok(())
    }

    /// Withdraws it: boxes that run it go back to what was published before.
    ///
    /// # Errors
    /// When the publisher refuses it.
    pub fn withdraw(&self, repository: &Utf8Path) -> Result<()> {
        let keys = Keys::open(&[root::development(&Workspace::locate())?])?;
        let (product, rollout) = (self.release.product.as_str(), Rollout::default());
        let (version, now) = (self.release.version, xtask::publish::now()?);
        rollout::withdraw(repository, keys, &rollout, (product, version), "under test", now)?;
        Ok(())
    }
}

/// Packages of more bytes are left out of a small release's components.
const SMALL_PACKAGE: u64 = 700_000;

/// How the tested source is built under this version; a small one has other, small components, which nobody could use.
///
/// # Errors
/// When the version is none, or there is no lock.
pub fn options(version: &str, small: Option<&str>) -> Result<ImageOptions> {
    let version = Some(version.parse::<Version>()?);
    let Some(component) = small else { return Ok(ImageOptions { version, ..ImageOptions::default() }) };
    let mut lock = LockFile::load(Workspace::locate().lock_file())?;
    let kept = lock.set(component)?.iter().filter(|package| package.size < SMALL_PACKAGE).cloned().collect();
    lock.replace(component, kept);
    Ok(ImageOptions { version, lock: Some(lock), ..ImageOptions::default() })
}

fn read(path: &Utf8Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.to_string())
}

fn digest(bytes: &[u8]) -> Sha256Hex {
    Sha256Hex::from_bytes(&Sha256::digest(bytes).into())
}

fn compress(image: &[u8], folder: &Utf8Path) -> Result<Image> {
    let bytes = zstd::encode_all(image, LEVEL)?;
    let object = Object { sha256: digest(&bytes), bytes: bytes.len() as u64 };
    let store = folder.join(objects::FOLDER);
    fs::create_dir_all(&store)?;
    fs::write(store.join(object.sha256.as_str()), bytes)?;
    let average = pack::average(image, object.bytes)?;
    let made = pack::make_with(image, average, LEVEL)?;
    let chunks = put_chunks(&made, &made.index.encode(), &store)?;
    let forms = vec![Form::Full(object), chunks];
    Ok(Image { bytes: image.len() as u64, sha256: digest(image), forms })
}
