//! The builder's tools, unpacked from locked packages and run through their own loader.
//!
//! Nothing of the host is used: neither its programs nor its libraries, and no privilege. A tree is unpacked once per
//! content of its set, under `target/tools/<set>-<hash>`, and appears there whole or not at all.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};

use crate::archive::cache::{Cache, parallel};
use crate::archive::lock_file::{LockFile, LockedPackage};
use crate::deb::{self, Entry, Kind};
use crate::scratch;

/// Changes when trees are laid out differently, so that old ones are not reused.
const LAYOUT: u32 = 1;
/// A library that every tool gets before its own: how `cargo xtask reproduce` gives the tools another clock.
pub const PRELOAD: &str = "KONTOR_PRELOAD";
/// What tools may know of the environment.
const PASSED: [&str; 8] =
    ["PATH", "HOME", "TMPDIR", "TERM", "XDG_RUNTIME_DIR", "http_proxy", "https_proxy", "no_proxy"];
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const PROGRAM_FOLDERS: [&str; 4] = ["usr/bin", "usr/sbin", "usr/libexec", "usr/lib/qemu"];
/// How the folders of unfinished trees begin; never mistaken for a tree.
const UNPACKING: &str = ".unpack-";
/// Top-level folders that a merged-/usr system has as links (Debian policy, section 10.1).
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// One unpacked set.
#[derive(Debug, Clone)]
pub struct Tools {
    root: Utf8PathBuf,
}

impl Tools {
    /// Unpacks the set `tools` under `target_dir/tools`, unless it is there.
    pub fn prepare(lock: &LockFile, cache: &Cache, target_dir: impl AsRef<Utf8Path>) -> Result<Self> {
        Self::prepare_set("tools", lock, cache, target_dir)
    }

    /// Unpacks any set under `target_dir/tools`, unless it is there.
    pub fn prepare_set(
        set: &str,
        lock: &LockFile,
        cache: &Cache,
        target_dir: impl AsRef<Utf8Path>,
    ) -> Result<Self> {
        Self::of_packages(set, lock.set(set)?, cache, target_dir)
    }

    /// The same of these packages, which are known as `set`.
    pub fn of_packages(
        set: &str,
        packages: &[LockedPackage],
        cache: &Cache,
        target_dir: impl AsRef<Utf8Path>,
    ) -> Result<Self> {
        let folder = std::path::absolute(target_dir.as_ref().join("tools"))?;
        let folder = Utf8PathBuf::try_from(folder)?;
        // The loader takes a list of folders, and knows no way to quote (ld.so(8), `--library-path`).
        ensure!(
            !folder.as_str().contains([':', ';']),
            "the tools cannot run from {folder}: a path with ':' or ';' is none to their loader; move the checkout"
        );
        let root = folder.join(format!("{set}-{}", fingerprint(packages)));
        if !root.is_dir() {
            let debs = cache.fetch(&packages.iter().collect::<Vec<_>>())?;
            fs::create_dir_all(&folder).with_context(|| format!("making {folder}"))?;
            scratch::sweep(&folder, UNPACKING);
            let (fresh, _claim) = scratch::directory(&folder, UNPACKING)?;
            let fresh_root =
                Utf8Path::from_path(fresh.path()).context("the target folder's path is not UTF-8")?;
            unpack(&debs, fresh_root).with_context(|| format!("unpacking the set {set:?}"))?;
            scratch::settle(fresh_root)?;
            publish(fresh, &root)?;
            scratch::settle_name(&root)?;
        }
        Ok(Tools { root })
    }

    /// The tree's root.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// A file or folder of the tree, whether it exists or not.
    pub fn path(&self, relative: impl AsRef<Utf8Path>) -> Utf8PathBuf {
        self.root.join(relative)
    }

