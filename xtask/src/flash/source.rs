//! What is to be written: a checked image, fitted to the size of the disk it goes to.
//!
//! The image's partition table is grown to the disk, as the box itself would at its first boot. Zeros are kept
//! as zeros: an image's holes belong to file systems and raw partitions that rely on them. Only the data
//! partition is left as it is behind its beginning, which tells the box that it is empty.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::gpt::{Header, SECTOR, Table, protective_mbr};
use kontor_boot::install::with_id;
use kontor_boot::partition::{LAYOUT, PartitionKind};
use kontor_boot::{BootState, Guid, filesystem, growth};

use crate::qemu::disk::next_data;

/// What holds boot sector and partition table; written last.
pub const HEAD: u64 = 1 << 20;

/// An image that has been checked.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: Utf8PathBuf,
    /// Its partitions.
    pub table: Table,
    length: u64,
}

/// A run of bytes of the finished disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// What is in it.
    pub content: Content,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The same bytes of the image.
    Image,
    /// Zeros.
    Zero,
    /// These bytes, from the segment's beginning.
    Bytes(Vec<u8>),
}

/// A finished disk. What is in none of its parts stays as it is.
#[derive(Debug)]
pub struct Layout {
    /// The partitions.
    pub body: Vec<Segment>,
    /// The second copy of the partition table: where, and what.
    pub tail: (u64, Vec<u8>),
    /// The first mebibyte: boot sector and partition table.
    pub head: Vec<u8>,
    /// Partitions of the finished disk, for messages.
    pub table: Table,
}

impl Source {
    /// Opens an image and checks that it is one.
    ///
    /// # Errors
    /// When it is not a complete image; the message says what is missing.
    pub fn open(path: &Utf8Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        let metadata = file.metadata().with_context(|| format!("cannot read {path}"))?;
        ensure!(metadata.is_file(), "{path} is no ordinary file; the image is made by `cargo xtask image`");
        let length = metadata.len();
        let table = check(&file, length)
            .with_context(|| format!("{path} is not a Kontor disk image (`cargo xtask image` makes one)"))?;
        Ok(Self { file, path: path.to_owned(), table, length })
    }

