//! An archive of the locked packages for years: every `.deb` by its path in the pool, with the lock, the signed indexes
//! and the keys that prove it.
//!
//! Below `debian` and `debian-security` it is laid out as a mirror. A file is under its final name only when it is whole
//! and on the disk, so an interrupted run is gone on with by the next. Nothing is ever removed; a damaged package is replaced,
//! loudly.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use super::cache::{Cache, hash_file, parallel};
use super::lock_file::{LockFile, LockedPackage};
use super::mirrors::archive_folder;
use super::progress::Progress;
use super::repository::{Repository, SUITES};
use crate::scratch;

/// Says that a folder is an archive of ours, and which layout it has.
const MARKER: &str = "kontor-archive.toml";
const MARKER_TEXT: &str = "\
# Debian packages kept by `cargo xtask lock --archive`: debian/ and debian-security/ are laid out as mirrors, locks/ has
# every lock they were kept for, keys/ the keys that signed the indexes.
# To build from it without any network: cargo xtask image --offline --locked --archive THIS-FOLDER
schema = 1
";
/// Files being written.
const UNFINISHED: &str = ".unfinished";
/// Files checked and copied at once: disks read ahead, hashing takes a CPU.
const PARALLEL: usize = 4;
/// Space for indexes, and for what the file system itself needs.
const MARGIN: u64 = 64 << 20;

/// What was done.
#[derive(Debug, Default)]
pub struct Kept {
    /// Distinct packages of the lock, and their bytes.
    pub packages: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Packages copied because they were missing.
    pub added: usize,
    /// Paths whose content was damaged.
    pub replaced: Vec<String>,
    /// Packages that can no longer be had, and why.
    pub missing: Vec<String>,
    /// Suites whose proof could not be had, and why.
    pub unproved: Vec<String>,
    /// Packages that no signed index in the archive names.
    pub unvouched: Vec<String>,
    /// Files below the pools that no lock kept here names.
    pub foreign: Vec<String>,
}

/// The absolute path of an existing archive.
///
/// # Errors
/// When there is none.
pub fn opened(folder: &Utf8Path) -> Result<Utf8PathBuf> {
    let path =
        Utf8PathBuf::try_from(std::path::absolute(folder).with_context(|| format!("the path {folder}"))?)?;
    ensure!(
        path.join(MARKER).is_file(),
        "{path} is no archive of packages: it has no {MARKER}; `cargo xtask lock --archive {path}` makes one"
    );
    Ok(path)
}

/// An archive, locked against other runs.
#[derive(Debug)]
pub struct Archive {
    root: Utf8PathBuf,
    _lock: Flock<File>,
}

