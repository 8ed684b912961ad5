//! The kernel package decompressed once, in memory, and what a board needs taken out of it.
//!
//! The package holds thousands of compressed modules, of which a board needs a few hundred. Only those are
//! decompressed: what depmod would find out about all of them stands in each module's own `.modinfo`.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, ensure};
use camino::Utf8Path;

use super::kernel::{BACKGROUND, EARLY, IMAGE, MODULES, depmod, write};
use super::module_file::{Form, section};
use super::modules::{ModuleIndex, ModuleInfo};
use crate::archive::cache::parallel;
use crate::deb::Deb;
use crate::tools::Tools;

/// What depmod takes over from the package.
const PACKAGED: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// A decompressed kernel package.
#[derive(Debug)]
pub struct KernelArchive {
    /// Version as in `uname -r`.
    version: String,
    data: Vec<u8>,
    /// Path below the version's module directory → place in the data.
    files: BTreeMap<String, Range<usize>>,
    image: Range<usize>,
    /// The package's copyright file: path and place.
    copyright: Option<(String, Range<usize>)>,
}

impl KernelArchive {
    /// Decompresses a kernel package whose hash has been checked.
    ///
    /// # Errors
    /// When it is not one, or cannot be read.
    pub fn read(deb: &Deb) -> Result<Self> {
        Self::new(deb.data()?).with_context(|| format!("package {}", deb.path()))
    }

    /// From the package's data member.
    fn new(data: Vec<u8>) -> Result<Self> {
        let (mut images, mut files, mut versions) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut copyright = None;
        let mut tar = tar::Archive::new(Cursor::new(&data));
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./");
            let start = usize::try_from(entry.raw_file_position())?;
            let end = start.checked_add(usize::try_from(entry.size())?).filter(|end| *end <= data.len());
            let extent = start..end.with_context(|| format!("{path}: truncated"))?;
            let modules = path.strip_prefix("usr/").unwrap_or(path).strip_prefix("lib/modules/");
            if path.starts_with("boot/vmlinuz-") {
                images.push(extent);
            } else if path.starts_with("usr/share/doc/") && path.ends_with("/copyright") {
                copyright = Some((path.to_owned(), extent));
            } else if let Some((version, file)) = modules.and_then(|path| path.split_once('/')) {
                versions.push(version.to_owned());
                files.insert(file.to_owned(), extent);
            }
        }
        versions.dedup();
        ensure!(images.len() == 1, "it holds {} kernels, not one", images.len());
        ensure!(versions.len() == 1, "it holds modules of {} kernel versions, not of one", versions.len());
        let (image, version) = (images.remove(0), versions.remove(0));
        Ok(Self { version, data, files, image, copyright })
    }

    /// The package's copyright file: path and content.
    #[must_use]
    pub fn copyright(&self) -> Option<(&str, &[u8])> {
        self.copyright.as_ref().map(|(path, place)| (path.as_str(), &self.data[place.clone()]))
    }

    /// Copies the kernel, the wanted modules and all they need, uncompressed, in this form and with indexes of their
    /// own, into `out`.
    ///
    /// # Errors
    /// When the kernel has no module of a wanted name.
    pub fn select(&self, wanted: &[String], form: Form, out: &Utf8Path, tools: &Tools) -> Result<()> {
        let reader = Reader { archive: self, modules: Mutex::default() };
        let builtin = String::from_utf8_lossy(self.file("modules.builtin")?).into_owned();
        let paths = self.files.keys().filter_map(|path| path.strip_suffix(".xz"));
        let index = ModuleIndex::explore(paths, &builtin, wanted, |paths| reader.infos(paths))?;
        let target = out.join(MODULES).join(&self.version);
        for module in index.closure(wanted)? {
            write(&target.join(&module.path), &form.of(reader.module(&module.path)?))?;
        }
        for name in PACKAGED {
            write(&target.join(name), self.file(name)?)?;
        }
        depmod(out, &self.version, tools)?;
        for (list, module) in [("early", EARLY), ("background", BACKGROUND)] {
            let order = index.load_order(&[module.to_owned()])?;
            let paths: Vec<&str> = order.iter().map(|module| module.path.as_str()).collect();
            write(&out.join(list), paths.join("\n").as_bytes())?;
        }
        write(&out.join(IMAGE), &self.data[self.image.clone()])
    }

    fn file(&self, path: &str) -> Result<&[u8]> {
        let place = self.files.get(path).with_context(|| format!("the kernel's package has no {path}"))?;
        Ok(&self.data[place.clone()])
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
        liblzma::bufread::XzDecoder::new(compressed)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot decompress {path}"))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(paths: &[&str]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for path in paths {
            let mut header = tar::Header::new_gnu();
            header.set_size(path.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, path.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[track_caller]
    fn check_error(data: Vec<u8>, expected: &str) {
        assert_eq!(KernelArchive::new(data).unwrap_err().to_string(), expected);
    }

    #[test]
    fn files_are_found_where_they_lie() {
        let module = "usr/lib/modules/6.12.1/kernel/fs/erofs/erofs.ko.xz";
        let archive =
            KernelArchive::new(package(&["boot/vmlinuz-6.12.1", module, "usr/share/doc/x/copyright"]))
                .unwrap();
        assert_eq!(archive.version, "6.12.1");
        assert_eq!(archive.file("kernel/fs/erofs/erofs.ko.xz").unwrap(), module.as_bytes());
        assert_eq!(&archive.data[archive.image.clone()], b"boot/vmlinuz-6.12.1");
        let copyright = "usr/share/doc/x/copyright";
        assert_eq!(archive.copyright().unwrap(), (copyright, copyright.as_bytes()));
        let error = archive.file("modules.order").unwrap_err();
        assert_eq!(error.to_string(), "the kernel's package has no modules.order");
    }

    #[test]
    fn other_packages_are_no_kernels() {
        check_error(package(&["usr/bin/nft"]), "it holds 0 kernels, not one");
        check_error(package(&["boot/vmlinuz-1"]), "it holds modules of 0 kernel versions, not of one");
        let two = ["boot/vmlinuz-1", "lib/modules/1/x.ko.xz", "lib/modules/2/x.ko.xz"];
        check_error(package(&two), "it holds modules of 2 kernel versions, not of one");
        let whole = package(&["boot/vmlinuz-1", "lib/modules/1/x.ko.xz"]);
        check_error(whole[..1540].to_vec(), "lib/modules/1/x.ko.xz: truncated");
    }
}