    /// Where the image is.
    #[must_use]
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The open image.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes a disk needs at least.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` from `offset` of a segment.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn read(&self, segment: &Segment, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &segment.content {
            Content::Image => self.file.read_exact_at(buffer, segment.offset + at),
            Content::Zero => {
                buffer.fill(0);
                Ok(())
            }
            Content::Bytes(bytes) => {
                let at = usize::try_from(at).map_err(io::Error::other)?;
                let from = bytes.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(from);
                Ok(())
            }
        }
    }

    /// What a disk of `size` bytes will hold, with `seed` in place of the image's own, and GUIDs made of `id`: no two disks
    /// that are flashed have the same.
    ///
    /// # Errors
    /// When the disk is too small, or the image cannot be read.
    pub fn layout(&self, size: u64, seed: Option<Vec<u8>>, id: Guid) -> Result<Layout> {
        ensure!(
            size >= self.length,
            "the target is too small: it has {} bytes, the image needs {}",
            size,
            self.length
        );
        let grown =
            growth::plan(&with_id(&self.table, id), size).context("fitting the partitions to the target")?;
        let mut body = Vec::new();
        for entry in &self.table.entries {
            let (offset, length) = (entry.offset(), entry.length());
            match (entry.kind(), &seed) {
                (Some(PartitionKind::Seed), Some(seed)) => {
                    body.extend(with_bytes(offset, length, seed.clone()))
                }
                (Some(PartitionKind::State | PartitionKind::Data), _) => {
                    body.extend(self.image_segments(offset, length, true)?)
                }
                _ => body.extend(self.image_segments(offset, length, false)?),
            }
        }
        let backup = [grown.backup.encode_entries(), grown.backup.encode_header().to_vec()].concat();
        ensure!(body.iter().all(|segment| segment.offset >= HEAD), "a partition begins before 1 MiB");
        let tail = (grown.backup.entries_lba * SECTOR, backup);
        Ok(Layout { body, tail, head: self.head(&grown.primary)?, table: grown.primary })
    }

    /// Data and holes of a partition; of one for the box's own use only the beginning of a hole counts.
    fn image_segments(&self, offset: u64, length: u64, own: bool) -> Result<Vec<Segment>> {
        let end = offset + length;
        let mut segments = Vec::new();
        let hole = |from: u64, to: u64, segments: &mut Vec<Segment>| {
            let cleared = offset + filesystem::PROBE_LENGTH as u64;
            let to = if own { to.min(cleared) } else { to };
            if from < to {
                segments.push(Segment { offset: from, length: to - from, content: Content::Zero });
            }
        };
        let mut at = offset;
        while let Some((start, stop)) = next_data(&self.file, at, end)? {
            hole(at, start, &mut segments);
            segments.push(Segment { offset: start, length: stop - start, content: Content::Image });
            at = stop;
        }
        hole(at, end, &mut segments);
        Ok(segments)
    }

    /// The image's boot sector and the partition table of the grown disk.
    fn head(&self, primary: &Table) -> Result<Vec<u8>> {
        let mut head = vec![0; usize::try_from(HEAD)?];
        self.file.read_exact_at(&mut head, 0).with_context(|| format!("cannot read {}", self.path))?;
        protective_mbr(&mut head[..512], primary.alternate_lba);
        put(&mut head, SECTOR * primary.my_lba, &primary.encode_header())?;
        put(&mut head, SECTOR * primary.entries_lba, &primary.encode_entries())?;
        Ok(head)
    }
}

impl Layout {
    /// The name of the partition at an offset, for messages.
    #[must_use]
    pub fn place(&self, offset: u64) -> &'static str {
        let inside = |entry: &&kontor_boot::gpt::Entry| {
            (entry.offset()..entry.offset() + entry.length()).contains(&offset)
        };
        match self.table.entries.iter().find(inside).and_then(kontor_boot::gpt::Entry::kind) {
            Some(kind) => kind.name(),
            None if offset < SECTOR => "the boot sector",
            None if offset < HEAD => "the partition table",
            None => "the partition table's second copy",
        }
    }

    /// Bytes of the partitions to be written.
    #[must_use]
    pub fn body_length(&self) -> u64 {
        self.body.iter().map(|segment| segment.length).sum()
    }
}

fn put(bytes: &mut [u8], at: u64, part: &[u8]) -> Result<()> {
    let at = usize::try_from(at)?;
    bytes
        .get_mut(at..at + part.len())
        .context("the partition table does not begin the disk")?
        .copy_from_slice(part);
    Ok(())
}

/// Bytes at the beginning, zeros behind them.
fn with_bytes(offset: u64, length: u64, bytes: Vec<u8>) -> Vec<Segment> {
    let used = bytes.len() as u64;
    let first = Segment { offset, length: used, content: Content::Bytes(bytes) };
    let rest = Segment { offset: offset + used, length: length - used, content: Content::Zero };
    [first, rest].into_iter().filter(|segment| segment.length > 0).collect()
}

/// The table of a complete image.
fn check(file: &File, length: u64) -> Result<Table> {
    ensure!(length >= HEAD, "it has only {length} bytes");
    let table = read_table(file, 1).context("its partition table")?;
    let missing: Vec<&str> =
        LAYOUT.into_iter().filter(|kind| table.find(*kind).is_none()).map(PartitionKind::name).collect();
    ensure!(missing.is_empty(), "these partitions are missing: {}", missing.join(", "));
    let sectors = table.alternate_lba.saturating_add(1);
    ensure!(
        sectors == length / SECTOR,
        "it has {length} bytes, but its partition table is for {}: is it cut off, or the copy of a disk?",
        sectors.saturating_mul(SECTOR)
    );
    read_table(file, table.alternate_lba).context("the second copy of its partition table")?;
    let state = table.find(PartitionKind::BootState).context("no boot state")?;
    let mut sector = [0; SECTOR as usize];
    file.read_exact_at(&mut sector, state.offset())?;
    BootState::decode(&sector).context("its boot state")?;
    for kind in [PartitionKind::SlotA, PartitionKind::SlotB] {
        let entry = table.find(kind).context("no slot")?;
        let mut start = vec![0; filesystem::PROBE_LENGTH];
        file.read_exact_at(&mut start, entry.offset())?;
        if !matches!(filesystem::identify(&start), filesystem::Content::Ext(_)) {
            bail!("{} is empty", kind.name());
        }
    }
    Ok(table)
}

fn read_table(file: &File, lba: u64) -> Result<Table> {
    let mut sector = [0; SECTOR as usize];
    file.read_exact_at(&mut sector, lba * SECTOR)?;
    let header = Header::decode(&sector, lba)?;
    let (offset, length) = header.entries_range();
    let mut entries = vec![0; length];
    file.read_exact_at(&mut entries, offset)?;
    Ok(header.with_entries(&entries)?)
}

#[cfg(test)]
#[path = "source/tests.rs"]
pub(super) mod tests;
