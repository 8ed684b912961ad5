//! Putting a box that runs from a stick on a machine's own disk: what the stick's seed may order, and how the disk is laid out.
//!
//! Every disk that is flashed or installed has partition GUIDs of its own, but for `bootstate`'s, by which GRUB knows a disk
//! of ours. GRUB tells the kernel which disk it has started from ([`identity`], `kontor.disk=`), so that two disks of the same
//! image are never taken for each other.

use std::fmt;

use serde::Deserialize;

use crate::filesystem::PROBE_LENGTH;
use crate::gpt::{SECTOR, Table};
use crate::growth::{self, Growth, GrowthError};
use crate::partition::{Guid, PartitionKind};

/// What `data` has at least on the disk: the size it has in an image.
pub const DATA_MIN: u64 = 512 << 20;

/// An order to install, from `install.toml` of a stick's seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Drawn when the stick was flashed: the disk that is made of it is known by this again.
    pub id: Guid,
    /// Whether a disk with something on it may be overwritten.
    pub over: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawOrder {
    to: To,
    id: String,
    #[serde(default)]
    over: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum To {
    /// The machine's only internal disk.
    Internal,
}

/// Why an order is none.
#[derive(Debug)]
pub struct OrderError(String);

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "install.toml in the seed: {}", self.0)
    }
}

impl std::error::Error for OrderError {}

impl Order {
    /// From the file.
    ///
    /// # Errors
    /// When it says anything else than [`Self::text`] does.
    pub fn parse(text: &[u8]) -> Result<Self, OrderError> {
        let text = str::from_utf8(text).map_err(|error| OrderError(error.to_string()))?;
        let RawOrder { to: To::Internal, id, over } =
            toml::from_str(text).map_err(|error| OrderError(error.to_string()))?;
        let id = Guid::parse(&id).ok_or_else(|| OrderError(format!("`{id}` is no GUID")))?;
        Ok(Self { id, over })
    }

    /// As the file.
    #[must_use]
    pub fn text(&self) -> String {
        format!("to = \"internal\"\nid = \"{}\"\nover = {}\n", self.id, self.over)
    }
}

/// By which a disk is told from others with the same partitions: the GUID of its slot a.
#[must_use]
pub fn identity(table: &Table) -> Option<Guid> {
    table.find(PartitionKind::SlotA).map(|entry| entry.unique)
}

/// The table with GUIDs made of `id`, which is to be a random one.
#[must_use]
pub fn with_id(table: &Table, id: Guid) -> Table {
    let mut table = Table { disk: id, ..table.clone() };
    for entry in &mut table.entries {
        if entry.kind() != Some(PartitionKind::BootState) {
            entry.unique = id;
            entry.unique.0[15] ^= entry.number as u8;
        }
    }
    table
}

/// Bytes that a disk needs for these partitions, `data` as small as it may be.
#[must_use]
pub fn needed(source: &Table) -> u64 {
    let smallest = with_smallest_data(source);
    let end = smallest.entries.iter().map(|entry| entry.last_lba + 1).max().unwrap_or(0);
    // The second copy of the table, on a whole MiB.
    (end * SECTOR).next_multiple_of(1 << 20) + (1 << 20)
}

/// Both copies of the table of a disk of `size` bytes with this `id`: as the source's, but `data` is what the disk has room for.
///
/// # Errors
/// When it is too small.
pub fn plan(source: &Table, size: u64, id: Guid) -> Result<Growth, GrowthError> {
    if size < needed(source) {
        return Err(GrowthError::DiskTooSmall);
    }
    growth::plan(&with_id(&with_smallest_data(source), id), size)
}

fn with_smallest_data(source: &Table) -> Table {
    let mut table = source.clone();
    for entry in table.entries.iter_mut().filter(|entry| entry.kind() == Some(PartitionKind::Data)) {
        entry.last_lba = entry.last_lba.min(entry.first_lba + DATA_MIN / SECTOR - 1);
    }
    table
}

/// What becomes of a partition of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// What is in the source's.
    Copy,
    /// A boot state of its own.
    BootState,
    /// The seed for its first boot.
    Seed,
    /// Its beginning reads as zeros: the box makes a file system in it.
    Fresh,
}

