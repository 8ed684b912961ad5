//! The same image twice, made under circumstances as different as this machine permits, and compared byte by byte.
//!
//! Both builds start from a copy of the tree with nothing built in it and compile the firmware anew; both are offline
//! and locked. What could not be varied here is said, never passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use self::compare::Difference;
use self::inside::{Order, Seen};
use self::surroundings::Surroundings;
use crate::archive::cache::{Cache, FetchOptions, hash_file};
use crate::archive::keep::files_below;
use crate::archive::lock_file::LockFile;
use crate::image::declaration::Product;
use crate::image::plan::{BASE_SET, TOOLS_SET};
use crate::publish::root;
use crate::scratch;
use crate::tools::Tools;
use crate::workspace::Workspace;

mod checkout;
pub mod compare;
pub mod cpio;
pub mod inside;
pub mod surroundings;
mod trees;

/// The set with the library that lies about the time.
pub const SET: &str = "reproduce";
/// How the folders of a comparison under way begin.
const UNFINISHED: &str = "kontor-reproduce-";

/// What to build twice.
#[derive(Debug, Clone)]
pub struct Options {
    /// `images/NAME.toml`.
    pub product: String,
    /// Compare with this image instead of building a first one.
    pub against: Option<Utf8PathBuf>,
    /// Leave trees and images where they were made.
    pub keep: bool,
    /// Where the root is that the images trust; by default the checkout's development keys.
    pub keys: Option<Utf8PathBuf>,
    /// How packages may be had, before the first build.
    pub fetch: FetchOptions,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The first image's SHA-256.
    pub sha256: String,
    /// What differed between the builds.
    pub varied: Vec<Varied>,
    /// What could not be varied here, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// Where the images differ, if they do.
    pub difference: Option<Difference>,
    /// Which file of the releases differs, and how; releases are made only when both images are.
    pub release_difference: Option<String>,
    /// Trees and images that were kept.
    pub kept: Vec<Utf8PathBuf>,
}

/// One circumstance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Varied {
    /// What it is.
    pub what: &'static str,
    /// In the first build.
    pub first: String,
    /// In the second.
    pub second: String,
}

/// Builds twice and compares.
///
/// # Errors
/// When a build fails or something it needs is missing. Images that differ are an outcome, not an error.
pub fn run(options: &Options) -> Result<Outcome> {
    let workspace = Workspace::locate();
    if options.keys.is_none() {
        root::development(&workspace)?;
    }
    let tools = provide(options, &workspace)?;
    let beside = workspace.target().join(SET);
    std::fs::create_dir_all(&beside).with_context(|| format!("making {beside}"))?;
    scratch::sweep(&beside, UNFINISHED);
    let mut kept = Vec::new();

    let first_folder = scratch::directory(&beside, UNFINISHED)?;
    let (first, here) = match &options.against {
        Some(image) => (image.clone(), inside::seen(workspace.root())?),
        None => build_first(options, &workspace, utf8(first_folder.0.path())?)?,
    };
    let sha256 = hash_file(&first)?;

    let room = surroundings::roomiest(&beside)?;
    scratch::sweep(&room, UNFINISHED);
    let second_folder = scratch::directory(&room, UNFINISHED)?;
    let around = Surroundings::other(utf8(second_folder.0.path())?, &workspace, &tools)?;
    let (second, there) = build_second(options, &workspace, &around)?;

    let difference = match hash_file(&second)? == sha256 {
        true => None,
        false => compare::images(&first, &second, &tools.own, &beside)?,
    };
    let release_difference = match options.against {
        Some(_) => None,
        None => releases(&release_beside(&first), &release_beside(&second))?,
    };
    let (varied, mut skipped) = listed(&here, &there);
    skipped.extend(around.skipped.clone());
    if difference.is_some() && !options.keep {
        kept = keep_images(&beside, [&first, &second])?;
    }
    if options.keep {
        kept =
            [first_folder.0, second_folder.0].map(tempfile::TempDir::keep).into_iter().map(named).collect();
    }
    Ok(Outcome { sha256, varied, skipped, difference, release_difference, kept })
}

/// The builder's tools, and the library that lies about the time.
#[derive(Debug)]
pub struct Sets {
    own: Tools,
    clock: Tools,
}

/// Everything from the network comes now; the builds themselves are offline.
fn provide(options: &Options, workspace: &Workspace) -> Result<Sets> {
    let mut lock = LockFile::load(workspace.lock_file())?;
    let cache = Cache::open(&options.fetch)?;
    let product = Product::load(&workspace.product(&options.product))?;
    let components = product.component.iter().map(String::as_str);
    let sets: Vec<&str> = [BASE_SET, TOOLS_SET, SET].into_iter().chain(components).collect();
    cache.provide(&mut lock, &sets)?;
    let target = workspace.target();
    Ok(Sets {
        own: Tools::prepare(&lock, &cache, &target)?,
        clock: Tools::prepare_set(SET, &lock, &cache, &target)?,
    })
}

fn build_first(options: &Options, workspace: &Workspace, folder: &Utf8Path) -> Result<(Utf8PathBuf, Seen)> {
    let tree = folder.join("first");
    checkout::copy(workspace.root(), &tree, checkout::Order::Sorted)?;
    plant_root(options, workspace, &tree)?;
    let mut command = Command::new(std::env::current_exe().context("the builder's own path")?);
    command.env("CARGO_MANIFEST_DIR", tree.join("xtask"));
    build(options, command, &Order::plain(), &tree, "first")
}

