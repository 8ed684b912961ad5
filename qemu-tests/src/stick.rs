//! A stick as people make one: FAT32, with a folder copied to it.

use std::fs;
use std::io::{Cursor, Read, Seek, Write};

use anyhow::{Context, Result};
use camino::Utf8Path;
use fatfs::{Dir, FatType, FileSystem, FormatVolumeOptions, FsOptions};

/// More than what is in it, and than FAT32 needs at least.
const SPARE: u64 = 64 << 20;

/// The bytes of a stick, not partitioned, with the content of `source` in a folder of this name.
///
/// # Errors
/// When the content cannot be read.
pub fn fat32(folder: &str, source: &Utf8Path) -> Result<Vec<u8>> {
    let size = usize::try_from((size_of(source)? + SPARE).next_multiple_of(1 << 20))?;
    let mut volume = Cursor::new(vec![0; size]);
    fatfs::format_volume(
        &mut volume,
        FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512),
    )?;
    {
        let file_system = FileSystem::new(&mut volume, FsOptions::new())?;
        copy(source, &file_system.root_dir().create_dir(folder)?)?;
    }
    Ok(volume.into_inner())
}

fn size_of(folder: &Utf8Path) -> Result<u64> {
    let mut size = 0;
    for entry in folder.read_dir_utf8().with_context(|| folder.to_string())? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() { size_of(entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}

fn copy<T: Read + Write + Seek>(from: &Utf8Path, to: &Dir<'_, T>) -> Result<()> {
    for entry in from.read_dir_utf8()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy(entry.path(), &to.create_dir(entry.file_name())?)?;
            continue;
        }
        let bytes = fs::read(entry.path()).with_context(|| entry.path().to_string())?;
        to.create_file(entry.file_name())?.write_all(&bytes).with_context(|| entry.path().to_string())?;
    }
    Ok(())
}
