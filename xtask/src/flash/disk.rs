//! The medium that is written: a trait, so that tests can put a bad disk in its place.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};

/// Zeros written at a time where the medium cannot make them itself.
const ZEROS: usize = 1 << 20;

/// A disk, or a file in its place.
pub trait Medium {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The kernel's.
    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes a range read as zeros, cheaply if the medium can.
    ///
    /// # Errors
    /// The kernel's.
    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes everything written so far durable, and forgets it, so that reading asks the medium.
    ///
    /// # Errors
    /// The kernel's: this is where a failing disk shows.
    fn settle(&mut self) -> io::Result<()>;

    /// Fills `buffer`.
    ///
    /// # Errors
    /// The kernel's.
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Medium for File {
    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        // A hole reads as zeros, in a file and on a disk; the kernel refuses it where that is not certain.
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let signed = |value: u64| i64::try_from(value).map_err(io::Error::other);
        match fallocate(self.as_fd(), flags, signed(offset)?, signed(length)?) {
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENODEV | Errno::ENOSYS | Errno::EIO) => {
                write_zeros(self, offset, length)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        self.sync_all()?;
        Ok(posix_fadvise(self.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

fn write_zeros(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    let mut done = 0;
    while done < length {
        let count = usize::try_from((length - done).min(ZEROS as u64)).map_err(io::Error::other)?;
        file.write_all_at(&zeros[..count], offset + done)?;
        done += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_replace_what_was_there_and_only_that() {
        let mut file = tempfile::tempfile().unwrap();
        Medium::write(&mut file, &[7; 3 << 20], 0).unwrap();
        file.zero(1 << 20, 1 << 20).unwrap();
        write_zeros(&file, (2 << 20) + 5, 10).unwrap();
        file.settle().unwrap();
        let mut bytes = vec![0; 3 << 20];
        Medium::read(&mut file, &mut bytes, 0).unwrap();
        let zeros = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
        assert!(zeros(1 << 20..2 << 20) && zeros((2 << 20) + 5..(2 << 20) + 15));
        assert_eq!(bytes.iter().filter(|byte| **byte == 7).count(), (2 << 20) - 10);
    }
}