    /// A command for a program of the tree; its arguments can be added as usual.
    ///
    /// Programs that look for their data relative to themselves are told where it is. Of the environment they get what
    /// cannot change a result: `SOURCE_DATE_EPOCH`, for one, overrides the times given to mkfs.erofs.
    pub fn command(&self, program: &str) -> Result<Command> {
        let path = self.find(program)?;
        let preloaded = std::env::var(PRELOAD).ok().map(Utf8PathBuf::from);
        let loader = self.loader(preloaded.as_deref())?;
        let (first, rest) = loader.split_first().context("no loader")?;
        let mut command = Command::new(first);
        command.args(rest).arg("--argv0").arg(program).arg(path);
        let passed = |name: &str| PASSED.contains(&name) || (preloaded.is_some() && name.contains("FAKE"));
        command.env_clear();
        command.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(passed)));
        command.env("LC_ALL", "C").env("TZ", "UTC");
        command.env("MKE2FS_CONFIG", self.path("etc/mke2fs.conf"));
        if program.starts_with("qemu-system-") {
            command.env("QEMU_MODULE_DIR", self.path(LIBRARIES).join("qemu"));
            for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
                command.arg("-L").arg(self.path(data));
            }
        }
        Ok(command)
    }

    /// The command line before a program's path: the tree's own loader and libraries, and perhaps one more library
    /// before them.
    pub fn loader(&self, preloaded: Option<&Utf8Path>) -> Result<Vec<String>> {
        let mut line =
            vec![self.root.join(LOADER).into_string(), "--library-path".to_owned(), self.library_path()?];
        if let Some(library) = preloaded {
            line.extend(["--preload".to_owned(), library.to_string()]);
        }
        Ok(line)
    }

    fn find(&self, program: &str) -> Result<Utf8PathBuf> {
        ensure!(!program.contains('/'), "{program:?}: programs are named without a path");
        let mut candidates = PROGRAM_FOLDERS.iter().map(|folder| self.root.join(folder).join(program));
        let found = candidates.find(|path| path.is_file());
        found.with_context(|| format!("no program {program:?} in the tool tree {}", self.root))
    }

    /// The libraries' folder, and those of its subfolders that hold libraries which programs find by RUNPATH.
    fn library_path(&self) -> Result<String> {
        let main = self.root.join(LIBRARIES);
        let mut folders = vec![main.clone()];
        let read = || main.read_dir_utf8()?.collect::<Result<Vec<_>, _>>();
        let mut entries = read().with_context(|| format!("reading {main}"))?;
        entries.sort_by(|a, b| a.file_name().cmp(b.file_name()));
        for entry in entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let libraries = entry.path().read_dir_utf8().into_iter().flatten().flatten();
            let is_library = |name: &str| name.starts_with("lib") && name.contains(".so");
            if libraries.into_iter().any(|file| is_library(file.file_name())) {
                folders.push(entry.path().to_owned());
            }
        }
        Ok(folders.iter().map(|folder| folder.as_str()).collect::<Vec<_>>().join(":"))
    }
}

fn fingerprint(packages: &[LockedPackage]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(LAYOUT.to_le_bytes());
    for package in packages {
        hasher.update(&package.sha256);
    }
    crate::archive::hex(&hasher.finalize())[..16].to_owned()
}

/// Moves the finished tree to its place; a concurrent run that was faster wins.
fn publish(fresh: tempfile::TempDir, root: &Utf8Path) -> Result<()> {
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755))?;
    match fs::rename(fresh.path(), root) {
        Ok(()) => {
            // Moved away: there is nothing left to remove.
            let _ = fresh.keep();
            Ok(())
        }
        Err(_) if root.is_dir() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("moving the tools to {root}")),
    }
}

fn unpack(debs: &[Utf8PathBuf], root: &Utf8Path) -> Result<()> {
    for folder in MERGED {
        fs::create_dir_all(root.join("usr").join(folder))?;
        symlink(format!("usr/{folder}"), root.join(folder))?;
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut debs: Vec<(u64, &Utf8PathBuf)> =
        debs.iter().map(|path| Ok((fs::metadata(path)?.len(), path))).collect::<Result<_>>()?;
    // The largest first, so that it does not run alone at the end.
    debs.sort_by(|a, b| b.cmp(a));
    let tree = Tree { root, folders: Mutex::default() };
    parallel(&debs, threads, |(_, deb)| {
        deb::entries(deb, |entry| {
            let path = entry.path.clone();
            tree.place(entry).with_context(|| format!("unpacking {path}"))
        })
    })?;
    Ok(())
}

/// A tree being filled by several threads.
struct Tree<'a> {
    root: &'a Utf8Path,
    /// Folders known to be real ones inside the tree.
    folders: Mutex<HashSet<String>>,
}

