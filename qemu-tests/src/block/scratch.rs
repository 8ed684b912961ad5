//! A disk in the test's memory, for what a guest can only use as one.

use std::io;

use super::Backend;

/// Its content.
#[derive(Debug)]
pub struct Scratch(Vec<u8>);

impl Scratch {
    /// All zero.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self(vec![0; size])
    }

    /// With this content.
    #[must_use]
    pub fn of(content: Vec<u8>) -> Self {
        Self(content)
    }

    fn range(&mut self, offset: u64, length: usize) -> io::Result<&mut [u8]> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let range = start..start.saturating_add(length);
        self.0.get_mut(range).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Backend for Scratch {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.copy_from_slice(self.range(offset, buffer.len())?);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.range(offset, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
