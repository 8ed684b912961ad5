//! Waiting for a file to appear or to be replaced, without asking again and again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Watches one path, also while the file or its directories do not exist. Readable when something
/// happened that may concern it; then call [`FileWatch::drain`] and look at the file.
///
/// Mounting over one of the directories is no event of inotify(7): whoever waits for a mount looks at the
/// path from time to time as well, and calls [`FileWatch::drain`] then.
#[derive(Debug)]
pub struct FileWatch {
    inotify: Inotify,
    path: PathBuf,
}

impl FileWatch {
    /// Begins to watch; what happens from now on is not missed.
    ///
    /// # Errors
    /// The kernel's, when inotify instances or watches are exhausted.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let watch = Self { inotify, path: path.to_owned() };
        watch.arm()?;
        Ok(watch)
    }

    /// Takes what has happened; true if anything has.
    ///
    /// # Errors
    /// The kernel's, as in [`FileWatch::new`].
    pub fn drain(&self) -> io::Result<bool> {
        let mut any = false;
        loop {
            match self.inotify.read_events() {
                Ok(events) => any |= !events.is_empty(),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A directory on the way may have appeared.
        self.arm()?;
        Ok(any)
    }

    /// Blocks until the file exists; false if it does not within `limit`.
    ///
    /// # Errors
    /// The kernel's, as in [`FileWatch::new`].
    pub fn wait_for_file(&self, limit: Duration) -> io::Result<bool> {
        let start = Instant::now();
        while !self.path.exists() {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            // Rounded up, so that the last wait does not end just before the limit, again and again.
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.drain()?;
        }
        Ok(true)
    }

    /// Watches the deepest directory on the way that exists.
    fn arm(&self) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            // A directory renamed away: another one may come in its place.
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        loop {
            let Some(directory) = self.deepest() else { return Ok(()) };
            match self.inotify.add_watch(directory, flags) {
                // The next directory may have been made before this one was watched.
                Ok(_) if self.deepest() == Some(directory) => return Ok(()),
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn deepest(&self) -> Option<&Path> {
        self.path.ancestors().skip(1).find(|directory| directory.is_dir())
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_in_a_directory_that_does_not_exist_yet() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b/status.json");
        let watch = FileWatch::new(&path).unwrap();
        let writer = std::thread::spawn({
            let path = path.clone();
            move || {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                crate::file::write_atomic(&path, b"{}").unwrap();
            }
        });
        assert!(watch.wait_for_file(Duration::from_secs(30)).unwrap());
        writer.join().unwrap();
    }

    #[test]
    fn limit_ends_the_wait() {
        let scratch = tempfile::tempdir().unwrap();
        let watch = FileWatch::new(&scratch.path().join("never")).unwrap();
        assert!(!watch.wait_for_file(Duration::from_millis(1)).unwrap());
    }

    #[test]
    fn replacement_is_an_event() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("status.json");
        let watch = FileWatch::new(&path).unwrap();
        assert!(!watch.drain().unwrap());
        crate::file::write_atomic(&path, b"{}").unwrap();
        assert!(watch.drain().unwrap());
        assert!(!watch.drain().unwrap());
    }

    #[test]
    fn directory_that_is_replaced_is_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("netd");
        let path = directory.join("status.json");
        std::fs::create_dir(&directory).unwrap();
        let watch = FileWatch::new(&path).unwrap();
        for rename_away in [false, true] {
            if rename_away {
                std::fs::rename(&directory, scratch.path().join("old")).unwrap();
            } else {
                std::fs::remove_dir_all(&directory).unwrap();
            }
            watch.drain().unwrap();
            std::fs::create_dir(&directory).unwrap();
            watch.drain().unwrap();
            crate::file::write_atomic(&path, b"{}").unwrap();
            assert!(watch.drain().unwrap(), "renamed away: {rename_away}");
        }
    }

    #[test]
    fn directory_that_is_replaced_between_two_looks_wakes_the_watcher() {
        for rename_away in [false, true] {
            let scratch = tempfile::tempdir().unwrap();
            let directory = scratch.path().join("netd");
            let path = directory.join("status.json");
            std::fs::create_dir(&directory).unwrap();
            let watch = FileWatch::new(&path).unwrap();
            if rename_away {
                std::fs::rename(&directory, scratch.path().join("old")).unwrap();
            } else {
                std::fs::remove_dir_all(&directory).unwrap();
            }
            std::fs::create_dir(&directory).unwrap();
            crate::file::write_atomic(&path, b"{}").unwrap();
            assert!(watch.drain().unwrap(), "renamed away: {rename_away}");
            crate::file::write_atomic(&path, b"{}").unwrap();
            assert!(watch.drain().unwrap(), "renamed away: {rename_away}");
        }
    }
}
