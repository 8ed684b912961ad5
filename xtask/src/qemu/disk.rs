//! A machine's own disk: a sparse copy of the image, enlarged.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

/// Size of a machine's disk: larger than any image, so that growth at first boot is exercised.
pub const MACHINE_SIZE: u64 = 4 << 30;

/// Copies the image `from` to `to` without its holes and makes the copy `size` bytes long (never shorter
/// than the image).
///
/// # Errors
/// Any I/O error, with the file at fault.
pub fn copy_sparse(from: &Path, to: &Path, size: u64) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("open {}", from.display()))?;
    let length = source.metadata().with_context(|| format!("stat {}", from.display()))?.len();
    let mut target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)
        .with_context(|| format!("create {}", to.display()))?;
    target.set_len(size.max(length)).with_context(|| format!("enlarge {}", to.display()))?;
    copy_data(&mut source, &mut target, length)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn copy_data(source: &mut File, target: &mut File, length: u64) -> io::Result<()> {
    let mut offset = 0;
    while let Some((start, end)) = next_data(source, offset, length)? {
        source.seek(SeekFrom::Start(start))?;
        target.seek(SeekFrom::Start(start))?;
        copy_range(source, target, end - start)?;
        offset = end;
    }
    Ok(())
}

/// The next range of the file, up to `length`, that is not a hole.
///
/// # Errors
/// The kernel's.
pub fn next_data(file: &File, offset: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if offset >= length {
        return Ok(None);
    }
    let start = match lseek64(file, signed(offset)?, Whence::SeekData) {
        Ok(start) => unsigned(start)?,
        Err(Errno::ENXIO) => return Ok(None),
        // File systems that know no holes.
        Err(Errno::EINVAL) => return Ok(Some((offset, length))),
        Err(error) => return Err(error.into()),
    };
    if start >= length {
        return Ok(None);
    }
    let end = unsigned(lseek64(file, signed(start)?, Whence::SeekHole)?)?;
    Ok(Some((start, end.min(length))))
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(io::Error::other)
}

fn unsigned(value: i64) -> io::Result<u64> {
    u64::try_from(value).map_err(io::Error::other)
}

/// Copies `length` bytes; blocks of zeros stay holes.
fn copy_range(source: &mut File, target: &mut File, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut left = length;
    while left > 0 {
        let want = usize::try_from(left.min(buffer.len() as u64)).map_err(io::Error::other)?;
        let count = source.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if buffer[..count].iter().all(|byte| *byte == 0) {
            target.seek_relative_by(count)?;
        } else {
            target.write_all(&buffer[..count])?;
        }
        left -= count as u64;
    }
    Ok(())
}

/// Skipping forward in a file.
trait SeekBy {
    fn seek_relative_by(&mut self, count: usize) -> io::Result<()>;
}

impl SeekBy for File {
    fn seek_relative_by(&mut self, count: usize) -> io::Result<()> {
        let count = i64::try_from(count).map_err(io::Error::other)?;
        self.seek(SeekFrom::Current(count)).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn holes_stay_holes_and_the_rest_is_equal() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let mut file = File::create(&from).unwrap();
        file.write_all(b"front").unwrap();
        file.seek(SeekFrom::Start(32 << 20)).unwrap();
        file.write_all(b"back").unwrap();
        drop(file);
        copy_sparse(&from, &to, 64 << 20).unwrap();

        let mut copy = std::fs::read(&to).unwrap();
        assert_eq!(copy.len(), 64 << 20);
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 4 << 20);
        copy.truncate((32 << 20) + 4);
        assert_eq!(copy, std::fs::read(&from).unwrap());
    }

    #[test]
    fn a_copy_is_never_shorter_than_the_image() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        std::fs::write(&from, [7; 5000]).unwrap();
        copy_sparse(&from, &to, 100).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), [7; 5000]);
    }
}
