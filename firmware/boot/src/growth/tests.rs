//! Growing: both copies agree, a fitting disk stays as it is, and damage is found and refused.

use proptest::prelude::*;

use super::*;
use crate::gpt::{Entry, GptError, Header};
use crate::partition::{Guid, LAYOUT};

const MIB: u64 = 1 << 20;

/// A table as the builder makes it: eight partitions of 4 MiB from 1 MiB on.
pub(crate) fn table(disk_size: u64) -> Table {
    let entry = |(number, kind): (u32, PartitionKind)| Entry {
        number,
        type_guid: kind.type_guid(),
        unique: Guid::from_u128(u128::from(number)),
        first_lba: ALIGN + u64::from(number - 1) * 4 * ALIGN,
        last_lba: ALIGN + u64::from(number) * 4 * ALIGN - 1,
        attributes: 0,
        name: [u16::from(b'x'); 36],
    };
    let last_lba = disk_size / SECTOR - 1;
    Table {
        disk: Guid::from_u128(99),
        my_lba: 1,
        alternate_lba: last_lba,
        first_usable_lba: 34,
        last_usable_lba: last_lba - 33,
        entries_lba: 2,
        entry_count: 128,
        entries: (1..).zip(LAYOUT).map(entry).collect(),
    }
}

fn read(table: &Table) -> Result<Table, GptError> {
    Header::decode(&table.encode_header(), table.my_lba)?.with_entries(&table.encode_entries())
}

#[test]
fn both_grown_copies_read_back_and_agree() {
    let growth = plan(&table(40 * MIB), 1024 * MIB).unwrap();
    assert_eq!(read(&growth.primary), Ok(growth.primary.clone()));
    assert_eq!(read(&growth.backup), Ok(growth.backup.clone()));
    assert_eq!(growth.primary.entries, growth.backup.entries);
    assert_eq!(growth.primary.alternate_lba, growth.backup.my_lba);
    let data = growth.primary.find(PartitionKind::Data).unwrap();
    assert_eq!(data.last_lba, (1023 * MIB) / SECTOR - 1, "aligned, below the backup table");
    assert_eq!(growth.primary.entries[..7], table(40 * MIB).entries[..7]);
}

#[test]
fn a_fitting_disk_is_left_as_it_is_and_planning_again_changes_nothing() {
    let first = plan(&table(40 * MIB), 100 * MIB).unwrap();
    assert_eq!(plan(&first.primary, 100 * MIB), Ok(first.clone()));
    assert_eq!(plan(&first.backup, 100 * MIB), Ok(first));
}

#[test]
fn a_disk_without_a_usable_block_is_refused() {
    let empty = Table { entries: Vec::new(), ..table(40 * MIB) };
    assert_eq!(plan(&empty, 60 * SECTOR), Err(GrowthError::DiskTooSmall));
    let growth = plan(&empty, 80 * SECTOR).unwrap();
    assert_eq!(read(&growth.backup), Ok(growth.backup.clone()));
}

#[test]
fn a_disk_that_is_too_small_is_refused() {
    for size in [0, 511, 512, 16 * 1024, 33 * MIB] {
        assert_eq!(plan(&table(40 * MIB), size), Err(GrowthError::DiskTooSmall), "{size}");
    }
}

#[test]
fn only_data_at_the_end_grows() {
    let mut foreign = table(40 * MIB);
    foreign.entries[8].type_guid = Guid::from_u128(1);
    let growth = plan(&foreign, 100 * MIB).unwrap();
    assert_eq!(growth.primary.entries, foreign.entries);
}

#[test]
fn damage_is_found_where_it_is() {
    let good = table(40 * MIB);
    assert_eq!(Header::decode(&[0; 512], 1), Err(GptError::Signature));
    assert_eq!(Header::decode(b"EFI PART", 1), Err(GptError::Truncated));
    assert_eq!(Header::decode(&good.encode_header(), 2), Err(GptError::Header));
    let header = Header::decode(&good.encode_header(), 1).unwrap();
    let mut entries = good.encode_entries();
    assert_eq!(header.with_entries(&entries[..100]), Err(GptError::Truncated));
    entries[300] ^= 1;
    assert_eq!(header.with_entries(&entries), Err(GptError::Entries));
}

#[test]
fn overlapping_or_outside_partitions_are_refused() {
    let mut overlapping = table(40 * MIB);
    overlapping.entries[1].first_lba = overlapping.entries[0].last_lba;
    assert_eq!(read(&overlapping), Err(GptError::Entries));
    let mut outside = table(40 * MIB);
    outside.entries[7].last_lba = u64::MAX;
    assert_eq!(read(&outside), Err(GptError::Entries));
}

#[test]
fn two_partitions_of_one_kind_are_none() {
    let mut double = table(40 * MIB);
    double.entries[6].type_guid = PartitionKind::Data.type_guid();
    assert_eq!(double.find(PartitionKind::Data), None);
}

proptest! {
    #[test]
    fn garbage_never_panics(mut block in proptest::collection::vec(any::<u8>(), 0..600), lba: u64) {
        let _ = Header::decode(&block, lba);
        if block.len() > 92 {
            // With a right checksum, the fields themselves must be survived.
            block[..8].copy_from_slice(b"EFI PART");
            block[12..16].copy_from_slice(&92_u32.to_le_bytes());
            block[16..20].fill(0);
            let crc = crc32fast::hash(&block[..92]);
            block[16..20].copy_from_slice(&crc.to_le_bytes());
            if let Ok(header) = Header::decode(&block, lba) {
                let _ = header.with_entries(&block);
            }
        }
    }

    #[test]
    fn every_size_is_grown_to_or_refused(size in 0_u64..(1 << 45)) {
        if let Ok(growth) = plan(&table(40 * MIB), size) {
            prop_assert!((growth.backup.my_lba + 1) * SECTOR <= size);
            prop_assert!(read(&growth.backup).is_ok());
        }
    }
}
