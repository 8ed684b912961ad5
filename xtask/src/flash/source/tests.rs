//! Images that are right, cut off, damaged; and what of them goes to a disk.

use std::fs::OpenOptions;

use kontor_boot::BootState;

use super::*;
use crate::image::declaration::PartitionSizes;
use crate::image::disk::{self, BiosBoot};
use crate::image::seed;
use kontor_boot::frame::bootstate;

const MIB: u64 = 1 << 20;
pub(crate) const ID: Guid = Guid::from_u128(7 << 64);

/// A small image as the builder makes it; slots begin like ext4.
pub(crate) fn image(directory: &std::path::Path) -> Utf8PathBuf {
    let path = Utf8PathBuf::from_path_buf(directory.join("test.img")).unwrap();
    let table = disk::layout(&PartitionSizes { bios: 1, esp: 1, slot: 2, system: 2, state: 2, data: 4 });
    let bios = BiosBoot { boot: vec![0xb0; 512], core: vec![0xc0; 2048] };
    let mut slot = vec![0x51; 3000];
    slot[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    let contents = [
        (PartitionKind::Esp, disk::Content::Bytes(vec![0xe5; 5000])),
        (PartitionKind::BootState, disk::Content::Bytes(bootstate(&BootState::fresh()))),
        (PartitionKind::Seed, disk::Content::Bytes(vec![0x5e; 700])),
        (PartitionKind::SlotA, disk::Content::Bytes(slot.clone())),
        (PartitionKind::SlotB, disk::Content::Bytes(slot)),
    ];
    disk::write(&path, &table, &bios, &contents).unwrap();
    path
}

#[track_caller]
fn check_refused(damage: impl FnOnce(&File, &Table), expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path());
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    damage(&file, &Source::open(&path).unwrap().table);
    let error = format!("{:#}", Source::open(&path).unwrap_err());
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("test.img"), "{error}");
}

#[test]
fn what_is_no_complete_image_is_refused() {
    check_refused(|file, _| file.set_len(0).unwrap(), "it has only 0 bytes");
    check_refused(|file, _| file.set_len(9 * MIB).unwrap(), "is it cut off");
    check_refused(
        |file, _| file.write_all_at(&[0; 512], 512).unwrap(),
        "its partition table: no partition table",
    );
    check_refused(|file, _| file.write_all_at(&[9; 8], 1024 + 40).unwrap(), "partition entries are damaged");
    let last = |table: &Table| table.alternate_lba * SECTOR;
    check_refused(|file, table| file.write_all_at(&[0; 512], last(table)).unwrap(), "the second copy");
    check_refused(
        |file, table| {
            let endless = Table { alternate_lba: u64::MAX, ..table.clone() };
            file.write_all_at(&endless.encode_header(), 512).unwrap();
        },
        "its partition table is for 18446744073709551615",
    );
    let at = |table: &Table, kind| table.find(kind).unwrap().offset();
    let erase =
        |kind| move |file: &File, table: &Table| file.write_all_at(&[0; 4096], at(table, kind)).unwrap();
    check_refused(erase(PartitionKind::BootState), "its boot state");
    check_refused(erase(PartitionKind::SlotB), "slot-b is empty");
}

#[test]
fn a_file_that_is_not_there_or_no_file_is_named() {
    let error = |path: &str| format!("{:#}", Source::open(Utf8Path::new(path)).unwrap_err());
    assert!(error("/nonexistent.img").contains("cannot open /nonexistent.img"));
    assert!(error("/").contains("/ is no ordinary file"));
}

#[test]
fn the_table_is_grown_to_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::open(&image(directory.path())).unwrap();
    let size = source.length() + 100 * MIB;
    let layout = source.layout(size, None, ID).unwrap();
    let data = layout.table.find(PartitionKind::Data).unwrap();
    assert_eq!(data.offset() + data.length(), size - MIB);
    assert_eq!(layout.tail.0 + layout.tail.1.len() as u64, size);
    assert_eq!(layout.head[446 + 4], 0xee);
    assert_eq!(layout.head[..4], [0xb0; 4], "the boot code stays");
    assert_eq!(layout.table, kontor_boot::install::with_id(&layout.table, ID));
    let error = source.layout(source.length() - SECTOR, None, ID).unwrap_err().to_string();
    assert!(error.contains("too small"), "{error}");
}

#[test]
fn everything_but_the_inside_of_state_and_data_is_covered() {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::open(&image(directory.path())).unwrap();
    let layout = source.layout(source.length(), None, ID).unwrap();
    for entry in &layout.table.entries {
        let inside =
            |segment: &&Segment| (entry.offset()..entry.offset() + entry.length()).contains(&segment.offset);
        let covered: u64 = layout.body.iter().filter(inside).map(|segment| segment.length).sum();
        let own = matches!(entry.kind(), Some(PartitionKind::State | PartitionKind::Data));
        let expected = if own { MIB } else { entry.length() };
        assert_eq!(covered, expected, "{:?}", entry.kind());
    }
}

#[test]
fn another_seed_replaces_all_of_the_image_s() {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::open(&image(directory.path())).unwrap();
    let wanted = seed::seed("schema = 1\n", None, 0).unwrap();
    let layout = source.layout(source.length(), Some(wanted.clone()), ID).unwrap();
    let entry = layout.table.find(PartitionKind::Seed).unwrap();
    let found: Vec<&Segment> =
        layout.body.iter().filter(|segment| layout.place(segment.offset) == "seed").collect();
    assert_eq!(found[0].content, Content::Bytes(wanted));
    assert!(found[1..].iter().all(|segment| segment.content == Content::Zero));
    assert_eq!(found.iter().map(|segment| segment.length).sum::<u64>(), entry.length());
}
