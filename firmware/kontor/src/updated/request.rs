//! What an operator asks for: a file that `kontor ctl update` leaves, and the daemon takes away.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kontor_status::paths::Paths;
use kontor_sys::file::write_atomic;
use serde::{Deserialize, Serialize};

use crate::storage::stick;

/// A request is one line.
const MAX_BYTES: u64 = 4096;

/// In the place of a folder: whatever stick is plugged in.
const STICK: &str = "stick";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask")]
pub(crate) enum Request {
    /// Look now.
    Look,
    /// Look, fetch, install.
    Install {
        /// Across a major version: to this one.
        major: Option<u32>,
    },
    /// The same from a folder with a repository.
    From {
        /// The folder.
        folder: PathBuf,
        /// Across a major version: to this one.
        major: Option<u32>,
    },
    /// Back to the release in the other slot.
    Rollback,
}

impl Request {
    /// The same with a folder that is there: a stick is looked for, and mounted.
    ///
    /// # Errors
    /// When there is no stick with a repository.
    pub(crate) fn found(self) -> anyhow::Result<Self> {
        match self {
            Self::From { folder, major } if folder == Path::new(STICK) => {
                Ok(Self::From { folder: stick::with_repository()?, major })
            }
            other => Ok(other),
        }
    }

    /// Leaves the request for the daemon.
    ///
    /// # Errors
    /// When the daemon is not there, or the folder holds no repository.
    pub(crate) fn leave(&self, paths: &Paths) -> anyhow::Result<()> {
        if let Some(folder) = self.from()
            && !folder.join("metadata/timestamp.json").is_file()
        {
            bail!("{} is no repository: there is no metadata/timestamp.json", folder.display());
        }
        let path = paths.update_request();
        let text = serde_json::to_vec(self)?;
        write_atomic(&path, &text).with_context(|| format!("{}: updated does not run", path.display()))
    }

    /// The request that is there, taken away.
    pub(super) fn take(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let mut text = Vec::new();
        let read = file.take(MAX_BYTES).read_to_end(&mut text);
        let _ = fs::remove_file(path);
        read.ok()?;
        serde_json::from_slice(&text).inspect_err(|error| eprintln!("error: a request: {error}")).ok()
    }

    /// The folder that is named.
    pub(super) fn from(&self) -> Option<&Path> {
        match self {
            Self::From { folder, .. } => Some(folder),
            Self::Look | Self::Install { .. } | Self::Rollback => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let args = ["--run".to_owned(), directory.path().display().to_string()];
        let paths = Paths::from_args(&args);
        assert!(Request::Look.leave(&paths).unwrap_err().to_string().contains("does not run"));
        fs::create_dir(directory.path().join("updated")).unwrap();
        let request = Request::Install { major: Some(2) };
        request.leave(&paths).unwrap();
        assert_eq!(Request::take(&paths.update_request()), Some(request));
        assert_eq!(Request::take(&paths.update_request()), None);
        fs::write(paths.update_request(), "nonsense").unwrap();
        assert_eq!(Request::take(&paths.update_request()), None);
        assert!(!paths.update_request().exists());
        let from = Request::From { folder: directory.path().to_owned(), major: None };
        assert!(from.leave(&paths).unwrap_err().to_string().contains("is no repository"));
    }
}
