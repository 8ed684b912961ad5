//! The kernel package decompressed once, into one file, and what a board needs taken out of it.
//!
//! The package holds thousands of compressed modules, of which a board needs a few hundred. Only those are
//! decompressed: what depmod would find out about all of them stands in each module's own `.modinfo`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::kernel::{BACKGROUND, EARLY, MODULES, depmod, write};
use super::module_file::{Form, section};
use super::modules::{ModuleIndex, ModuleInfo};
use crate::archive::cache::parallel;
use crate::deb;
use crate::tools::Tools;

/// The package's data member in a step's directory, decompressed.
const DATA: &str = "data.tar";
/// The kernel itself, there.
const IMAGE: &str = "vmlinuz";
/// What depmod takes over from the package.
const PACKAGED: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// A decompressed kernel package.
#[derive(Debug)]
pub struct KernelArchive {
    directory: Utf8PathBuf,
    /// Version as in `uname -r`.
    pub version: String,
    data: File,
    /// Path below the version's module directory → place in [`DATA`].
    files: BTreeMap<String, Extent>,
    image: Extent,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    offset: u64,
    length: u64,
}

impl KernelArchive {
    /// Decompresses a kernel package into `out`.
    ///
    /// # Errors
    /// When it is not one, or cannot be read.
    pub fn unpack(deb: &Utf8Path, out: &Utf8Path) -> Result<()> {
        let path = out.join(DATA);
        let mut file = File::create(&path).with_context(|| format!("cannot create {path}"))?;
        deb::data(deb, &mut file)?;
        let archive = Self::open(out.to_owned()).with_context(|| format!("package {deb}"))?;
        write(&out.join(IMAGE), &archive.at(archive.image)?)
    }

    /// Opens a directory made by [`Self::unpack`].
    ///
    /// # Errors
    /// When it does not hold one kernel and its modules.
    pub fn open(directory: Utf8PathBuf) -> Result<Self> {
        let path = directory.join(DATA);
        let data = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let (mut images, mut files, mut versions) = (Vec::new(), BTreeMap::new(), Vec::new());
        let end = data.metadata().with_context(|| format!("cannot read {path}"))?.len();
        let mut tar = tar::Archive::new(&data);
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            let extent = Extent { offset: entry.raw_file_position(), length: entry.size() };
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./");
            let modules = path.strip_prefix("usr/").unwrap_or(path).strip_prefix("lib/modules/");
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let cut_off = || format!("{path} is cut off: it has {} bytes", extent.length);
            extent.offset.checked_add(extent.length).filter(|stop| *stop <= end).with_context(cut_off)?;
            if path.starts_with("boot/vmlinuz-") {
                images.push(extent);
            } else if let Some((version, file)) = modules.and_then(|path| path.split_once('/')) {
                versions.push(version.to_owned());
                files.insert(file.to_owned(), extent);
            }
        }
        versions.dedup();
        ensure!(images.len() == 1, "it holds {} kernels, not one", images.len());
        ensure!(versions.len() == 1, "it holds modules of {} kernel versions, not of one", versions.len());
        let (image, version) = (images.remove(0), versions.remove(0));
        Ok(Self { directory, version, data, files, image })
    }

    /// The kernel itself.
    #[must_use]
    pub fn image(&self) -> Utf8PathBuf {
        self.directory.join(IMAGE)
    }

    /// Copies the wanted modules and all they need, uncompressed, in this form and with indexes of their own, into `out`.
    ///
    /// # Errors
    /// When the kernel has no module of a wanted name.
    pub fn select(&self, wanted: &[String], form: Form, out: &Utf8Path, tools: &Tools) -> Result<()> {
        let reader = Reader { archive: self, modules: Mutex::default() };
        let builtin = String::from_utf8_lossy(&self.file("modules.builtin")?).into_owned();
        let paths = self.files.keys().filter_map(|path| path.strip_suffix(".xz"));
        let index = ModuleIndex::explore(paths, &builtin, wanted, |paths| reader.infos(paths))?;
        let target = out.join(MODULES).join(&self.version);
        for module in index.closure(wanted)? {
            write(&target.join(&module.path), &form.of(reader.module(&module.path)?))?;
        }
        for name in PACKAGED {
            write(&target.join(name), &self.file(name)?)?;
        }
        depmod(out, &self.version, tools)?;
        for (list, module) in [("early", EARLY), ("background", BACKGROUND)] {
            let order = index.load_order(&[module.to_owned()])?;
            let paths: Vec<&str> = order.iter().map(|module| module.path.as_str()).collect();
            write(&out.join(list), paths.join("\n").as_bytes())?;
        }
        Ok(())
    }

    fn file(&self, path: &str) -> Result<Vec<u8>> {
        self.at(*self.files.get(path).with_context(|| format!("the kernel's package has no {path}"))?)
    }

    fn at(&self, extent: Extent) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(extent.length)?];
        let read = self.data.read_exact_at(&mut bytes, extent.offset);
        read.with_context(|| format!("cannot read {}", self.directory.join(DATA)))?;
        Ok(bytes)
    }
}

/// Decompresses modules, each once.
struct Reader<'a> {
    archive: &'a KernelArchive,
    /// What has been read, by path.
    modules: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Reader<'_> {
    fn infos(&self, paths: &[String]) -> Result<Vec<ModuleInfo>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        parallel(paths, threads, |path| {
            let bytes = self.decompressed(path)?;
            let text = section(&bytes, b".modinfo").with_context(|| format!("{path} has no .modinfo"))?;
            let info = ModuleInfo::parse(text);
            let mut modules = self.modules.lock().map_err(|_| anyhow!("another thread panicked"))?;
            modules.insert(path.clone(), bytes);
            Ok(info)
        })
    }

    fn module(&self, path: &str) -> Result<Vec<u8>> {
        let known = self.modules.lock().map_err(|_| anyhow!("another thread panicked"))?.remove(path);
        known.map_or_else(|| self.decompressed(path), Ok)
    }

    fn decompressed(&self, path: &str) -> Result<Vec<u8>> {
        let compressed = self.archive.file(&format!("{path}.xz"))?;
        let mut bytes = Vec::new();
        liblzma::read::XzDecoder::new(compressed.as_slice())
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot decompress {path}"))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel's package with one module, whose length is given as this.
    fn package(claimed: u64) -> Result<KernelArchive> {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap();
        let mut tar = tar::Builder::new(File::create(path.join(DATA)).unwrap());
        for (name, size) in [("./boot/vmlinuz-6", 6), ("./usr/lib/modules/6/a.ko.xz", claimed)] {
            let mut header = tar::Header::new_gnu();
            header.set_path(name).unwrap();
            header.set_size(size);
            header.set_cksum();
            tar.append(&header, &b"kernel"[..]).unwrap();
        }
        tar.into_inner().unwrap();
        KernelArchive::open(path.to_owned())
    }

    #[test]
    fn a_file_ends_where_the_archive_does() {
        let archive = package(6).unwrap();
        assert_eq!(archive.version, "6");
        assert_eq!(archive.file("a.ko.xz").unwrap(), b"kernel");
        for claimed in [1 << 20, 1 << 62] {
            let error = format!("{:#}", package(claimed).unwrap_err());
            assert!(error.contains("a.ko.xz") && error.contains("cut off"), "{error}");
        }
    }
}
