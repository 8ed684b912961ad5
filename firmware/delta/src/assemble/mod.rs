//! Putting an image together: from what lies on the box and what comes from the server.
//!
//! [`Chunks`] follows an index, [`Patching`] a patch's header; both in the same steps: see what the target has from an earlier
//! attempt, make locally what can be, say which ranges are to be fetched, take what comes. Everything is checked by its
//! digest before it is written, so that an attempt may end anywhere and the next one goes on from there.

mod chunks;
mod patching;

use std::io::Read;

pub use chunks::Chunks;
pub use patching::Patching;

use crate::Error;
use crate::plan::Range;

/// The bytes of one range as they come, of which some are wanted.
struct Body<R> {
    body: R,
    offset: u64,
}

impl<R: Read> Body<R> {
    fn new(range: Range, body: R) -> Self {
        Self { body, offset: range.offset }
    }

    /// Skips to `wanted` and reads it; its length is bounded by the format.
    fn read(&mut self, wanted: Range) -> Result<Vec<u8>, Error> {
        let skip = wanted.offset.checked_sub(self.offset).ok_or(Error::Malformed("ranges out of order"))?;
        let skipped = std::io::copy(&mut (&mut self.body).take(skip), &mut std::io::sink())?;
        let mut bytes = Vec::new();
        (&mut self.body).take(wanted.length).read_to_end(&mut bytes)?;
        if skipped < skip || (bytes.len() as u64) < wanted.length {
            return Err(Error::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.offset = wanted.end();
        Ok(bytes)
    }
}

fn contains(range: Range, wanted: Range) -> bool {
    range.offset <= wanted.offset && wanted.end() <= range.end()
}

#[cfg(test)]
mod tests;
