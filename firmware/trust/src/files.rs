//! The directory in which a box remembers what it has seen; whole files, replaced so that a power cut leaves the old or the new.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// Nothing we keep is a tenth as long; what is longer is damaged.
const MAX_BYTES: u64 = 4 << 20;
/// What a cut leaves is written over by the next write.
const UNFINISHED: &str = ".unfinished";

/// What a store does to its directory. A trait, so that tests can cut the power between any two of these.
pub trait Files: Debug + Send + Sync {
    /// The whole file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Makes a file of these bytes, or replaces one.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Puts a file's bytes on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name; what had that name is gone.
    ///
    /// # Errors
    /// When it cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Puts all names on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    fn sync_names(&self) -> io::Result<()>;
    /// All names.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn names(&self) -> io::Result<Vec<String>>;
}

/// Replaces a file: after a cut it is the old one or the new one.
pub(crate) fn replace(files: &dyn Files, name: &str, bytes: &[u8]) -> io::Result<()> {
    files.write(UNFINISHED, bytes)?;
    files.sync(UNFINISHED)?;
    files.rename(UNFINISHED, name)?;
    files.sync_names()
}

/// A real directory.
#[derive(Debug)]
pub(crate) struct Directory(pub(crate) PathBuf);

impl Files for Directory {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.0.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        File::create(self.0.join(name))?.write_all(bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        File::open(self.0.join(name))?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }
}
