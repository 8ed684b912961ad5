//! The hardware watchdog: a timer that resets the machine unless it is fed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

// The function this macro makes is public to this file only.
#[allow(missing_docs, unreachable_pub)]
mod ioctl {
    nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
}

/// An armed watchdog. Dropping it without [`Self::disarm`] leaves it armed.
#[derive(Debug)]
pub struct Watchdog(File);

impl Watchdog {
    /// Arms it with about this timeout (hardware rounds; one that cannot be set keeps its own).
    ///
    /// # Errors
    /// When the device cannot be opened.
    pub fn arm(device: &Path, timeout_s: u16) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(device)?;
        let mut seconds = libc::c_int::from(timeout_s);
        // Not every driver can; the default of all supported ones is above our feeding interval.
        // SAFETY: the kernel reads and writes one int.
        let _ = unsafe { ioctl::set_timeout(file.as_raw_fd(), &raw mut seconds) };
        Ok(Self(file))
    }

    /// Starts its time anew.
    ///
    /// # Errors
    /// The device's.
    pub fn feed(&mut self) -> io::Result<()> {
        self.0.write_all(b"\0")
    }

    /// Stops it (the "magic close"), for an orderly shutdown.
    ///
    /// # Errors
    /// The device's.
    pub fn disarm(mut self) -> io::Result<()> {
        self.0.write_all(b"V")
    }
}
