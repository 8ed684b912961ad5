//! Between what this release's programs read and write, and what lies on the disk while an older release may still run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kontor_migrate::{NOTE, Note, TABLE};

/// The schema in force: it changes only before any daemon has the directory (`migrate.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schema(u32);

impl Schema {
    /// That of the directory in which this file's directory lies.
    ///
    /// # Errors
    /// When it is not known: nothing must be read or written then.
    pub(crate) fn of(file: &Path) -> io::Result<Self> {
        let (root, _) = split(file).ok_or_else(|| io::Error::other("not a daemon's file"))?;
        match fs::read(root.join(NOTE)) {
            Ok(bytes) => Note::parse(&bytes).map(|note| Self(note.schema)).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(1)),
            Err(error) => Err(error),
        }
    }

    /// Its number.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }

    /// Bytes of this file, as our programs know them.
    pub(crate) fn read(self, file: &Path, bytes: &[u8]) -> Vec<u8> {
        self.convert(file, bytes, self.0, TABLE.native)
    }

    /// What our programs write to this file, as it is on the disk; also of a piece that is appended.
    pub(crate) fn write(self, file: &Path, bytes: &[u8]) -> Vec<u8> {
        self.convert(file, bytes, TABLE.native, self.0)
    }

    fn convert(self, file: &Path, bytes: &[u8], from: u32, to: u32) -> Vec<u8> {
        match split(file) {
            Some((_, path)) => TABLE.convert(&path, bytes, from, to),
            None => bytes.to_vec(),
        }
    }
}

/// The state's directory, and the file's path in it: of a daemon's directory and a name.
fn split(file: &Path) -> Option<(PathBuf, String)> {
    let root = file.parent()?.parent()?;
    Some((root.to_owned(), file.strip_prefix(root).ok()?.to_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_note_it_is_the_first_and_a_bad_note_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("dhcpd/leases.journal");
        assert_eq!(Schema::of(&file).unwrap().number(), 1);
        fs::write(scratch.path().join(NOTE), Note::of(2).to_json()).unwrap();
        let schema = Schema::of(&file).unwrap();
        assert_eq!(schema.number(), 2);
        let line = b"0123abcd {\"a\":1}\n";
        assert_eq!(schema.read(&file, &schema.write(&file, line)), line);
        fs::write(scratch.path().join(NOTE), "{").unwrap();
        assert!(Schema::of(&file).unwrap_err().to_string().contains("schema.json"));
    }
}
