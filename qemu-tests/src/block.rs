//! Disks that the test holds in its hand: block devices served to QEMU over NBD, recorded and misbehaving.
//!
//! A [`BlockServer`] serves one [`Backend`] on a Unix socket, strictly one request after the other, so that
//! the order of what it has answered is the order of what the disk holds. It owns the only threads of this
//! crate: QEMU connects while the test's event loop is busy starting it.

mod nbd;
pub mod picture;
pub mod scratch;
pub mod trace;
pub mod variants;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

/// What is behind a served disk.
pub trait Backend: Send {
    /// Its size in bytes.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// What the guest sees as an I/O error; so for all of these.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes; it need not survive a power cut before the next flush.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn flush(&mut self) -> io::Result<()>;
}

/// How a disk behaves from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// It does what it is asked.
    #[default]
    Healthy,
    /// It answers everything with EIO.
    Failing,
    /// It reads, but answers every write and flush with EIO.
    Unwritable,
    /// It answers nothing until its mood changes.
    Stalled,
    /// Every request takes this long.
    Slow(std::time::Duration),
}

/// A disk served to QEMU; the server lives as long as QEMU is connected.
#[derive(Clone)]
pub struct BlockServer<B> {
    shared: Arc<Shared<B>>,
    socket: PathBuf,
}

struct Shared<B> {
    backend: Mutex<B>,
    mood: Mutex<Mood>,
    changed: Condvar,
}

impl<B: Backend + 'static> BlockServer<B> {
    /// Listens on `socket`; any number of machines may connect, one after the other.
    ///
    /// # Errors
    /// When the socket or the thread cannot be made.
    pub fn start(socket: PathBuf, backend: B) -> Result<Self> {
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("listen on {}", socket.display()))?;
        let shared = Arc::new(Shared {
            backend: Mutex::new(backend),
            mood: Mutex::default(),
            changed: Condvar::new(),
        });
        let server = Self { shared: shared.clone(), socket };
        std::thread::Builder::new().name("block-server".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // It ends with QEMU, whose end is no error.
                let _ = nbd::serve(stream, &*shared);
            }
        })?;
        Ok(server)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Changes the disk's behaviour; requests that wait go on by the new one.
    pub fn set_mood(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
        self.shared.changed.notify_all();
    }

    /// The backend, between two requests.
    pub fn backend(&self) -> MutexGuard<'_, B> {
        lock(&self.shared.backend)
    }
}

impl<B: Backend> Shared<B> {
    /// Waits as the mood demands; whether the request may be done.
    fn admit(&self, writing: bool) -> bool {
        let mut mood = lock(&self.mood);
        while *mood == Mood::Stalled {
            mood = self.changed.wait(mood).unwrap_or_else(PoisonError::into_inner);
        }
        if let Mood::Slow(delay) = *mood {
            mood = self.changed.wait_timeout(mood, delay).unwrap_or_else(PoisonError::into_inner).0;
        }
        !(*mood == Mood::Failing || *mood == Mood::Unwritable && writing)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
