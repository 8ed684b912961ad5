//! Files that are whole or absent, never half written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Modes of new files, before the process's mask.
const PUBLIC: u32 = 0o666;
const SECRET: u32 = 0o600;

/// Replaces `path` durably: write to a sibling, fsync, rename, fsync the directory.
///
/// A reader, or a boot after a power cut, sees the old or the new content, never a mixture. A directory in the
/// file's place (or its sibling's) would be there for ever: it is set aside.
///
/// # Errors
/// Any I/O error; the old file is then still in place. Only when the directory cannot be synced the new one
/// is there already, and may be lost with the power.
pub fn write_durable(path: &Path, content: &[u8]) -> io::Result<()> {
    ensure_no_directories([path, &staged(path)?])?;
    replace(path, content, PUBLIC, File::sync_all)?;
    File::open(parent(path)?)?.sync_all()
}

/// As [`write_durable`], of a file that nobody but its owner may read.
///
/// # Errors
/// As there.
pub fn write_durable_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    ensure_no_directories([path, &staged(path)?])?;
    // What a power cut has left of an earlier try keeps its mode.
    remove_durable(&staged(path)?)?;
    replace(path, content, SECRET, File::sync_all)?;
    File::open(parent(path)?)?.sync_all()
}

/// As [`write_durable`], but also on a full disk: the room for what is written next is taken beforehand, by a sibling of at least
/// `room` bytes that changes places with the file each time. Spaces fill the content up: it has to be of a kind that may end
/// with them.
///
/// # Errors
/// Any I/O error; the old file is then still in place. A full disk is one only while there is no such sibling yet, or when the
/// content has outgrown it.
pub fn write_reserved(path: &Path, content: &[u8], room: usize) -> io::Result<()> {
    let spare = sibling(path, ".spare")?;
    ensure_no_directories([path, &spare])?;
    // If the last exchange is not on the disk yet, what is the spare now is the file there.
    File::open(parent(path)?)?.sync_all()?;
    let mut padded = content.to_vec();
    padded.resize(content.len().max(room), b' ');
    // Not truncated before: its blocks are what it is there for.
    let mut file = File::options().write(true).create(true).truncate(false).open(&spare)?;
    let written = file.write_all(&padded).and_then(|()| file.set_len(padded.len() as u64));
    if let Err(error) = written.and_then(|()| file.sync_all()) {
        if !path.exists() {
            let _ = fs::remove_file(&spare);
        }
        return Err(error);
    }
    match renameat2(AT_FDCWD, &spare, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
        Err(nix::errno::Errno::ENOENT) => fs::rename(&spare, path)?,
        exchanged => exchanged?,
    }
    File::open(parent(path)?)?.sync_all()
}

/// Removes a file; one that is not there is none to remove.
///
/// # Errors
/// Any other I/O error.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Removes a file so that a power cut does not bring it back; one that is not there is no error.
///
/// # Errors
/// Any I/O error. Only when the directory cannot be synced the file is gone already, and may come back with the power.
pub fn remove_durable(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.and_then(|()| File::open(parent(path)?)?.sync_all()),
    }
}

/// Renames a damaged state file, or what is in its place, to `<name>.damaged`, in the place of an older one: it
/// may be of value to people, but it must not be in the way. Returns the new path.
///
/// # Errors
/// Any I/O error.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = damaged(path)?;
    match aside.symlink_metadata() {
        Ok(old) if old.is_dir() => fs::remove_dir_all(&aside)?,
        Ok(_) => fs::remove_file(&aside)?,
        Err(_) => {}
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Where [`set_aside`] puts a file.
///
/// # Errors
/// When the path has no file name.
pub fn damaged(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or_else(|| io::Error::other("path has no file name"))?.to_owned();
    name.push(".damaged");
    Ok(path.with_file_name(name))
}

/// Replaces `path` atomically for readers, without durability (for files under /run).
///
/// # Errors
/// Any I/O error; the old file is then still in place.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, PUBLIC, |_| Ok(()))
}

fn ensure_no_directories(places: [&Path; 2]) -> io::Result<()> {
    for place in places {
        if place.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            set_aside(place)?;
        }
    }
    Ok(())
}

fn replace(path: &Path, content: &[u8], mode: u32, finish: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let staged = staged(path)?;
    let replaced = write(&staged, content, mode, finish).and_then(|()| fs::rename(&staged, path));
    if replaced.is_err() {
        // On a full disk, the half that could be written would stay in the way.
        let _ = fs::remove_file(&staged);
    }
    replaced
}

fn write(path: &Path, content: &[u8], mode: u32, finish: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(content)?;
    finish(&file)
}

fn staged(path: &Path) -> io::Result<PathBuf> {
    sibling(path, ".new")
}

/// `.NAME` with this at its end.
fn sibling(path: &Path, end: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("path has no file name"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(end);
    Ok(parent(path)?.join(hidden))
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
        write_atomic(&path, b"new").unwrap_err();
        let names: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["state"]);
    }

    #[test]
    fn a_secret_is_its_owner_s_alone_whatever_was_there() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("keys");
        fs::write(scratch.path().join(".keys.new"), "a try that was cut short").unwrap();
        write_durable(&path, b"public").unwrap();
        write_durable_secret(&path, b"secret").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_in_a_state_file_s_place_is_set_aside() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("state");
        for round in ["one", "two"] {
            fs::create_dir(&path).unwrap();
            fs::write(path.join(round), "").unwrap();
            fs::create_dir(scratch.path().join(".state.new")).unwrap();
            write_durable(&path, b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert!(scratch.path().join("state.damaged").join(round).exists());
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn two_files_change_places_and_neither_needs_room_again() {
        use std::os::unix::fs::MetadataExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("state");
        let spare = scratch.path().join(".state.spare");
        let inode = |path: &Path| path.metadata().unwrap().ino();
        write_reserved(&path, b"one", 4096).unwrap();
        write_reserved(&path, b"two", 4096).unwrap();
        let before = (inode(&path), inode(&spare));
        write_reserved(&path, b"three", 4096).unwrap();
        assert_eq!((inode(&spare), inode(&path)), before);
        for (path, content) in [(&path, "three"), (&spare, "two")] {
            let read = fs::read_to_string(path).unwrap();
            assert_eq!((read.len(), read.trim_end()), (4096, content));
        }
        write_reserved(&path, &[b'x'; 5000], 4096).unwrap();
        write_reserved(&path, b"short again", 4096).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().trim_end(), "short again");
        write_reserved(&path, b"last", 4096).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 4096);
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
