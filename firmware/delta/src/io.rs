//! Where old bytes are read and new ones written: files, partitions, or vectors in tests.

use std::io::{self, Read};

/// Something with bytes at offsets: an old image, a partition, an interrupted download.
pub trait Source {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// When it cannot be filled as a whole ([`io::ErrorKind::UnexpectedEof`] behind the end).
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Where the new image comes to be. What lies there from an earlier attempt is used.
pub trait Target: Source {
    /// Writes `bytes` from `offset` on.
    ///
    /// # Errors
    /// When not all of them were written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

impl Source for &[u8] {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let range = from.and_then(|from| Some(from..from.checked_add(buffer.len())?));
        let found = range.and_then(|range| self.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}

impl Source for Vec<u8> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buffer)
    }
}

impl Target for Vec<u8> {
    /// Grows as a file would, with zeros where nothing was written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let to = from.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if self.len() < to {
            self.resize(to, 0);
        }
        self[from..to].copy_from_slice(bytes);
        Ok(())
    }
}

impl<S: Source + ?Sized> Source for &mut S {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }
}

impl<T: Target + ?Sized> Target for &mut T {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, bytes)
    }
}

/// The first `length` bytes of a source, from begin to end. A part that cannot be read reads as zeros: of a damaged disk,
/// what is around the damage is still worth having, and each chunk is checked by its digest.
#[derive(Debug)]
pub struct Sequential<S> {
    source: S,
    offset: u64,
    length: u64,
}

impl<S: Source> Sequential<S> {
    /// Reads `source`, which has `length` bytes.
    pub fn new(source: S, length: u64) -> Self {
        Self { source, offset: 0, length }
    }
}

impl<S: Source> Read for Sequential<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A piece at a time, so that what is lost around a bad sector is little.
        const PIECE: usize = 64 * 1024;
        let left = usize::try_from(self.length - self.offset).unwrap_or(usize::MAX);
        let count = buffer.len().min(left).min(PIECE);
        let buffer = &mut buffer[..count];
        if self.source.read_at(self.offset, buffer).is_err() {
            buffer.fill(0);
        }
        self.offset += count as u64;
        Ok(count)
    }
}
