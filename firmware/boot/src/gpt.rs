//! The GUID partition table: reading either copy, and writing both for a grown disk (UEFI 2.10, chapter 5).
//!
//! A [`Table`] is one validated copy. Every checksum is checked before a field is believed, sizes are bounded,
//! and sectors are 512 bytes (the images are made for that; a 4Kn disk is refused by the signature check).

use std::fmt;

use crate::partition::{Guid, PartitionKind};

/// Bytes per logical block.
pub const SECTOR: u64 = 512;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_SIZE: usize = 92;
const ENTRY_SIZE: usize = 128;
// UEFI prescribes at least 16 KiB for the entry array; every tool writes exactly 128 entries.
const MAX_ENTRIES: u32 = 128;

/// Makes this boot sector one of a disk that ends with block `last_lba` (UEFI 2.10, 5.2.3): one entry over all of it keeps
/// programs that know no GPT away. The boot code stays.
///
/// # Panics
/// When `sector` is shorter than 512 bytes.
pub fn protective_mbr(sector: &mut [u8], last_lba: u64) {
    let mut entry = [0; 16];
    entry[1..8].copy_from_slice(&[0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&1_u32.to_le_bytes());
    entry[12..16].copy_from_slice(&u32::try_from(last_lba).unwrap_or(u32::MAX).to_le_bytes());
    sector[446..462].copy_from_slice(&entry);
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// One copy of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// GUID of the disk.
    pub disk: Guid,
    /// Block this copy's header is in.
    pub my_lba: u64,
    /// Block of the other copy's header.
    pub alternate_lba: u64,
    /// First block partitions may use.
    pub first_usable_lba: u64,
    /// Last block partitions may use.
    pub last_usable_lba: u64,
    /// Where this copy's entries begin.
    pub entries_lba: u64,
    /// Slots of the entry array, used or not.
    pub entry_count: u32,
    /// The used entries, with their number (from 1, as in device names).
    pub entries: Vec<Entry>,
}

/// One used partition entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number, from 1.
    pub number: u32,
    /// Partition type.
    pub type_guid: Guid,
    /// The partition's own GUID.
    pub unique: Guid,
    /// First block.
    pub first_lba: u64,
    /// Last block, inclusive.
    pub last_lba: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// UTF-16 name, as on the disk.
    pub name: [u16; 36],
}

impl Entry {
    /// What it is for, if it is one of ours.
    #[must_use]
    pub fn kind(&self) -> Option<PartitionKind> {
        PartitionKind::from_type(self.type_guid)
    }

    /// Offset on the disk in bytes.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.first_lba * SECTOR
    }

    /// Length in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        (self.last_lba + 1 - self.first_lba) * SECTOR
    }
}

/// Why bytes are not a partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GptError {
    /// Fewer bytes than the header or its entries need.
    Truncated,
    /// No `EFI PART` where a header should be.
    Signature,
    /// The header's checksum or one of its fields is wrong.
    Header,
    /// The entries' checksum or an entry's range is wrong.
    Entries,
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "partition table is truncated",
            Self::Signature => "no partition table",
            Self::Header => "partition table header is damaged",
            Self::Entries => "partition entries are damaged",
        })
    }
}

impl std::error::Error for GptError {}

/// A header whose checksum is right; it says where the entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    disk: Guid,
    my_lba: u64,
    alternate_lba: u64,
    first_usable_lba: u64,
    last_usable_lba: u64,
    entries_lba: u64,
    entry_count: u32,
    entries_crc: u32,
}

impl Header {
    /// From the block at `lba`.
    ///
    /// # Errors
    /// When it is not a valid header for that block.
    pub fn decode(block: &[u8], lba: u64) -> Result<Self, GptError> {
        let block: &[u8; HEADER_SIZE] = block.first_chunk().ok_or(GptError::Truncated)?;
        if block.first_chunk() != Some(SIGNATURE) {
            return Err(GptError::Signature);
        }
        let mut unsigned = *block;
        unsigned[16..20].fill(0);
        let header = Self {
            my_lba: u64_at(block, 24),
            alternate_lba: u64_at(block, 32),
            first_usable_lba: u64_at(block, 40),
            last_usable_lba: u64_at(block, 48),
            disk: guid_at(block, 56),
            entries_lba: u64_at(block, 72),
            entry_count: u32_at(block, 80),
            entries_crc: u32_at(block, 88),
        };
        let valid = u32_at(block, 12) == 92
            && u32_at(block, 16) == crc32fast::hash(&unsigned)
            && u32_at(block, 84) == 128
            && header.my_lba == lba
            && (1..=MAX_ENTRIES).contains(&header.entry_count)
            && header.first_usable_lba <= header.last_usable_lba
            && header.last_usable_lba < u64::MAX / SECTOR
            && header.entries_lba < u64::MAX / SECTOR;
        if valid { Ok(header) } else { Err(GptError::Header) }
    }

