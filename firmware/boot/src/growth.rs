//! Growing the last partition to the disk: an image is written to a disk of any size.
//!
//! The plan is a pure value. It is carried out backup first: a power cut between two writes leaves at
//! least one valid copy of the old or the new table, and planning again from that one ends at the same place.

use std::fmt;

use crate::gpt::{SECTOR, Table};
use crate::partition::PartitionKind;

/// Partition ends are kept on MiB boundaries, as the image's are.
const ALIGN: u64 = (1 << 20) / SECTOR;

/// Both tables of the grown disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The copy at the end of the disk; written first.
    pub backup: Table,
    /// The copy at its beginning.
    pub primary: Table,
}

/// Why a disk cannot be grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrowthError {
    /// The disk is smaller than its table says: a copy onto a too small disk.
    DiskTooSmall,
}

impl fmt::Display for GrowthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskTooSmall => f.write_str("the disk is smaller than its partitions"),
        }
    }
}

impl std::error::Error for GrowthError {}

/// The tables a disk of `disk_size` bytes should have, given one valid copy.
///
/// # Errors
/// When the partitions do not fit.
pub fn plan(table: &Table, disk_size: u64) -> Result<Growth, GrowthError> {
    let last_lba = (disk_size / SECTOR).checked_sub(1).ok_or(GrowthError::DiskTooSmall)?;
    let entry_blocks = (u64::from(table.entry_count) * 128).div_ceil(SECTOR);
    let backup_entries = last_lba.checked_sub(entry_blocks).ok_or(GrowthError::DiskTooSmall)?;
    let last_usable = backup_entries.checked_sub(1).ok_or(GrowthError::DiskTooSmall)?;
    let beyond = table.entries.iter().any(|entry| entry.last_lba > last_usable);
    if beyond || table.first_usable_lba > last_usable {
        return Err(GrowthError::DiskTooSmall);
    }
    let mut entries = table.entries.clone();
    let is_last_data = |at: &usize| entries[*at].kind() == Some(PartitionKind::Data);
    if let Some(at) = (0..entries.len()).max_by_key(|at| entries[*at].last_lba).filter(is_last_data) {
        let end = (last_usable + 1) / ALIGN * ALIGN;
        entries[at].last_lba = entries[at].last_lba.max(end.saturating_sub(1));
    }
    let primary = Table {
        my_lba: 1,
        alternate_lba: last_lba,
        entries_lba: 2,
        last_usable_lba: last_usable,
        entries,
        ..table.clone()
    };
    let backup = Table { my_lba: last_lba, alternate_lba: 1, entries_lba: backup_entries, ..primary.clone() };
    Ok(Growth { backup, primary })
}

#[cfg(test)]
pub(crate) mod tests;
