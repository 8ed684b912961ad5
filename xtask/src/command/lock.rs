//! `cargo xtask lock`: makes `rootfs/packages.lock` from the archive's current state.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::archive::cache::{Cache, FetchOptions};
use crate::archive::keep::Archive;
use crate::archive::lock_file::LockFile;
use crate::archive::prune;
use crate::archive::repository::Repository;
use crate::archive::sets;
use crate::workspace::Workspace;

const EXAMPLES: &str = "\
Examples:
  cargo xtask lock --dry-run            what would change today
  cargo xtask lock                      take every change
  cargo xtask lock --package nftables   only this source and what it needs
  cargo xtask lock --archive /srv/kept  keep every locked package there, for builds in ten years
  cargo xtask lock --prune --dry-run    what in the cache nobody has used for 90 days";

/// Resolve every package set against the Debian archive and write rootfs/packages.lock
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Change only these packages (with the others of their source, and what they newly need)
    #[arg(long = "package", value_name = "NAME")]
    pub packages: Vec<String>,
    /// Show what would change, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Only check that the lock fits the declared sets; needs no network
    #[arg(long, conflicts_with_all = ["packages", "dry_run"])]
    pub check: bool,
    /// Keep every locked package in this folder, with lock, signed indexes and keys; changes no lock
    #[arg(long, value_name = "DIR", conflicts_with_all = ["packages", "dry_run", "check", "prune"])]
    pub archive: Option<Utf8PathBuf>,
    /// Remove from the cache what the lock does not name and nobody has used for --days
    #[arg(long, conflicts_with_all = ["packages", "check"])]
    pub prune: bool,
    /// For --prune: days without use
    #[arg(long, value_name = "N", default_value_t = 90, requires = "prune", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub days: u64,
    /// Folder with the sets' declarations and the lock file
    #[arg(long, hide = true, default_value_t = default_rootfs())]
    pub rootfs: Utf8PathBuf,
    /// Mirror of the Debian archive (default: that of the host's apt configuration)
    #[arg(long, env = "KONTOR_MIRROR", value_name = "URL")]
    pub mirror: Option<String>,
    /// Mirror of the Debian security archive
    #[arg(long, env = "KONTOR_MIRROR_SECURITY", value_name = "URL")]
    pub mirror_security: Option<String>,
    /// Accept a release file past its date (a frozen mirror): security fixes may be missing
    #[arg(long)]
    pub ignore_valid_until: bool,
    /// No progress bars
    #[arg(long, short)]
    pub quiet: bool,
}

fn default_rootfs() -> Utf8PathBuf {
    Workspace::locate().root().join("rootfs")
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let path = args.rootfs.join("packages.lock");
    if args.check {
        LockFile::load(&path)?.check_requests(&sets::load(&args.rootfs)?)?;
        return super::print(format_args!("{path} fits the declared sets\n"));
    }
    let cache = Cache::open(&args.fetch_options())?;
    if args.prune {
        return remove_unused(args, &cache, &LockFile::load(&path)?);
    }
    let repository = Repository::load(&args.rootfs)?;
    if let Some(folder) = &args.archive {
        let archive = open_archive(folder, &cache)?;
        return keep(&archive, &args.rootfs, &LockFile::load(&path)?, &repository, &cache);
    }
    let old = if path.exists() { LockFile::load(&path)? } else { LockFile::new(&path) };
    let archive = repository.archive(&cache, Some(&old))?;
    let new = if args.packages.is_empty() {
        repository.lock(&archive, &path)?
    } else {
        let mut new = old.clone();
        repository.relock_from(&archive, &mut new, &sources_of(&old, &args.packages)?)?;
        new
    };
    if !args.dry_run {
        new.save()?;
    }
    super::print(report(&old, &new, args.dry_run))
}

pub(super) fn open_archive(folder: &Utf8Path, cache: &Cache) -> Result<Archive> {
    Archive::open(folder, &[&Workspace::locate().target(), cache.root()])
}

