//! Good disks, bad disks, and disks that are pulled out.

use std::cell::Cell;
use std::fs::File;
use std::rc::Rc;

use super::super::source::tests::{ID, image};
use super::*;

/// A disk in memory that misbehaves as told.
struct Disk {
    bytes: Vec<u8>,
    /// A byte that never takes what is written to it.
    stuck_at: Option<u64>,
    /// After so many writes, every other one fails.
    writes_left: Rc<Cell<usize>>,
}

impl Disk {
    fn new(size: u64) -> Self {
        Self {
            bytes: vec![0xdd; usize::try_from(size).unwrap()],
            stuck_at: None,
            writes_left: Rc::new(Cell::new(usize::MAX)),
        }
    }

    fn range(&mut self, offset: u64, length: usize) -> io::Result<&mut [u8]> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.bytes.get_mut(offset..offset + length).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Medium for Disk {
    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let left = self.writes_left.get().checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        self.writes_left.set(left);
        self.range(offset, bytes.len())?.copy_from_slice(bytes);
        if let Some(at) = self.stuck_at.filter(|at| (offset..offset + bytes.len() as u64).contains(at)) {
            self.range(at, 1)?[0] ^= 0x10;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.range(offset, usize::try_from(length).unwrap())?.fill(0);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let length = buffer.len();
        buffer.copy_from_slice(self.range(offset, length)?);
        Ok(())
    }
}

struct Case {
    _directory: tempfile::TempDir,
    source: Source,
    layout: Layout,
    disk: Disk,
}

fn case() -> Case {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::open(&image(directory.path())).unwrap();
    let size = source.length() + (20 << 20);
    let layout = source.layout(size, None, ID).unwrap();
    Case { _directory: directory, source, layout, disk: Disk::new(size) }
}

#[test]
fn a_good_disk_holds_the_image_and_zeros_where_the_image_has_them() {
    let Case { _directory: _kept, source, layout, mut disk } = case();
    flash(&source, &layout, &mut disk).unwrap();
    let image = std::fs::read(source.path()).unwrap();
    for segment in &layout.body {
        let range = usize::try_from(segment.offset).unwrap()
            ..usize::try_from(segment.offset + segment.length).unwrap();
        assert!(disk.bytes[range.clone()] == image[range], "{}", layout.place(segment.offset));
    }
    assert_eq!(disk.bytes[..layout.head.len()], layout.head);
    assert_eq!(disk.bytes[disk.bytes.len() - layout.tail.1.len()..], layout.tail.1);
}

#[test]
fn a_flipped_byte_is_found_and_named() {
    for place in ["bios", "esp", "bootstate", "seed", "slot-a", "slot-b"] {
        let Case { source, layout, mut disk, .. } = case();
        let written =
            |segment: &&Segment| segment.content != Content::Zero && layout.place(segment.offset) == place;
        let offset = layout.body.iter().find(written).unwrap().offset + 17;
        disk.stuck_at = Some(offset);
        let error = flash(&source, &layout, &mut disk).unwrap_err();
        let mismatch = error.downcast_ref::<Mismatch>().unwrap_or_else(|| panic!("{place}: {error:#}"));
        assert_eq!((mismatch.offset, mismatch.place), (offset, place));
        assert_eq!(mismatch.bytes.0 ^ mismatch.bytes.1, 0x10);
        assert!(error.to_string().contains(&format!("at offset {offset} (in {place})")), "{error}");
        assert!(disk.bytes[..HEAD as usize].iter().all(|byte| *byte == 0), "{place}: it looks finished");
    }
}

#[test]
fn a_flipped_byte_of_the_partition_table_is_found_too() {
    let Case { source, layout, mut disk, .. } = case();
    disk.stuck_at = Some(600);
    let error = flash(&source, &layout, &mut disk).unwrap_err().to_string();
    assert!(error.contains("at offset 600 (in the partition table)"), "{error}");
}

#[test]
fn an_interrupted_flash_never_looks_finished() {
    let Case { source, layout, mut disk, .. } = case();
    let writes = Rc::clone(&disk.writes_left);
    flash(&source, &layout, &mut disk).unwrap();
    let needed = usize::MAX - writes.get();
    // The last write is the head itself.
    for cut in 0..needed {
        let mut disk = Disk::new(disk.bytes.len() as u64);
        disk.writes_left = Rc::new(Cell::new(cut));
        assert!(flash(&source, &layout, &mut disk).is_err());
        assert!(disk.bytes[..HEAD as usize].iter().all(|byte| *byte == 0), "after {cut} of {needed} writes");
        let end = disk.bytes.len() - layout.tail.1.len();
        let copy_is_there = disk.bytes[end..].iter().any(|byte| *byte != 0);
        assert!(!copy_is_there || cut == needed - 1, "a table after {cut} of {needed} writes");
    }
}

#[test]
fn a_file_can_take_the_disk_s_place() {
    let Case { source, layout, disk, .. } = case();
    let mut file: File = tempfile::tempfile().unwrap();
    file.set_len(disk.bytes.len() as u64).unwrap();
    flash(&source, &layout, &mut file).unwrap();
}
