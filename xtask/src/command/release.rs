//! `cargo xtask release`: builds a release of every product into a folder, ready to be published.

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_update::Version;

use crate::archive::cache::{Cache, FetchOptions};
use crate::archive::crates;
use crate::archive::keep::Archive;
use crate::archive::lock_file::LockFile;
use crate::archive::repository::Repository;
use crate::image::ImageOptions;
use crate::publish::archive::{self, Asked};
use crate::publish::release::{self, Folder, Options, SourceFacts};
use crate::publish::root;
use crate::workspace::Workspace;

const EXAMPLES: &str = "\
Examples:
  cargo xtask release 0.2.0 --keys /etc/kontor-root --changelog notes.md
  cargo xtask release 0.2.1 --from target/releases/0.2.0      boxes with 0.2.0 fetch what has changed
  cargo xtask release 0.2.1 --from-minimum 0.2.0             boxes with 0.1.x need 0.2.0 first
  cargo xtask release 0.2.0 --keys /etc/kontor-root --archive-to /srv/kontor-archive    and what it takes to build it again
  sh /srv/kontor-archive/releases/0.2.0/rebuild.sh /tmp/again    years later, without a network

It goes to target/releases/VERSION: PRODUCT.json, and what it names in objects/. `cargo xtask publish` takes it from there.";

/// Build a release of every product, for `publish`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Its version, major.minor.build
    pub version: Version,
    /// One product alone: the name of a file in images/
    #[arg(long, value_name = "NAME")]
    pub product: Option<String>,
    /// Its security epoch [default: the product's]; boxes take no release with a lower one than what runs
    #[arg(long, value_name = "N")]
    pub security_epoch: Option<u32>,
    /// Boxes with an older version need another release first
    #[arg(long, value_name = "VERSION", default_value = "0.0.0")]
    pub from_minimum: Version,
    /// A folder with an older release, whose boxes then fetch patches; may be named several times
    #[arg(long, value_name = "DIR")]
    pub from: Vec<Utf8PathBuf>,
    /// What is new, for operators
    #[arg(long, value_name = "FILE")]
    pub changelog: Option<Utf8PathBuf>,
    /// Put it here [default: target/releases/VERSION]
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<Utf8PathBuf>,
    /// Whose releases its boxes take: the folder with root.json [default: this checkout's development keys]
    #[arg(long, env = "KONTOR_KEYS", value_name = "DIR", value_delimiter = ':')]
    pub keys: Vec<Utf8PathBuf>,
    /// Keep in this folder what it takes to build the release again: source, packages, crates, and how
    #[arg(long, value_name = "DIR")]
    pub archive_to: Option<Utf8PathBuf>,
    /// How packages may be had
    #[command(flatten)]
    pub fetch: FetchOptions,
}

/// Runs the command.
///
/// # Errors
/// When an image cannot be built.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate();
    let changelog = args
        .changelog
        .as_ref()
        .map(|path| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}")));
    let options = Options {
        version: args.version,
        from_minimum: args.from_minimum,
        changelog: changelog.transpose()?.unwrap_or_default(),
        from: args.from.clone(),
        folder: args.output.clone(),
    };
    ensure!(options.changelog.len() < 64 << 10, "the changelog is longer than 64 KiB");
    let facts = SourceFacts::read(&workspace)?;
    if facts.dirty {
        eprintln!(
            "WARNING: the tree differs from its commit, or is none: nobody can build this release again"
        );
    }
    // Before the long part: what cannot be kept is said now.
    let archive = args.archive_to.as_ref().map(|folder| keep_inputs(args, &workspace, &facts, folder));
    let archive = archive.transpose()?;
    let keys = super::image::root_folder(&args.keys);
    if keys.is_none() {
        eprintln!(
            "WARNING: no keys are named; boxes with this release take only what this checkout's development keys sign"
        );
        root::development(&workspace)?;
    }
    let products = match &args.product {
        Some(product) => vec![product.clone()],
        None => products(&workspace)?,
    };
    for product in products {
        let image = ImageOptions {
            output: Some(workspace.images().join(format!("{product}-{}.img", args.version))),
            product,
            security_epoch: args.security_epoch,
            keys: keys.clone(),
            fetch: args.fetch.clone(),
            ..ImageOptions::default()
        };
        let release = release::build(&image, &options)?;
        let full = release.images().filter_map(|(_, image)| image.full());
        let bytes: u64 = full.map(|object| object.bytes).sum();
        eprintln!("{} {}: {} KiB for who has nothing of it", release.product, release.version, bytes >> 10);
    }
    let folder = release::folder(&options);
    facts.write(&folder)?;
    if let Some(archive) = archive {
        let trusted = root::trusted(keys.as_deref(), &workspace)?;
        let asked = Asked {
            version: args.version,
            product: args.product.clone(),
            security_epoch: args.security_epoch,
            from_minimum: args.from_minimum,
            changelog: options.changelog.clone(),
            from: release::older(&options)?,
            root: trusted.context("there is no root to trust")?.bytes,
        };
        let kept = archive::keep(&archive, workspace.root(), &facts, &asked, &Folder::open(&folder)?)?;
        eprintln!("{kept}/rebuild.sh builds it again");
    }
    super::print(format_args!("{folder}\n"))
}

/// Packages and crates.
fn keep_inputs(
    args: &Args,
    workspace: &Workspace,
    facts: &SourceFacts,
    folder: &Utf8Path,
) -> Result<Archive> {
    archive::commit(facts, workspace.root())?;
    let lock = LockFile::load(workspace.lock_file())?;
    let cache = Cache::open(&FetchOptions { locked: true, ..args.fetch.clone() })?;
    let rootfs = workspace.root().join("rootfs");
    let archive = super::lock::open_archive(folder, &cache)?;
    super::lock::keep(&archive, &rootfs, &lock, &Repository::load(&rootfs)?, &cache)?;
    let crates = crates::keep(&archive, workspace.root(), args.fetch.offline)?;
    eprintln!("{}: {crates} crates", archive.root());
    Ok(archive)
}

fn products(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root().join("images");
    let mut names = Vec::new();
    for entry in folder.read_dir_utf8().with_context(|| format!("cannot read {folder}"))? {
        let path = entry?.into_path();
        if path.extension() == Some("toml") {
            names.extend(path.file_stem().map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}
