//! The supervisor's place in a test: where a daemon says that it is ready (sd_notify(3)).

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Between two looks at whether the daemon still runs.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A notification socket, in a directory with a short path: socket names are limited to 107 bytes.
#[derive(Debug)]
pub struct Ready {
    socket: UnixDatagram,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Ready {
    /// Binds it.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn bind() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("kontor-").tempdir()?;
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(LOOK_INTERVAL))?;
        Ok(Self { socket, path, _directory: directory })
    }

    /// The value of `NOTIFY_SOCKET`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the daemon says something, or a moment.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn hear(&self) -> Result<String> {
        let mut message = [0; 4096];
        match self.socket.recv(&mut message) {
            Ok(count) => Ok(String::from_utf8_lossy(&message[..count]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(String::new()),
            Err(error) => Err(error).context("wait for the daemon's notification"),
        }
    }

    /// Waits until the daemon says that it is ready.
    ///
    /// # Errors
    /// When it ends before that, or takes longer than `limit`.
    pub fn wait(&self, daemon: &mut Child, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.hear()?.lines().any(|line| line == "READY=1") {
                return Ok(());
            }
            if let Some(status) = daemon.try_wait()? {
                bail!("it ended with {status} before it was ready");
            }
        }
        bail!("it was not ready within {} s", limit.as_secs())
    }
}