    /// Byte offset and length of the entry array on the disk.
    #[must_use]
    pub const fn entries_range(&self) -> (u64, usize) {
        (self.entries_lba * SECTOR, self.entry_count as usize * ENTRY_SIZE)
    }

    /// Block of the other copy's header.
    #[must_use]
    pub const fn alternate_lba(&self) -> u64 {
        self.alternate_lba
    }

    /// The whole table, from the bytes [`Self::entries_range`] names.
    ///
    /// # Errors
    /// When their checksum or a partition's range is wrong.
    pub fn with_entries(self, bytes: &[u8]) -> Result<Table, GptError> {
        let bytes = bytes.get(..self.entries_range().1).ok_or(GptError::Truncated)?;
        if crc32fast::hash(bytes) != self.entries_crc {
            return Err(GptError::Entries);
        }
        let used = (1..).zip(bytes.chunks_exact(ENTRY_SIZE)).filter(|(_, raw)| raw[..16] != [0; 16]);
        let entries: Vec<Entry> = used.map(|(number, raw)| decode_entry(number, raw)).collect();
        let usable = self.first_usable_lba..=self.last_usable_lba;
        let in_range = |e: &Entry| {
            usable.contains(&e.first_lba) && usable.contains(&e.last_lba) && e.first_lba <= e.last_lba
        };
        if !entries.iter().all(in_range) || overlap(&entries) {
            return Err(GptError::Entries);
        }
        Ok(Table {
            disk: self.disk,
            my_lba: self.my_lba,
            alternate_lba: self.alternate_lba,
            first_usable_lba: self.first_usable_lba,
            last_usable_lba: self.last_usable_lba,
            entries_lba: self.entries_lba,
            entry_count: self.entry_count,
            entries,
        })
    }
}

impl Table {
    /// The only entry of this kind; nothing when there is none or more than one.
    #[must_use]
    pub fn find(&self, kind: PartitionKind) -> Option<&Entry> {
        let mut matching = self.entries.iter().filter(|entry| entry.kind() == Some(kind));
        matching.next().filter(|_| matching.next().is_none())
    }

    /// The entry array, padded to whole blocks.
    #[must_use]
    pub fn encode_entries(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.entry_count as usize * ENTRY_SIZE];
        for entry in &self.entries {
            let at = (entry.number as usize - 1) * ENTRY_SIZE;
            encode_entry(entry, &mut bytes[at..at + ENTRY_SIZE]);
        }
        bytes
    }

    /// The header block of this copy.
    #[must_use]
    pub fn encode_header(&self) -> [u8; SECTOR as usize] {
        let mut block = [0; SECTOR as usize];
        block[..8].copy_from_slice(SIGNATURE);
        block[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        block[12..16].copy_from_slice(&92_u32.to_le_bytes());
        for (at, value) in [
            (24, self.my_lba),
            (32, self.alternate_lba),
            (40, self.first_usable_lba),
            (48, self.last_usable_lba),
            (72, self.entries_lba),
        ] {
            block[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        block[56..72].copy_from_slice(&self.disk.to_disk());
        block[80..84].copy_from_slice(&self.entry_count.to_le_bytes());
        block[84..88].copy_from_slice(&128_u32.to_le_bytes());
        block[88..92].copy_from_slice(&crc32fast::hash(&self.encode_entries()).to_le_bytes());
        let crc = crc32fast::hash(&block[..HEADER_SIZE]);
        block[16..20].copy_from_slice(&crc.to_le_bytes());
        block
    }
}

fn decode_entry(number: u32, raw: &[u8]) -> Entry {
    let mut name = [0; 36];
    for (unit, bytes) in name.iter_mut().zip(raw[56..].chunks_exact(2)) {
        *unit = u16::from_le_bytes([bytes[0], bytes[1]]);
    }
    Entry {
        number,
        type_guid: guid_at(raw, 0),
        unique: guid_at(raw, 16),
        first_lba: u64_at(raw, 32),
        last_lba: u64_at(raw, 40),
        attributes: u64_at(raw, 48),
        name,
    }
}

fn encode_entry(entry: &Entry, raw: &mut [u8]) {
    raw[..16].copy_from_slice(&entry.type_guid.to_disk());
    raw[16..32].copy_from_slice(&entry.unique.to_disk());
    raw[32..40].copy_from_slice(&entry.first_lba.to_le_bytes());
    raw[40..48].copy_from_slice(&entry.last_lba.to_le_bytes());
    raw[48..56].copy_from_slice(&entry.attributes.to_le_bytes());
    for (unit, bytes) in entry.name.iter().zip(raw[56..].chunks_exact_mut(2)) {
        bytes.copy_from_slice(&unit.to_le_bytes());
    }
}

fn overlap(entries: &[Entry]) -> bool {
    let mut ranges: Vec<(u64, u64)> = entries.iter().map(|e| (e.first_lba, e.last_lba)).collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| pair[1].0 <= pair[0].1)
}

// The callers pass fixed offsets into buffers whose length they have checked.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    Guid::from_disk(array_at(bytes, at))
}
