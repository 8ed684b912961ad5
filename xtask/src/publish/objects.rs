//! Objects: files named by their SHA-256, which release manifests name.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_update::Sha256Hex;
use kontor_update::release::{Form, Image, Object};
use sha2::{Digest, Sha256};

use crate::archive::cache::hash_file;
use crate::image::step::hex;
use crate::scratch;

/// The folder of objects in a release and in a repository.
pub const FOLDER: &str = "objects";
/// A release is compressed once and fetched by every box: 19 takes five times as long as 9 and is a tenth smaller.
const LEVEL: i32 = 19;
/// Boxes have little RAM: a window of 8 MiB.
const WINDOW_LOG: u32 = 23;

/// Puts an image into a folder as one zstd stream, and says what comes out of it.
///
/// # Errors
/// When it cannot be read or written.
pub fn compress(image: &Utf8Path, folder: &Utf8Path) -> Result<Image> {
    let mut source = File::open(image).with_context(|| format!("cannot read {image}"))?;
    let bytes = source.metadata()?.len();
    let made = add(folder, |output| {
        let mut encoder = zstd::Encoder::new(output, LEVEL)?;
        encoder.window_log(WINDOW_LOG)?;
        encoder.include_checksum(true)?;
        encoder.set_pledged_src_size(Some(bytes))?;
        let mut hash = Sha256::new();
        copy(&mut source, |chunk| {
            hash.update(chunk);
            encoder.write_all(chunk)
        })?;
        encoder.finish()?;
        Ok(digest(hash))
    })
    .with_context(|| format!("compressing {image}"))?;
    Ok(Image { bytes, sha256: made.1, forms: vec![Form::Full(made.0)] })
}

/// Puts bytes into a folder as they are.
///
/// # Errors
/// When they cannot be written.
pub fn put(bytes: &[u8], folder: &Utf8Path) -> Result<Object> {
    Ok(add(folder, |output| Ok(output.write_all(bytes)?))?.0)
}

/// Puts a file into a folder as it is.
///
/// # Errors
/// When it cannot be read or written.
pub fn copy_in(file: &Utf8Path, folder: &Utf8Path) -> Result<Object> {
    let mut source = File::open(file).with_context(|| format!("cannot read {file}"))?;
    let made = add(folder, |output| copy(&mut source, |chunk| output.write_all(chunk)));
    Ok(made.with_context(|| format!("copying {file}"))?.0)
}

/// Copies an object from one folder to another, unless it is there, and checks it on the way.
///
/// # Errors
/// When it is not there, or has other bytes.
pub fn transfer(object: &Object, from: &Utf8Path, to: &Utf8Path) -> Result<bool> {
    let (source, target) = (path(from, object), path(to, object));
    if target.exists() {
        check(object, to)?;
        return Ok(false);
    }
    let copied = copy_in(&source, to)?;
    if copied != *object {
        std::fs::remove_file(path(to, &copied)).ok();
        bail!("{source} has other bytes than its name says: the release is damaged, build it anew");
    }
    Ok(true)
}

/// Fails when an object is not there or has other bytes.
///
/// # Errors
/// With what is wrong.
pub fn check(object: &Object, folder: &Utf8Path) -> Result<()> {
    let path = path(folder, object);
    check_size(object, folder)?;
    ensure!(hash_file(&path)? == object.sha256.as_str(), "{path} has other bytes than its name says");
    Ok(())
}

/// Fails when an object is not there or has another length.
///
/// # Errors
/// With what is wrong.
pub fn check_size(object: &Object, folder: &Utf8Path) -> Result<()> {
    let path = path(folder, object);
    let have = std::fs::metadata(&path).with_context(|| format!("{path} is missing"))?.len();
    ensure!(have == object.bytes, "{path} has {have} bytes, not {}", object.bytes);
    Ok(())
}

/// Where an object is.
#[must_use]
pub fn path(folder: &Utf8Path, object: &Object) -> Utf8PathBuf {
    folder.join(object.sha256.as_str())
}

/// Writes a file, hashes what is written, and gives it its hash as a name.
fn add<T>(folder: &Utf8Path, write: impl FnOnce(&mut Hashed<'_>) -> Result<T>) -> Result<(Object, T)> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
    let (mut file, _claim) = scratch::file(folder, ".unfinished-", 0o644)?;
    let mut output = Hashed { file: file.as_file_mut(), hash: Sha256::new(), bytes: 0 };
    let value = write(&mut output)?;
    let (sha256, bytes) = (digest(output.hash), output.bytes);
    file.as_file().sync_all()?;
    let object = Object { sha256, bytes };
    let target = path(folder, &object);
    file.persist(&target).with_context(|| format!("cannot write {target}"))?;
    scratch::settle_name(&target)?;
    Ok((object, value))
}

struct Hashed<'a> {
    file: &'a mut File,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn copy(source: &mut impl Read, mut take: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(()),
            count => take(&buffer[..count])?,
        }
    }
}

/// Of what was hashed.
fn digest(hash: Sha256) -> Sha256Hex {
    Sha256Hex::from_bytes(&hash.finalize().into())
}

/// Of bytes in memory.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
