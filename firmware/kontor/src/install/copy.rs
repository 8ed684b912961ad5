//! Writing the disk, in an order that makes an interrupted installation look like none, and reading it back.
//!
//! First the beginning and the end of the disk are cleared, then the partitions are written and read back, then the tables; the
//! boot sector, without which neither BIOS nor UEFI nor we take the disk for one that boots, is the last sector that is written.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt;

use anyhow::{Context as _, ensure};
use kontor_boot::gpt::{SECTOR, Table, protective_mbr};
use kontor_boot::growth::Growth;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use sha2::{Digest as _, Sha256};

/// Moved and hashed at a time.
const BLOCK: usize = 1 << 20;
/// What is cleared at both ends: tables of any kind, and superblocks that are kept at the end.
const ENDS: u64 = 1 << 20;
/// Brought to the disk at a time, so that what is said of the progress is true.
const SYNC_EVERY: u64 = 64 << 20;

/// What the disk will hold.
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
    pub(super) growth: Growth,
    /// The source's, whose boot code is used.
    pub(super) boot_sector: [u8; SECTOR as usize],
}

/// A partition, or its beginning.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) source: Source,
}

pub(super) enum Source {
    /// The same partition of the source.
    Device(File),
    /// These bytes, and zeros behind them.
    Bytes(Vec<u8>),
}

/// Hears what is being done, bytes done and to be done; an error ends it.
pub(super) type Hear<'a> = dyn FnMut(&'static str, u64, u64) -> anyhow::Result<()> + 'a;

/// A block as it was written: its hash, or nothing if it is zero.
struct Written {
    name: &'static str,
    offset: u64,
    length: usize,
    hash: Option<[u8; 32]>,
}

/// Writes all of it.
pub(super) fn install(plan: &Plan, disk: &File, hear: &mut Hear<'_>) -> anyhow::Result<()> {
    let size = kontor_sys::block::size(disk)?;
    for at in [0, size.saturating_sub(ENDS)] {
        clear(disk, at, ENDS.min(size)).context("cannot clear the disk's ends")?;
    }
    settle(disk).context("cannot clear the disk's ends")?;
    let written = write_parts(plan, disk, hear)?;
    settle(disk).context("cannot write the disk")?;
    read_back(&written, disk, hear)?;
    for table in [&plan.growth.backup, &plan.growth.primary] {
        let copies =
            [(table.entries_lba, table.encode_entries()), (table.my_lba, table.encode_header().to_vec())];
        for (lba, bytes) in copies {
            write_and_check(disk, &bytes, lba * SECTOR).context("the partition table")?;
        }
    }
    write_and_check(disk, &boot_sector(plan), 0).context("the boot sector")
}

fn boot_sector(plan: &Plan) -> [u8; SECTOR as usize] {
    let mut sector = plan.boot_sector;
    let Table { alternate_lba, .. } = plan.growth.primary;
    protective_mbr(&mut sector, alternate_lba);
    sector
}

fn write_parts(plan: &Plan, disk: &File, hear: &mut Hear<'_>) -> anyhow::Result<Vec<Written>> {
    let total = plan.parts.iter().map(|part| part.length).sum();
    let (mut done, mut written, mut buffer) = (0, Vec::new(), vec![0; BLOCK]);
    for part in &plan.parts {
        let (mut at, mut zeros) = (0, 0);
        while at < part.length {
            let length = usize::try_from(part.length - at).unwrap_or(BLOCK).min(BLOCK);
            let bytes = &mut buffer[..length];
            part.source.read(at, bytes).with_context(|| format!("cannot read {}", part.name))?;
            let (offset, is_zero) = (part.offset + at, is_zero(bytes));
            let write = || -> io::Result<()> {
                if is_zero {
                    return Ok(());
                }
                clear(disk, offset - zeros, zeros)?;
                disk.write_all_at(bytes, offset)
            };
            write().with_context(|| format!("cannot write {}", part.name))?;
            zeros = if is_zero { zeros + length as u64 } else { 0 };
            let hash = (!is_zero).then(|| Sha256::digest(&*bytes).into());
            written.push(Written { name: part.name, offset, length, hash });
            at += length as u64;
            done += length as u64;
            if done % SYNC_EVERY < BLOCK as u64 {
                disk.sync_data().with_context(|| format!("cannot write {}", part.name))?;
            }
            hear("writing", done, total)?;
        }
        clear(disk, part.offset + at - zeros, zeros)
            .with_context(|| format!("cannot write {}", part.name))?;
    }
    Ok(written)
}

fn read_back(written: &[Written], disk: &File, hear: &mut Hear<'_>) -> anyhow::Result<()> {
    let total = written.iter().map(|block| block.length as u64).sum();
    let (mut done, mut buffer) = (0, vec![0; BLOCK]);
    for Written { name, offset, length, hash } in written {
        let bytes = &mut buffer[..*length];
        disk.read_exact_at(bytes, *offset).with_context(|| format!("cannot read back {name}"))?;
        let is_right = match hash {
            Some(hash) => Sha256::digest(&*bytes)[..] == hash[..],
            None => is_zero(bytes),
        };
        ensure!(
            is_right,
            "at byte {offset} ({name}) the disk gives back something else than was written: replace it"
        );
        done += *length as u64;
        hear("reading back", done, total)?;
    }
    Ok(())
}

fn write_and_check(disk: &File, bytes: &[u8], offset: u64) -> anyhow::Result<()> {
    disk.write_all_at(bytes, offset).and_then(|()| settle(disk)).context("cannot be written")?;
    let mut read = vec![0; bytes.len()];
    disk.read_exact_at(&mut read, offset).context("cannot be read back")?;
    ensure!(read == bytes, "the disk gives back something else than was written: replace it");
    Ok(())
}

impl Source {
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Device(device) => device.read_exact_at(buffer, at),
            Self::Bytes(bytes) => {
                let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                buffer[count..].fill(0);
                Ok(())
            }
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Has the disk make zeros; the kernel writes them to one that cannot.
fn clear(disk: &File, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let signed = |value: u64| i64::try_from(value).map_err(io::Error::other);
    let flags = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(disk.as_fd(), flags, signed(offset)?, signed(length)?) {
        Err(Errno::EOPNOTSUPP) => {
            let zeros = vec![0; BLOCK];
            (0..length).step_by(BLOCK).try_for_each(|at| {
                let count = (length - at).min(BLOCK as u64) as usize;
                disk.write_all_at(&zeros[..count], offset + at)
            })
        }
        result => Ok(result?),
    }
}

/// To the disk, and out of the kernel's memory: who reads then asks the disk.
fn settle(disk: &File) -> io::Result<()> {
    disk.sync_all()?;
    Ok(posix_fadvise(disk.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

#[cfg(test)]
mod tests;
