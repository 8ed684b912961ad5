//! The kernel package unpacked as a whole and indexed by depmod, and the modules chosen for a board.

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::process::run;
use super::tree::{Node, NodeKind, Tree};
use crate::deb::{Deb, Kind};
use crate::tools::Tools;

/// What must be loaded before the base can be mounted.
pub(super) const EARLY: &str = "erofs";
/// What every boot needs a moment later, and what takes long: inserted beside everything else from the first moment.
pub(super) const BACKGROUND: &str = "ext4";
/// depmod's indexes that the box reads; the binary ones are for libkmod, which it has not.
const INDEXES: [&str; 4] = ["modules.dep", "modules.alias", "modules.softdep", "modules.builtin"];
/// The kernel itself, in a directory with its modules.
pub(super) const IMAGE: &str = "vmlinuz";
/// Where depmod looks below its base directory.
pub(super) const MODULES: &str = "lib/modules";

/// A kernel with all its modules, unpacked and indexed, as peers of the benchmarks have it.
#[derive(Debug, Clone)]
pub struct Kernel {
    directory: Utf8PathBuf,
    /// Version as in `uname -r`.
    pub version: String,
}

impl Kernel {
    /// Unpacks a kernel package into `out` and indexes its modules.
    ///
    /// # Errors
    /// When the package is not a kernel's or depmod fails.
    pub fn unpack(deb: &Deb, out: &Utf8Path, tools: &Tools) -> Result<()> {
        let mut kernels = 0;
        deb.entries(|entry| {
            let Kind::File { bytes } = entry.kind else { return Ok(()) };
            let modules = entry.path.strip_prefix("usr/").unwrap_or(&entry.path);
            if modules.starts_with("lib/modules/") {
                return write(&out.join(modules), &bytes);
            }
            if entry.path.starts_with("boot/vmlinuz-") {
                kernels += 1;
                return write(&out.join(IMAGE), &bytes);
            }
            Ok(())
        })?;
        ensure!(kernels == 1, "{} holds {kernels} kernels, not one", deb.path());
        depmod(out, &version_in(out)?, tools)
    }

    /// Opens a directory made by [`Self::unpack`].
    ///
    /// # Errors
    /// When it holds no modules.
    pub fn open(directory: Utf8PathBuf) -> Result<Self> {
        let version = version_in(&directory)?;
        Ok(Self { directory, version })
    }

    /// The kernel itself.
    #[must_use]
    pub fn image(&self) -> Utf8PathBuf {
        self.directory.join(IMAGE)
    }
}

/// A kernel and the modules chosen by [`super::kernel_archive::KernelArchive::select`].
#[derive(Debug, Clone)]
pub struct Selection {
    directory: Utf8PathBuf,
    /// Version as in `uname -r`.
    pub version: String,
}

impl Selection {
    /// Opens a directory made by [`super::kernel_archive::KernelArchive::select`].
    ///
    /// # Errors
    /// When it holds no modules.
    pub fn open(directory: Utf8PathBuf) -> Result<Self> {
        let version = version_in(&directory)?;
        Ok(Self { directory, version })
    }

    /// The kernel itself.
    #[must_use]
    pub fn image(&self) -> Utf8PathBuf {
        self.directory.join(IMAGE)
    }

    fn modules(&self) -> Utf8PathBuf {
        self.directory.join(MODULES).join(&self.version)
    }

    /// Puts modules and indexes into the base's tree.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn add_to(&self, tree: &mut Tree) -> Result<()> {
        let root = format!("/usr/lib/modules/{}", self.version);
        let modules = self.modules();
        for path in files_below(&modules)? {
            let is_index = INDEXES.contains(&path.as_str());
            if !is_index && path.extension() != Some("ko") {
                continue;
            }
            let bytes = read_bytes(&modules.join(&path))?;
            let origin = if is_index { "kernel module indexes".to_owned() } else { origin(&path) };
            tree.insert(&format!("{root}/{path}"), Node::file(bytes, 0o644, &origin))?;
        }
        tree.insert(&root, Node::new(NodeKind::Dir, 0o755, "kernel modules"))
    }

    /// Modules needed to mount the base: file name and content, in load order.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn early(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.listed("early")
    }

    /// Modules to be inserted meanwhile, likewise.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn background(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.listed("background")
    }

    fn listed(&self, list: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let list = read_text(&self.directory.join(list))?;
        list.lines()
            .map(|path| Ok((file_name(path).to_owned(), read_bytes(&self.modules().join(path))?)))
            .collect()
    }
}

/// Modules are counted by the part of the kernel they come from, two directories deep.
fn origin(path: &Utf8Path) -> String {
    let parts: Vec<&str> = path.as_str().split('/').skip(1).take(2).collect();
    format!("kernel modules {}", parts.join("/"))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

pub(super) fn depmod(base: &Utf8Path, version: &str, tools: &Tools) -> Result<()> {
    let mut command = tools.command("depmod")?;
    command.args(["-b", base.as_str(), version]);
    run(command).map(drop)
}

fn version_in(directory: &Utf8Path) -> Result<String> {
    let modules = directory.join(MODULES);
    let mut names = Vec::new();
    for entry in modules.read_dir_utf8().with_context(|| format!("cannot read {modules}"))? {
        names.push(entry?.file_name().to_owned());
    }
    ensure!(names.len() == 1, "{modules} holds {} kernel versions, not one", names.len());
    Ok(names.remove(0))
}

/// Every regular file below `root`, relative to it and sorted.
fn files_below(root: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in directory.read_dir_utf8().with_context(|| format!("cannot read {directory}"))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path().to_owned());
            } else {
                found.push(entry.path().strip_prefix(root)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn write(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().unwrap_or(Utf8Path::new("."));
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {directory}"))?;
    std::fs::write(path, bytes).with_context(|| format!("cannot write {path}"))
}

fn read_bytes(path: &Utf8Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {path}"))
}

fn read_text(path: &Utf8Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}
