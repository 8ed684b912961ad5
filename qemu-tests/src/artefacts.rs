//! What a test leaves behind: nothing when it passes, its logs and captures when it fails.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directory of one test.
#[derive(Debug)]
pub struct Artefacts {
    directory: PathBuf,
    /// For sockets: their paths must be short.
    sockets: tempfile::TempDir,
}

impl Artefacts {
    /// An empty directory for the test `name`.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn create(name: &str) -> Result<Self> {
        let directory = target_directory().join("qemu-tests").join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("empty {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let sockets =
            tempfile::Builder::new().prefix("kontor-").tempdir().context("directory for sockets")?;
        Ok(Self { directory, sockets })
    }

    /// Where logs and captures go.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path for a socket.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.sockets.path().join(name)
    }

    /// Removes everything: the test passed.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.directory).with_context(|| format!("remove {}", self.directory.display()))
    }
}

/// Cargo's target directory.
fn target_directory() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}