/// What is written at first, in the order of the disk: offset, length, content.
#[must_use]
pub fn parts(table: &Table) -> Vec<(PartitionKind, u64, u64, Fill)> {
    let of = |entry: &crate::gpt::Entry| {
        let kind = entry.kind()?;
        let (offset, length) = (entry.offset(), entry.length());
        Some(match kind {
            PartitionKind::BootState => (kind, offset, length, Fill::BootState),
            PartitionKind::Seed => (kind, offset, length, Fill::Seed),
            PartitionKind::State | PartitionKind::Data => {
                (kind, offset, length.min(PROBE_LENGTH as u64), Fill::Fresh)
            }
            _ => (kind, offset, length, Fill::Copy),
        })
    };
    let mut parts: Vec<_> = table.entries.iter().filter_map(of).collect();
    parts.sort_by_key(|(_, offset, ..)| *offset);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::LAYOUT;

    const MIB: u64 = 1 << 20;
    const ID: Guid = Guid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_de00);

    /// Partitions of 4 MiB from 1 MiB on, and `data`, which is what the stick has room for.
    fn stick(size: u64) -> Table {
        growth::plan(&growth::tests::table(size), size).unwrap().primary
    }

    #[test]
    fn a_larger_stick_fits_a_smaller_disk_if_that_has_room_for_the_rest() {
        let source = stick(8 << 30);
        // What is before data, data, the second copy of the table.
        assert_eq!(needed(&source), 33 * MIB + DATA_MIN + MIB);
        for (size, data_end) in [(546 * MIB, 545 * MIB), (2 << 30, 2047 * MIB), (64 << 30, (64 << 30) - MIB)]
        {
            let Growth { primary, backup } = plan(&source, size, ID).unwrap();
            let data = primary.find(PartitionKind::Data).unwrap();
            assert_eq!(data.offset() + data.length(), data_end);
            assert_eq!(backup.my_lba, size / SECTOR - 1);
            assert_eq!(primary.find(PartitionKind::System), with_id(&source, ID).find(PartitionKind::System));
        }
        assert_eq!(plan(&source, 546 * MIB - 1, ID), Err(GrowthError::DiskTooSmall));
    }

    #[test]
    fn an_installed_disk_is_never_taken_for_its_stick() {
        let source = stick(2 << 30);
        let table = with_id(&source, ID);
        let of = |table: &Table| table.entries.iter().map(|entry| entry.unique).collect::<Vec<_>>();
        let same: Vec<_> = of(&source).into_iter().filter(|guid| of(&table).contains(guid)).collect();
        let boot_state = source.find(PartitionKind::BootState).unwrap().unique;
        assert_eq!(same, [boot_state], "GRUB knows a disk of ours by it");
        assert_ne!(identity(&source), identity(&table));
        let mut guids = of(&table);
        guids.push(table.disk);
        guids.sort();
        guids.dedup();
        assert_eq!(guids.len(), LAYOUT.len() + 1, "none is there twice");
    }

    #[test]
    fn what_is_written_covers_all_but_the_inside_of_state_and_data() {
        let table = stick(2 << 30);
        let parts = parts(&table);
        let fills: Vec<Fill> = parts.iter().map(|(.., fill)| *fill).collect();
        let copies = [Fill::Copy; 2];
        let wanted =
            [&copies[..], &[Fill::BootState, Fill::Seed], &[Fill::Copy; 3], &[Fill::Fresh; 2]].concat();
        assert_eq!(fills, wanted);
        for ((kind, offset, length, fill), entry) in parts.into_iter().zip(&table.entries) {
            assert_eq!((Some(kind), offset), (entry.kind(), entry.offset()));
            assert_eq!(length, if fill == Fill::Fresh { MIB } else { entry.length() });
        }
    }

    #[test]
    fn an_order_comes_back_and_nothing_else_is_one() {
        for over in [false, true] {
            let order = Order { id: ID, over };
            assert_eq!(Order::parse(order.text().as_bytes()).unwrap(), order);
        }
        let text = Order { id: ID, over: false }.text();
        for (wrong, said) in [
            (text.replace("internal", "sda"), "unknown variant `sda`, expected `internal`"),
            (text.replace("1234-", "12-34"), "is no GUID"),
            (text.replace("over", "format"), "unknown field `format`"),
            (String::new(), "missing field `to`"),
        ] {
            let error = Order::parse(wrong.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("install.toml in the seed: ") && error.contains(said), "{error}");
        }
    }
}
