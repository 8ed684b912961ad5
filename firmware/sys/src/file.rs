//! Files that are whole or absent, never half written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces `path` durably: write to a sibling, fsync, rename, fsync the directory.
///
/// A reader, or a boot after a power cut, sees the old or the new content, never a mixture.
///
/// # Errors
/// Any I/O error; the old file is then still in place.
pub fn write_durable(path: &Path, content: &[u8]) -> io::Result<()> {
    let staged = stage(path, content)?;
    File::open(&staged)?.sync_all()?;
    fs::rename(&staged, path)?;
    File::open(parent(path)?)?.sync_all()
}

/// Replaces `path` atomically for readers, without durability (for files under /run).
///
/// # Errors
/// Any I/O error; the old file is then still in place.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let staged = stage(path, content)?;
    fs::rename(&staged, path)
}

fn stage(path: &Path, content: &[u8]) -> io::Result<std::path::PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("path has no file name"))?;
    let mut staged_name = std::ffi::OsString::from(".");
    staged_name.push(name);
    staged_name.push(".new");
    let staged = parent(path)?.join(staged_name);
    let mut file = File::create(&staged)?;
    file.write_all(content)?;
    Ok(staged)
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::other("path has no directory"))
}
