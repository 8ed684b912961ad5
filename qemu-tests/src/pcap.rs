//! Captures: the classic pcap format, Ethernet, microseconds.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

/// Magic number of microsecond captures, in our own byte order (readers look at it to learn ours).
const MAGIC: u32 = 0xa1b2_c3d4;
/// Longest frame kept whole.
const SNAP_LENGTH: u32 = 65_535;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

/// A capture file being written.
#[derive(Debug)]
pub struct Pcap {
    file: BufWriter<File>,
}

impl Pcap {
    /// Creates `path` and writes the file header.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&MAGIC.to_ne_bytes())?;
        file.write_all(&2_u16.to_ne_bytes())?;
        file.write_all(&4_u16.to_ne_bytes())?;
        for word in [0, 0, SNAP_LENGTH, ETHERNET] {
            file.write_all(&word.to_ne_bytes())?;
        }
        Ok(Self { file })
    }

    /// Appends one frame, `at` after the start of the test.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn record(&mut self, at: Duration, frame: &[u8]) -> io::Result<()> {
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        for word in [seconds, at.subsec_micros(), length, length] {
            self.file.write_all(&word.to_ne_bytes())?;
        }
        self.file.write_all(frame)
    }
}
