//! A package, and its data member decompressed once for all builds: decoding LZMA takes longer than all else that is
//! done with a package.
//!
//! Made by whoever reads the package first, from a file whose hash was checked. Never needed: a copy that is missing or
//! damaged is made anew, and where none can be written the package is read each time. Its own hash is against damage
//! only: who can write here could as well change the results of steps.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};

use super::{Bounded, Entry, UNPACKED, read_tar};
use crate::archive::cache::used;
use crate::scratch;

/// A frame that zstd skips (RFC 8878, section 3.1.2), of 32 bytes: the SHA-256 of what follows. `zstd -d` reads it all.
const SUM_FRAME: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];
/// Length of what comes before the content.
const HEADER: usize = SUM_FRAME.len() + 32;
/// Packages but the kernel's, 252 MB decompressed, take 94 MB; level 3 makes 75 MB of them in 1.4 times the time.
const LEVEL: i32 = 1;
/// How the names of unfinished copies begin.
const UNFINISHED: &str = ".";

/// A package whose hash was checked.
#[derive(Debug, Clone)]
pub struct Deb {
    path: Utf8PathBuf,
    copy: Utf8PathBuf,
}

impl Deb {
    /// The package at `path`; its data member is kept at `copy`, which must be of this package only.
    #[must_use]
    pub fn new(path: Utf8PathBuf, copy: Utf8PathBuf) -> Self {
        Self { path, copy }
    }

    /// The package itself.
    #[must_use]
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Calls `each` with every entry of the package's data member, in its order.
    ///
    /// # Errors
    /// When the package cannot be read, and those of `each`.
    pub fn entries(&self, mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let read = match self.kept() {
            // Not in one piece: what was just decompressed is read while the processor's caches hold it.
            Some(copy) => decoder(&copy).and_then(|tar| read_tar(tar, &mut each)),
            None => read_tar(self.made()?.as_slice(), &mut each),
        };
        read.with_context(|| format!("package {}", self.path))
    }

    /// The data member in one piece.
    ///
    /// # Errors
    /// When the package cannot be read.
    pub fn data(&self) -> Result<Vec<u8>> {
        match self.kept() {
            Some(copy) => whole(&copy).with_context(|| format!("package {}", self.path)),
            None => self.made(),
        }
    }

    /// Removes the copy, as on a machine that builds for the first time.
    ///
    /// # Errors
    /// When there is one and it cannot be removed.
    pub fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.copy) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.copy))
            }
            _ => Ok(()),
        }
    }

    /// The copy, if it is there and as it was written.
    fn kept(&self) -> Option<Vec<u8>> {
        let copy = fs::read(&self.copy).ok()?;
        let (sum, frame) = copy.strip_prefix(&SUM_FRAME)?.split_first_chunk::<32>()?;
        if Sha256::digest(frame).as_slice() != sum {
            return None;
        }
        if let Ok(metadata) = fs::metadata(&self.copy) {
            used(&self.copy, &metadata);
        }
        Some(copy)
    }

    /// The data member from the package; from now on there is a copy.
    fn made(&self) -> Result<Vec<u8>> {
        let data = super::data(&self.path)?;
        // A disk that is full, or another user's: the next build reads the package again.
        let _ = self.keep(&data);
        Ok(data)
    }

    /// Not put on the disk: after a power cut a copy that has suffered is made anew.
    fn keep(&self, data: &[u8]) -> Result<()> {
        let folder = self.copy.parent().context("a copy has a folder")?;
        fs::create_dir_all(folder)?;
        scratch::sweep(folder, UNFINISHED);
        let frame = zstd::bulk::compress(data, LEVEL)?;
        let (mut file, _claim) = scratch::file(folder, UNFINISHED, 0o644)?;
        for part in [&SUM_FRAME[..], &Sha256::digest(&frame), &frame] {
            file.write_all(part)?;
        }
        file.persist(&self.copy)?;
        Ok(())
    }
}

fn decoder(copy: &[u8]) -> Result<impl std::io::Read> {
    Ok(Bounded { inner: zstd::Decoder::with_buffer(&copy[HEADER..])?, left: UNPACKED })
}

fn whole(copy: &[u8]) -> Result<Vec<u8>> {
    let frame = &copy[HEADER..];
    let length = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten().unwrap_or_default();
    ensure!(length <= UNPACKED, "its copy unpacks to more than {UNPACKED} bytes");
    Ok(zstd::bulk::decompress(frame, usize::try_from(length)?)?)
}

#[cfg(test)]
mod tests;