/// Keeps every locked package; a package or a proof that is missing is an error, after everything else is kept.
pub(super) fn keep(
    archive: &Archive,
    rootfs: &Utf8Path,
    lock: &LockFile,
    repository: &Repository,
    cache: &Cache,
) -> Result<()> {
    lock.check_requests(&sets::load(rootfs)?)?;
    let kept = archive.keep(lock, &rootfs.join("keys"), repository, cache)?;
    for (what, list) in [
        ("not named by any lock kept here; left alone", &kept.foreign),
        ("in no signed index that can still be had; only the lock vouches for it", &kept.unvouched),
    ] {
        warn(what, list);
    }
    super::print(format_args!(
        "{}: {} packages, {:.1} MB: {} added, {} replaced\n",
        archive.root(),
        kept.packages - kept.missing.len(),
        kept.bytes as f64 / 1e6,
        kept.added,
        kept.replaced.len()
    ))?;
    let troubles: Vec<&String> = kept.missing.iter().chain(&kept.unproved).collect();
    ensure!(
        troubles.is_empty(),
        "the archive is not complete; run the command again when a mirror has what is missing:\n{}",
        troubles.iter().map(|trouble| format!("  {trouble}")).collect::<Vec<_>>().join("\n")
    );
    Ok(())
}

/// At most ten lines; a whole pool of strange files is not worth more.
fn warn(what: &str, list: &[String]) {
    const SHOWN: usize = 10;
    for item in list.iter().take(SHOWN) {
        eprintln!("warning: {item}: {what}");
    }
    if list.len() > SHOWN {
        eprintln!("warning: and {} more: {what}", list.len() - SHOWN);
    }
}

fn remove_unused(args: &Args, cache: &Cache, lock: &LockFile) -> Result<()> {
    let age = Duration::from_secs(args.days * 86_400);
    let stale = prune::stale(cache.root(), lock, age, SystemTime::now())?;
    let mut text = String::new();
    for file in &stale {
        text += &format!("{}: {:.1} MB, unused for {} days\n", file.path, file.bytes as f64 / 1e6, file.days);
    }
    let bytes: u64 = stale.iter().map(|file| file.bytes).sum();
    let done = if args.dry_run { "not removed" } else { "removed" };
    if !args.dry_run {
        prune::remove(&stale)?;
    }
    super::print(format_args!("{text}{} files, {:.1} MB {done}\n", stale.len(), bytes as f64 / 1e6))
}

impl Args {
    fn fetch_options(&self) -> FetchOptions {
        FetchOptions {
            mirror: self.mirror.clone(),
            mirror_security: self.mirror_security.clone(),
            ignore_valid_until: self.ignore_valid_until,
            quiet: self.quiet,
            locked: true,
            ..FetchOptions::default()
        }
    }
}

fn sources_of<'a>(lock: &'a LockFile, names: &[String]) -> Result<Vec<&'a str>> {
    let all: Vec<_> = lock.sets().flat_map(|(_, packages)| packages).collect();
    ensure!(!all.is_empty(), "--package needs a lock file: run `cargo xtask lock` without it first");
    let source = |name: &String| {
        let found = all.iter().find(|package| package.name == *name);
        found
            .map(|package| package.source.as_str())
            .with_context(|| format!("the lock has no package {name:?}"))
    };
    names.iter().map(source).collect()
}

fn report(old: &LockFile, new: &LockFile, dry_run: bool) -> String {
    let mut lines = old.changes(new);
    let changes = lines.len();
    lines.extend(new.sets().map(|(set, packages)| {
        let size: u64 = packages.iter().map(|package| package.size).sum();
        format!("{set}: {} packages, {:.1} MB", packages.len(), size as f64 / 1e6)
    }));
    let done = if dry_run { "not written".to_owned() } else { format!("written to {}", new.path()) };
    lines.push(format!("{changes} changes, {done}\n"));
    lines.join("\n")
}
