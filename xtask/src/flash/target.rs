//! The disk or file that will be overwritten: what it is, and why it must not be.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use super::source::Source;
use super::usage::{BlockDevice, Kernel};

/// A target that nobody uses.
#[derive(Debug)]
pub struct Target {
    /// As the user wrote it.
    pub path: Utf8PathBuf,
    /// How large it is.
    pub bytes: u64,
    /// What the kernel knows about it, if it is a disk.
    pub device: Option<BlockDevice>,
}

impl Target {
    /// Looks at the target; it is only opened for reading, and nothing is changed.
    ///
    /// # Errors
    /// When it is in use, is the image itself, is too small, cannot be written, or is neither disk nor file.
    pub fn inspect(path: &Utf8Path, source: &Source, kernel: &Kernel) -> Result<Self> {
        let metadata = std::fs::metadata(path).with_context(|| {
            format!("there is no {path}; name a disk, an existing file, or give --size to make a file")
        })?;
        let image = source.file().metadata()?;
        let same = (metadata.dev(), metadata.ino()) == (image.dev(), image.ino());
        ensure!(!same, "{path} is the image itself");
        let kind = metadata.file_type();
        let target = if kind.is_block_device() {
            Self::disk(path, &device_number(metadata.rdev()), kernel)?
        } else if kind.is_file() {
            Self::file(path, metadata.len(), kernel)?
        } else {
            bail!("{path} is neither a disk nor an ordinary file");
        };
        target.check_size(source)?;
        Ok(target)
    }

    fn disk(path: &Utf8Path, number: &str, kernel: &Kernel) -> Result<Self> {
        let device = kernel.device(number)?;
        if let Some(parent) = &device.parent {
            bail!("{path} is a partition; an image is a whole disk, which would be /dev/{parent}");
        }
        let uses = kernel.uses(&device);
        ensure!(uses.is_empty(), "{path} is in use:\n  {}", uses.join("\n  "));
        ensure!(
            !device.read_only,
            "{path} is read-only; look for a switch on the card, or `blockdev --setrw`"
        );
        Ok(Self { path: path.to_owned(), bytes: device.bytes, device: Some(device) })
    }

    fn file(path: &Utf8Path, bytes: u64, kernel: &Kernel) -> Result<Self> {
        let absolute = std::fs::canonicalize(path).with_context(|| format!("cannot resolve {path}"))?;
        let loops = kernel.loops_on(&absolute);
        ensure!(loops.is_empty(), "{path} is in use: {} is made of it", loops.join(", "));
        OpenOptions::new().write(true).open(path).with_context(|| format!("{path} cannot be written"))?;
        Ok(Self { path: path.to_owned(), bytes, device: None })
    }

    fn check_size(&self, source: &Source) -> Result<()> {
        ensure!(
            self.bytes >= source.length(),
            "{} is too small: it has {}, the image needs {}, which is {} more",
            self.path,
            mib(self.bytes),
            mib(source.length()),
            mib(source.length() - self.bytes)
        );
        Ok(())
    }

    /// Opens it for writing. The kernel refuses a disk that somebody has begun to use meanwhile.
    ///
    /// # Errors
    /// When that is so, or it must not be written.
    pub fn open(&self) -> Result<File> {
        let exclusive = if self.device.is_some() { OFlag::O_EXCL } else { OFlag::empty() };
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(exclusive.bits());
        options
            .open(&self.path)
            .with_context(|| format!("cannot write to {} (in use, or not permitted)", self.path))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(device) = &self.device else {
            return write!(f, "  {}: a file of {}", self.path, mib(self.bytes));
        };
        let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        let removable = if device.removable { ", removable" } else { "" };
        writeln!(f, "  {}: {}{removable}", self.path, mib(self.bytes))?;
        write!(f, "  model {}, serial number {}", known(&device.model), known(&device.serial))?;
        if device.partitions.is_empty() {
            return write!(f, "\n  no partitions");
        }
        device
            .partitions
            .iter()
            .try_for_each(|(name, bytes)| write!(f, "\n  partition {name}: {}", mib(*bytes)))
    }
}

fn device_number(rdev: u64) -> String {
    format!("{}:{}", major(rdev), minor(rdev))
}

/// A size for people: rounded up, so that "too small" never shows two equal figures.
fn mib(bytes: u64) -> String {
    let mib = bytes.div_ceil(1 << 20);
    if mib < 10_240 { format!("{mib} MiB") } else { format!("{} MiB ({:.1} GB)", mib, bytes as f64 / 1e9) }
}

#[cfg(test)]
#[path = "target/tests.rs"]
mod tests;