impl Archive {
    /// Opens or makes the archive at `folder`, which may lie in none of `outside`: build outputs and caches are
    /// cleaned away.
    ///
    /// # Errors
    /// When the folder cannot be used, or holds other things.
    pub fn open(folder: &Utf8Path, outside: &[&Utf8Path]) -> Result<Self> {
        let root = Utf8PathBuf::try_from(
            std::path::absolute(folder).with_context(|| format!("the path {folder}"))?,
        )?;
        ensure!(!folder.as_str().is_empty(), "--archive: the folder's name is empty");
        if let Ok(metadata) = fs::metadata(&root) {
            ensure!(metadata.is_dir(), "--archive {folder}: is not a folder");
        }
        for other in outside {
            ensure!(
                !real(&root).starts_with(real(other)),
                "--archive {folder}: lies in {other}, which is cleaned now and then; choose a folder elsewhere"
            );
        }
        fs::create_dir_all(&root).with_context(|| format!("--archive {folder}: cannot make the folder"))?;
        let empty = root.read_dir_utf8().with_context(|| format!("reading {root}"))?.next().is_none();
        ensure!(
            empty || root.join(MARKER).is_file() || root.join(UNFINISHED).is_dir(),
            "--archive {folder}: holds other files and no {MARKER}; give an empty or new folder, or an archive"
        );
        let unfinished = root.join(UNFINISHED);
        fs::create_dir_all(&unfinished)
            .with_context(|| format!("--archive {folder}: cannot be written to"))?;
        let lock = File::open(&unfinished).with_context(|| format!("opening {unfinished}"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| anyhow!(errno))
            .with_context(|| format!("--archive {folder}: another run is at work in it"))?;
        scratch::sweep(&unfinished, "");
        let archive = Self { root, _lock: lock };
        archive.place(MARKER, MARKER_TEXT.as_bytes())?;
        Ok(archive)
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// Makes the archive hold everything the lock names, and checks what it holds already.
    ///
    /// # Errors
    /// When it cannot be written, or the cache fails. What a mirror no longer has is in the result.
    pub fn keep(
        &self,
        lock: &LockFile,
        keys: &Utf8Path,
        repository: &Repository,
        cache: &Cache,
    ) -> Result<Kept> {
        let packages = distinct(lock);
        let mut kept = Kept {
            packages: packages.len(),
            bytes: packages.iter().map(|package| package.size).sum(),
            ..Kept::default()
        };
        self.keep_lock(lock, keys)?;
        let wanted = self.wanted(&packages, cache, &mut kept)?;
        self.room_for(&wanted)?;
        self.copy(&wanted, cache, &mut kept)?;
        self.prove(lock, &packages, repository, cache, &mut kept)?;
        kept.foreign = self.foreign()?;
        Ok(kept)
    }

    fn keep_lock(&self, lock: &LockFile, keys: &Utf8Path) -> Result<()> {
        let text = lock.to_text()?;
        let date = lock.releases.values().max().map_or("undated", |date| date.get(..10).unwrap_or(date));
        let hash = super::hex(&<sha2::Sha256 as sha2::Digest>::digest(&text));
        self.place(&format!("locks/{date}-{}.lock", &hash[..8]), text.as_bytes())?;
        for entry in keys.read_dir_utf8().with_context(|| format!("reading {keys}"))? {
            let path = entry.with_context(|| format!("reading {keys}"))?.into_path();
            if path.extension() == Some("asc") {
                let bytes = fs::read(&path).with_context(|| format!("reading {path}"))?;
                self.place(&format!("keys/{}", path.file_name().unwrap_or_default()), &bytes)?;
            }
        }
        Ok(())
    }

    /// The packages that are missing or damaged.
    fn wanted<'a>(
        &self,
        packages: &[&'a LockedPackage],
        cache: &Cache,
        kept: &mut Kept,
    ) -> Result<Vec<&'a LockedPackage>> {
        let began = Instant::now();
        let progress = Progress::new(cache.options().quiet, packages.len(), kept.bytes);
        let states = parallel(packages, PARALLEL, |package| {
            progress.track(&package.name, |report| {
                let path = self.root.join(path_of(package));
                let state = match fs::symlink_metadata(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::Missing,
                    Err(error) => return Err(error).with_context(|| format!("reading {path}")),
                    Ok(metadata) if !metadata.is_file() => {
                        bail!("{path} is in the way: it is no ordinary file")
                    }
                    Ok(metadata) if metadata.len() == package.size && hash_file(&path)? == package.sha256 => {
                        State::Good
                    }
                    Ok(_) => State::Damaged,
                };
                report(package.size);
                Ok(state)
            })
        })?;
        progress.finish("checked", began.elapsed());
        for (package, _) in packages.iter().zip(&states).filter(|(_, state)| **state == State::Damaged) {
            let path = path_of(package);
            eprintln!("warning: {}: damaged: replacing it", self.root.join(&path));
            kept.replaced.push(path);
        }
        let wanted = packages.iter().zip(states).filter(|(_, state)| *state != State::Good);
        Ok(wanted.map(|(package, _)| *package).collect())
    }

    fn room_for(&self, wanted: &[&LockedPackage]) -> Result<()> {
        let stat = statvfs(self.root.as_std_path())
            .with_context(|| format!("asking for the free space of {}", self.root))?;
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        let needed: u64 = wanted.iter().map(|package| package.size).sum();
        ensure!(
            wanted.is_empty() || free >= needed + MARGIN,
            "{}: {} MB are still to be kept, and {} MB are free: free some, or choose another disk",
            self.root,
            needed.div_ceil(1_000_000) + MARGIN / 1_000_000,
            free / 1_000_000
        );
        Ok(())
    }

    fn copy(&self, wanted: &[&LockedPackage], cache: &Cache, kept: &mut Kept) -> Result<()> {
        let files = cache.available(wanted)?;
        let mut ready = Vec::new();
        for (package, file) in wanted.iter().zip(files) {
            match file {
                Ok(file) => ready.push((*package, file)),
                Err(why) => kept.missing.push(format!("{} {}: {why}", package.name, package.version)),
            }
        }
        let (began, total) = (Instant::now(), ready.iter().map(|(package, _)| package.size).sum());
        let progress = Progress::new(cache.options().quiet, ready.len(), total);
        parallel(&ready, PARALLEL, |(package, file)| {
            progress.track(&package.name, |report| {
                let bytes = fs::read(file).with_context(|| format!("reading {file}"))?;
                self.place(&path_of(package), &bytes)?;
                report(package.size);
                Ok(())
            })
        })?;
        if !ready.is_empty() {
            progress.finish("kept", began.elapsed());
        }
        kept.added = ready.len().saturating_sub(kept.replaced.len());
        Ok(())
    }

    fn prove(
        &self,
        lock: &LockFile,
        packages: &[&LockedPackage],
        repository: &Repository,
        cache: &Cache,
        kept: &mut Kept,
    ) -> Result<()> {
        for suite in SUITES {
            let ours: Vec<&&LockedPackage> =
                packages.iter().filter(|package| package.suite == suite).collect();
            let date = lock.releases.get(suite).map_or("", String::as_str);
            let evidence = match repository.evidence(cache, suite, date) {
                Ok(evidence) => evidence,
                Err(error) => {
                    kept.unproved.push(format!("{suite}: {error:#}"));
                    continue;
                }
            };
            let folder = format!("{}/dists/{suite}", archive_folder(suite));
            for (path, file) in &evidence.indexes {
                let bytes = fs::read(file).with_context(|| format!("reading {file}"))?;
                self.place(&format!("{folder}/{path}"), &bytes)?;
            }
            // Every generation stays; the plain name has the one a mirror would serve.
            self.place(&format!("{folder}/InRelease-{}", evidence.date), evidence.release.as_bytes())?;
            self.place(&format!("{folder}/InRelease"), evidence.release.as_bytes())?;
            let unvouched = ours.into_iter().filter(|package| !evidence.vouched.contains(&package.sha256));
            kept.unvouched.extend(unvouched.map(|package| format!("{} {}", package.name, package.version)));
        }
        Ok(())
    }

    /// Files in the pools that no lock kept here names.
    fn foreign(&self) -> Result<Vec<String>> {
        let mut known = HashSet::new();
        for path in files_below(&self.root.join("locks"))? {
            let lock = LockFile::load(&path)?;
            known.extend(lock.sets().flat_map(|(_, packages)| packages).map(path_of));
        }
        let mut foreign = BTreeSet::new();
        for folder in SUITES.map(archive_folder) {
            for path in files_below(&self.root.join(folder).join("pool"))? {
                let path = path.strip_prefix(&self.root)?.to_string();
                if !known.contains(&path) {
                    foreign.insert(path);
                }
            }
        }
        Ok(foreign.into_iter().collect())
    }

    /// Puts a file under its name, whole and on the disk, or leaves what was there.
    pub(crate) fn place(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        if fs::read(&path).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        let folder = path.parent().context("a file has a folder")?;
        let placed = || -> Result<()> {
            fs::create_dir_all(folder)?;
            let (mut file, _claim) = scratch::file(&self.root.join(UNFINISHED), "", 0o644)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(folder)?.sync_all()?;
            Ok(())
        };
        placed().with_context(|| format!("writing {path}"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Missing,
    Damaged,
}

/// Every package once, by its path.
fn distinct(lock: &LockFile) -> Vec<&LockedPackage> {
    let all = lock.sets().flat_map(|(_, packages)| packages);
    all.map(|package| (path_of(package), package)).collect::<BTreeMap<_, _>>().into_values().collect()
}

fn path_of(package: &LockedPackage) -> String {
    format!("{}/{}", archive_folder(&package.suite), package.pool_path)
}

/// The path without links, as far as it exists.
fn real(path: &Utf8Path) -> Utf8PathBuf {
    let mut rest = Vec::new();
    for ancestor in path.ancestors() {
        if let Ok(found) = ancestor.canonicalize_utf8() {
            return rest.iter().rev().fold(found, |path, name| path.join(name));
        }
        rest.extend(ancestor.file_name());
    }
    path.to_owned()
}

/// Every file below a folder; none when there is no such folder.
pub(crate) fn files_below(folder: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        let entries = match folder.read_dir_utf8() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("reading {folder}"))?,
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {folder}"))?;
            match entry.file_type()?.is_dir() {
                true => pending.push(entry.into_path()),
                false => found.push(entry.into_path()),
            }
        }
    }
    Ok(found)
}