impl Tree<'_> {
    fn place(&self, entry: Entry) -> Result<()> {
        let path = merged(&entry.path);
        if path.is_empty() || MERGED.contains(&path.as_str()) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        let full = self.root.join(&path);
        match &entry.kind {
            Kind::Dir => self.folder(&path),
            Kind::File { bytes } => write_file(&full, bytes, &entry),
            Kind::Symlink { target } => self.link(&path, &full, target),
            Kind::Hardlink { target } => {
                let target = merged(target);
                self.folder(target.rsplit_once('/').map_or("", |(parent, _)| parent))?;
                replace(&full, || fs::hard_link(self.root.join(&target), &full).map_err(Into::into))
            }
            // Tools need no device nodes or pipes, and only root could make them.
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => Ok(()),
        }
    }

    /// Makes a folder and its parents; none of them may lead out of the tree.
    fn folder(&self, path: &str) -> Result<()> {
        let mut folders = self.folders.lock().map_err(|_| anyhow!("another thread panicked"))?;
        if path.is_empty() || folders.contains(path) {
            return Ok(());
        }
        let root = self.root.canonicalize_utf8()?;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for folder in ends.map(|end| &path[..end]).collect::<Vec<_>>() {
            if folders.contains(folder) {
                continue;
            }
            let full = self.root.join(folder);
            match fs::create_dir(&full) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("making {full}"));
                }
                _ => {}
            }
            // Before anything is put into it: a link may be in the way.
            ensure!(full.canonicalize_utf8()?.starts_with(&root), "{folder} leads out of the tree");
            folders.insert(folder.to_owned());
        }
        Ok(())
    }

    /// Makes a link. A folder known to be real may be one no longer.
    fn link(&self, path: &str, full: &Utf8Path, target: &str) -> Result<()> {
        let mut folders = self.folders.lock().map_err(|_| anyhow!("another thread panicked"))?;
        if folders.contains(path) {
            folders.retain(|folder| !Utf8Path::new(folder).starts_with(path));
        }
        replace(full, || symlink(relative(path, target)?, full).map_err(Into::into))
    }
}

/// `lib/x` → `usr/lib/x`.
fn merged(path: &str) -> String {
    let first = path.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) && path != first { format!("usr/{path}") } else { path.to_owned() }
}

fn write_file(path: &Utf8Path, bytes: &[u8], entry: &Entry) -> Result<()> {
    // Readable and writable by the user, executable as packaged, never setuid.
    let mode = entry.mode & 0o755 | 0o644;
    replace(path, || {
        let mut file = fs::File::options().write(true).create_new(true).mode(mode).open(path)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(entry.mtime))?;
        Ok(())
    })
}

/// Runs `make`; when the name is taken (two packages ship one file), once more without the old one.
fn replace(path: &Utf8Path, make: impl Fn() -> Result<()>) -> Result<()> {
    match make() {
        Err(error) if is_taken(&error) => {
            if fs::symlink_metadata(path)?.is_dir() {
                bail!("{path}: a folder in one package, something else in another");
            }
            fs::remove_file(path)?;
            make()
        }
        result => result,
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::AlreadyExists)
}

/// A link's text relative to its own folder, so that the tree can lie anywhere; it may not lead out of the tree.
fn relative(path: &str, target: &str) -> Result<String> {
    let depth = path.matches('/').count();
    let (start, text) = match target.strip_prefix('/') {
        Some(absolute) => (0, format!("{}{}", "../".repeat(depth), merged(absolute))),
        None => (depth as i64, target.to_owned()),
    };
    let mut level = start;
    for part in target.split('/') {
        level += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        ensure!(level >= 0, "link {path} -> {target} leads out of the tree");
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
