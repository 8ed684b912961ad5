//! Which files one process has hashed and found right, so that it hashes each once, however many steps ask for it.
//!
//! Only for this process: the next one hashes again. A file that anybody touched since is another file.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

use camino::Utf8Path;

/// Files whose hash was right.
#[derive(Debug, Default)]
pub(super) struct Checked(Mutex<HashSet<Identity>>);

/// One state of a file: whoever writes to it, even within its length, changes the time of its last change.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    sha256: String,
    device: u64,
    inode: u64,
    length: u64,
    changed_at: (i64, i64),
}

impl Checked {
    /// Whether this very file was found to have this hash.
    pub(super) fn knows(&self, path: &Utf8Path, sha256: &str) -> bool {
        let Some(identity) = Identity::of(path, sha256) else { return false };
        self.0.lock().is_ok_and(|known| known.contains(&identity))
    }

    /// Remembers that it has.
    pub(super) fn remember(&self, path: &Utf8Path, sha256: &str) {
        if let (Some(identity), Ok(mut known)) = (Identity::of(path, sha256), self.0.lock()) {
            known.insert(identity);
        }
    }
}

impl Identity {
    fn of(path: &Utf8Path, sha256: &str) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            sha256: sha256.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_unknown_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().join("x.deb");
        fs::write(&path, "right").unwrap();
        let checked = Checked::default();
        assert!(!checked.knows(&path, "hash"));
        checked.remember(&path, "hash");
        assert!(checked.knows(&path, "hash") && !checked.knows(&path, "other hash"));
        // Of the same length, under the same name.
        let other = path.with_extension("new");
        fs::write(&other, "wrong").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!checked.knows(&path, "hash"));
        fs::remove_file(&path).unwrap();
        assert!(!checked.knows(&path, "hash"));
    }
}
