//! The copy of the last good site in the `bootstate` partition: what is left when `state` is lost.
//!
//! Owns the device's bytes only within [`AREA_OFFSETS`]; what is in them is `kontor-boot`'s decision.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kontor_boot::site_copy::{AREA_LENGTH, AREA_OFFSETS, SiteCopy, newest, next_write};
use kontor_status::paths::Paths;

/// The text of the newer whole copy, if there is any.
pub(super) fn read(paths: &Paths) -> Option<Vec<u8>> {
    let device = File::open(device(paths)?).ok()?;
    newest(copies(&device)).map(|copy| copy.text).filter(|text| !text.is_empty())
}

/// Writes `text` over the older copy, unless the newer one is the same; false without a boot disk.
pub(super) fn write(paths: &Paths, text: &str) -> io::Result<bool> {
    let Some(path) = device(paths) else { return Ok(false) };
    let device = OpenOptions::new().read(true).write(true).open(path)?;
    let copies = copies(&device);
    let (area, sequence) = next_write(&copies);
    if newest(copies).is_some_and(|copy| copy.text == text.as_bytes()) {
        return Ok(true);
    }
    let copy = SiteCopy { sequence, text: text.as_bytes().to_vec() };
    let bytes = copy.encode().map_err(io::Error::other)?;
    device.write_all_at(&bytes, AREA_OFFSETS[area])?;
    device.sync_all()?;
    Ok(true)
}

fn copies(device: &File) -> [Option<SiteCopy>; 2] {
    AREA_OFFSETS.map(|offset| {
        let mut area = vec![0; AREA_LENGTH];
        device.read_exact_at(&mut area, offset).ok()?;
        SiteCopy::decode(&area)
    })
}

/// Where storage has put a link to the partition; else the one partition of that name.
fn device(paths: &Paths) -> Option<PathBuf> {
    let link = paths.storage_status().with_file_name("bootstate");
    if link.exists() { Some(link) } else { named_partition(Path::new("/sys/class/block")) }
}

fn named_partition(blocks: &Path) -> Option<PathBuf> {
    let is_bootstate = |block: &Path| {
        let uevent = fs::read_to_string(block.join("uevent")).unwrap_or_default();
        uevent.lines().any(|line| line == "PARTNAME=bootstate")
    };
    let blocks = fs::read_dir(blocks).ok()?.flatten().map(|entry| entry.path());
    let mut found = blocks.filter(|block| is_bootstate(block));
    // With two such disks (one moved in from another box) only storage can tell which is ours.
    let (block, other) = (found.next()?, found.next());
    other.is_none().then(|| Path::new("/dev").join(block.file_name().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_is_found_by_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let block = |name: &str, partition: &str| {
            let directory = scratch.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("uevent"), format!("DEVTYPE=partition\nPARTNAME={partition}\n"))
                .unwrap();
        };
        block("vda2", "esp");
        assert_eq!(named_partition(scratch.path()), None);
        block("vda3", "bootstate");
        assert_eq!(named_partition(scratch.path()), Some("/dev/vda3".into()));
        block("sdb3", "bootstate");
        assert_eq!(named_partition(scratch.path()), None, "two boxes' disks: not ours to choose");
    }
}
