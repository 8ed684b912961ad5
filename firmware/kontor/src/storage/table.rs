//! Repairing the partition table and growing it to the disk, safe at every power cut.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::Context as _;
use kontor_boot::PartitionKind;
use kontor_boot::gpt::{SECTOR, Table};
use kontor_boot::growth::{self, Growth};
use kontor_sys::block;

use super::disk::{self, Disk};

/// Brings both copies of the table to what the disk's size allows; returns the table in force.
pub(super) fn repair_and_grow(disk: &Disk) -> anyhow::Result<Table> {
    let file = disk::open_writable(&disk.device)?;
    let size = block::size(&file)?;
    let growth = growth::plan(&disk.table, size)?;
    if !write(&file, &growth)? {
        return Ok(growth.primary);
    }
    eprintln!("partition table repaired or grown to {} MiB", size >> 20);
    tell_kernel(&file, &growth.primary).context("the kernel keeps the old partitions until the next boot")?;
    Ok(growth.primary)
}

/// Writes the copies that differ, the backup first; true when anything was written.
fn write(file: &File, growth: &Growth) -> io::Result<bool> {
    let mut written = false;
    for copy in [&growth.backup, &growth.primary] {
        if disk::read_copy(file, copy.my_lba)?.as_ref() == Some(copy) {
            continue;
        }
        let header = copy.encode_header();
        let entries = copy.encode_entries();
        // Header and entries touch; one write makes the torn window as small as it can be.
        let (at, bytes) = if copy.my_lba < copy.entries_lba {
            (copy.my_lba, [header.as_slice(), &entries].concat())
        } else {
            (copy.entries_lba, [entries.as_slice(), &header].concat())
        };
        file.write_all_at(&bytes, at * SECTOR)?;
        file.sync_all()?;
        written = true;
    }
    Ok(written)
}

fn tell_kernel(file: &File, table: &Table) -> io::Result<()> {
    let Some(data) = table.find(PartitionKind::Data) else { return Ok(()) };
    block::resize_partition(file, data.number, data.offset(), data.length())
        .or_else(|_| block::reread_partitions(file))
}

#[cfg(test)]
pub(crate) mod tests {
    use kontor_boot::gpt::Entry;
    use kontor_boot::partition::{Guid, LAYOUT};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// An image file with a table for its size.
    pub(crate) fn image(size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        let entry = |(number, kind): (u32, PartitionKind)| Entry {
            number,
            type_guid: kind.type_guid(),
            unique: Guid::from_u128(u128::from(number)),
            first_lba: u64::from(number) * 2048,
            last_lba: u64::from(number + 1) * 2048 - 1,
            attributes: 0,
            name: [0; 36],
        };
        let table = Table {
            disk: Guid::from_u128(1),
            my_lba: 1,
            alternate_lba: size / SECTOR - 1,
            first_usable_lba: 34,
            last_usable_lba: size / SECTOR - 34,
            entries_lba: 2,
            entry_count: 128,
            entries: (1..).zip(LAYOUT).map(entry).collect(),
        };
        write(&file, &growth::plan(&table, size).unwrap()).unwrap();
        file
    }

    fn grow(file: &File) -> bool {
        let table = disk::read_table(file).unwrap().unwrap();
        write(file, &growth::plan(&table, block::size(file).unwrap()).unwrap()).unwrap()
    }

    fn data_end(file: &File) -> u64 {
        let table = disk::read_table(file).unwrap().unwrap();
        table.find(PartitionKind::Data).unwrap().last_lba
    }

    #[test]
    fn a_larger_disk_is_grown_once() {
        let file = image(20 * MIB);
        assert!(!grow(&file), "it fits");
        file.set_len(64 * MIB).unwrap();
        assert!(grow(&file));
        assert_eq!(data_end(&file), 63 * MIB / SECTOR - 1);
        assert!(!grow(&file), "nothing is left to do");
    }

    #[test]
    fn a_damaged_copy_is_repaired_from_the_other() {
        for at in [SECTOR, 64 * MIB - SECTOR] {
            let file = image(64 * MIB);
            file.write_all_at(&[0xFF; 512], at).unwrap();
            assert!(grow(&file));
            assert!(disk::read_copy(&file, 1).unwrap().is_some());
            assert!(disk::read_copy(&file, 64 * MIB / SECTOR - 1).unwrap().is_some());
        }
    }

    #[test]
    fn a_power_cut_at_any_sector_of_the_growth_ends_at_the_same_place() {
        let template = image(20 * MIB);
        template.set_len(64 * MIB).unwrap();
        let table = disk::read_table(&template).unwrap().unwrap();
        let plan = growth::plan(&table, 64 * MIB).unwrap();
        let mut writes = Vec::new();
        for copy in [&plan.backup, &plan.primary] {
            let sectors = copy.encode_entries();
            let entries = (copy.entries_lba..).zip(sectors.chunks(512).map(<[u8]>::to_vec));
            writes.extend(entries);
            writes.push((copy.my_lba, copy.encode_header().to_vec()));
        }
        for cut in 0..=writes.len() {
            let file = image(20 * MIB);
            file.set_len(64 * MIB).unwrap();
            for (lba, sector) in &writes[..cut] {
                file.write_all_at(sector, lba * SECTOR).unwrap();
            }
            grow(&file);
            assert_eq!(data_end(&file), 63 * MIB / SECTOR - 1, "cut after {cut} sectors");
            assert!(!grow(&file), "cut after {cut} sectors");
        }
    }
}
