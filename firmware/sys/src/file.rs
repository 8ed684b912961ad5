//! Files that are whole or absent, never half written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces `path` durably: write to a sibling, fsync, rename, fsync the directory.
///
/// A reader, or a boot after a power cut, sees the old or the new content, never a mixture.
///
/// # Errors
/// Any I/O error; the old file is then still in place. Only when the directory cannot be synced the new one
/// is there already, and may be lost with the power.
pub fn write_durable(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, File::sync_all)?;
    File::open(parent(path)?)?.sync_all()
}

/// Replaces `path` atomically for readers, without durability (for files under /run).
///
/// # Errors
/// Any I/O error; the old file is then still in place.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, |_| Ok(()))
}

fn replace(path: &Path, content: &[u8], finish: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let staged = staged(path)?;
    let replaced = write(&staged, content, finish).and_then(|()| fs::rename(&staged, path));
    if replaced.is_err() {
        // On a full disk, the half that could be written would stay in the way.
        let _ = fs::remove_file(&staged);
    }
    replaced
}

fn write(path: &Path, content: &[u8], finish: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    finish(&file)
}

fn staged(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("path has no file name"))?;
    let mut staged_name = std::ffi::OsString::from(".");
    staged_name.push(name);
    staged_name.push(".new");
    Ok(parent(path)?.join(staged_name))
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::other("path has no directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_leaves_the_old_file_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        // A directory cannot be replaced by a file.
        let path = scratch.path().join("state");
        fs::create_dir(&path).unwrap();
        write_durable(&path, b"new").unwrap_err();
        write_atomic(&path, b"new").unwrap_err();
        let names: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["state"]);
    }

    #[test]
    fn replaced_content_is_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("state");
        for content in ["a long first content", "short", ""] {
            write_durable(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
