//! The EFI system partition: FAT32 with one file, `EFI/BOOT/BOOTX64.EFI`.
//!
//! FAT32 although it is small: UEFI promises FAT12 and FAT16 for removable media only (UEFI 2.10, 13.3.1).

use std::io::{Cursor, Write};

use anyhow::{Context, Result};
use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

/// The one time every directory entry has; FAT's epoch, so that nothing depends on the day of the build.
#[derive(Debug)]
struct Epoch;

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// The partition's bytes with this boot loader.
///
/// # Errors
/// When it does not fit.
pub fn esp(size: u64, boot_loader: &[u8]) -> Result<Vec<u8>> {
    let mut volume = Cursor::new(vec![0; usize::try_from(size)?]);
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(512)
        .volume_id(0x4b4f_4e54)
        .volume_label(*b"KONTOR     ");
    fatfs::format_volume(&mut volume, options).context("cannot format the EFI system partition")?;
    {
        let file_system = FileSystem::new(&mut volume, FsOptions::new().time_provider(&Epoch))?;
        let directory = file_system.root_dir().create_dir("EFI")?.create_dir("BOOT")?;
        let mut file = directory.create_file("BOOTX64.EFI")?;
        file.write_all(boot_loader).context("the boot loader does not fit the EFI system partition")?;
        file.flush()?;
    }
    Ok(volume.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const SIZE: u64 = 40 << 20;

    #[test]
    fn the_boot_loader_is_where_firmware_looks() {
        let bytes = esp(SIZE, b"loader").unwrap();
        let file_system = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(file_system.fat_type(), FatType::Fat32);
        let mut content = Vec::new();
        file_system.root_dir().open_file("EFI/BOOT/BOOTX64.EFI").unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content, b"loader");
    }

    #[test]
    fn the_bytes_depend_on_the_loader_alone() {
        assert_eq!(esp(SIZE, b"x").unwrap(), esp(SIZE, b"x").unwrap());
    }

    #[test]
    fn a_loader_too_large_is_an_error() {
        assert!(esp(SIZE, &vec![1; 41 << 20]).is_err());
    }
}