fn build_second(
    options: &Options,
    workspace: &Workspace,
    around: &Surroundings,
) -> Result<(Utf8PathBuf, Seen)> {
    checkout::copy(workspace.root(), &around.tree, checkout::Order::Reversed)?;
    plant_root(options, workspace, &around.tree)?;
    build(options, around.command()?, &around.order, &around.tree, "second")
}

/// Both builds trust the same root, which is an input like the lock. The tree has no keys of its own: it gets the root, as public
/// as it is in an image, and never a private key.
fn plant_root(options: &Options, workspace: &Workspace, tree: &Utf8Path) -> Result<()> {
    let trusted = root::trusted(options.keys.as_deref(), workspace)?.context("there is no root to trust")?;
    let folder = tree.join("target/keys/development");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {folder}"))?;
    let path = folder.join(root::FILE);
    std::fs::write(&path, trusted.bytes).with_context(|| format!("writing {path}"))
}

/// Runs one build in a process of its own.
fn build(
    options: &Options,
    mut command: Command,
    order: &Order,
    tree: &Utf8Path,
    name: &str,
) -> Result<(Utf8PathBuf, Seen)> {
    let began = Instant::now();
    let image = tree.join(format!("target/images/{}.img", options.product));
    let release = options.against.is_none().then(|| release_beside(&image));
    let order = order.clone().building(&options.product, &image).releasing(release);
    eprintln!("=== the {name} build, in {tree}");
    command.env(inside::ORDER, serde_json::to_string(&order)?);
    command.current_dir(tree).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let output = command
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .with_context(|| format!("starting the {name} build"))?;
    ensure!(output.status.success(), "the {name} build failed ({}), see above", output.status);
    let seen = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("reading what the {name} build saw of its surroundings"))?;
    eprintln!("=== the {name} build took {} s", began.elapsed().as_secs());
    Ok((image, seen))
}

/// What differed, and what should have but did not.
fn listed(here: &Seen, there: &Seen) -> (Vec<Varied>, Vec<(&'static str, String)>) {
    let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) = (here.facts(), there.facts());
    let mut varied = Vec::new();
    let mut skipped = Vec::new();
    for (what, first) in here {
        match there.get(what) {
            Some(second) if *second != first => varied.push(Varied { what, first, second: second.clone() }),
            _ => skipped.push((what, format!("{first} in both builds"))),
        }
    }
    (varied, skipped)
}

fn release_beside(image: &Utf8Path) -> Utf8PathBuf {
    image.with_extension("release")
}

/// Manifest and objects of both: the first file that differs. Who may read them is nobody's business here.
fn releases(first: &Utf8Path, second: &Utf8Path) -> Result<Option<String>> {
    let hashes = |folder: &Utf8Path| -> Result<BTreeMap<String, String>> {
        let named = |path: Utf8PathBuf| Ok((path.strip_prefix(folder)?.to_string(), hash_file(&path)?));
        files_below(folder)?.into_iter().map(named).collect()
    };
    let (first, second) = (hashes(first)?, hashes(second)?);
    ensure!(!first.is_empty(), "the first build made no release");
    let all: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let differs = all.into_iter().find(|name| first.get(*name) != second.get(*name));
    Ok(differs.map(|name| match (first.get(name), second.get(name)) {
        (Some(_), Some(_)) => format!("{name} has other bytes"),
        (Some(_), None) => format!("{name} is in the first only"),
        _ => format!("{name} is in the second only"),
    }))
}

fn keep_images(folder: &Utf8Path, images: [&Utf8PathBuf; 2]) -> Result<Vec<Utf8PathBuf>> {
    let mut kept = Vec::new();
    for (image, name) in images.into_iter().zip(["first.img", "second.img"]) {
        let to = folder.join(name);
        checkout::copy_sparse(image, &to)?;
        kept.push(to);
    }
    Ok(kept)
}

fn utf8(path: &std::path::Path) -> Result<&Utf8Path> {
    match Utf8Path::from_path(path) {
        Some(path) => Ok(path),
        None => bail!("{}: the path is not UTF-8", path.display()),
    }
}

fn named(path: std::path::PathBuf) -> Utf8PathBuf {
    Utf8PathBuf::from_path_buf(path).unwrap_or_else(|path| path.to_string_lossy().into_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_differs_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(scratch.path()).unwrap();
        let (first, second) = (root.join("first"), root.join("second"));
        for folder in [&first, &second] {
            std::fs::create_dir_all(folder.join("objects")).unwrap();
            std::fs::write(folder.join("branch.json"), "{}").unwrap();
            std::fs::write(folder.join("objects/a"), "a").unwrap();
        }
        assert_eq!(releases(&first, &second).unwrap(), None);
        std::fs::write(second.join("objects/b"), "b").unwrap();
        assert_eq!(releases(&first, &second).unwrap().unwrap(), "objects/b is in the second only");
        assert_eq!(releases(&second, &first).unwrap().unwrap(), "objects/b is in the first only");
        std::fs::write(second.join("branch.json"), "{ }").unwrap();
        assert_eq!(releases(&first, &second).unwrap().unwrap(), "branch.json has other bytes");
        assert!(releases(&root.join("none"), &second).is_err());
    }
}
