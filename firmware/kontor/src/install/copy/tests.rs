//! Disks that are cut off, lie, or are good.

use std::io::Read as _;

use kontor_boot::Guid;
use kontor_boot::install::plan;

use super::*;
use crate::storage::disk::read_table;
use crate::storage::table::tests::image;

const MIB: u64 = 1 << 20;
const ID: Guid = Guid::from_u128(7 << 64);

/// From a stick of 20 MiB; what was on the disk before is everywhere.
fn disk(size: u64) -> (Plan, File) {
    let stick = image(20 * MIB);
    let table = read_table(&stick).unwrap().unwrap();
    let mut device = tempfile::tempfile().unwrap();
    io::copy(&mut io::repeat(0x51).take(MIB), &mut device).unwrap();
    device.set_len(3 * MIB).unwrap();
    let parts = vec![
        Part { name: "slot-a", offset: 4 * MIB, length: 3 * MIB, source: Source::Device(device) },
        Part { name: "seed", offset: 8 * MIB, length: MIB + 4096, source: Source::Bytes(vec![9; 700]) },
    ];
    let mut target = tempfile::tempfile().unwrap();
    io::copy(&mut io::repeat(0xdd).take(size), &mut target).unwrap();
    (Plan { parts, growth: plan(&table, size, ID).unwrap(), boot_sector: [0xb0; 512] }, target)
}

fn read(disk: &File, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    disk.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

fn is_filled(bytes: &[u8], with: u8) -> bool {
    bytes.iter().all(|byte| *byte == with)
}

#[test]
fn the_disk_holds_what_was_planned_and_zeros_are_zeros() {
    let (plan, target) = disk(24 * MIB);
    let mut heard = Vec::new();
    install(&plan, &target, &mut |what, done, total| {
        heard.push((what, done, total));
        Ok(())
    })
    .unwrap();
    let sector = read(&target, 0, 512);
    assert_eq!((sector[0], sector[450], &sector[510..]), (0xb0, 0xee, &[0x55, 0xaa][..]));
    assert_eq!(read_table(&target).unwrap().as_ref(), Some(&plan.growth.primary));
    assert!(is_filled(&read(&target, 4 * MIB, 1 << 20), 0x51));
    assert!(is_filled(&read(&target, 5 * MIB, 2 << 20), 0));
    assert!(is_filled(&read(&target, 7 * MIB, 1 << 20), 0xdd), "what is in no part stays");
    let seed = read(&target, 8 * MIB, (1 << 20) + 4096);
    assert!(is_filled(&seed[..700], 9) && is_filled(&seed[700..], 0));
    let total = 4 * MIB + 4096;
    assert_eq!(heard.first(), Some(&("writing", MIB, total)));
    assert_eq!(heard.last(), Some(&("reading back", total, total)));
}

#[test]
fn cut_short_at_any_point_it_looks_like_no_disk_of_ours() {
    // Five blocks are written, then read back.
    for point in 0..10 {
        let (plan, target) = disk(24 * MIB);
        let mut left = point;
        let error = install(&plan, &target, &mut |_, _, _| {
            ensure!(left > 0, "interrupted");
            left -= 1;
            Ok(())
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "interrupted");
        assert_eq!(read_table(&target).unwrap(), None, "{point}");
        assert!(is_filled(&read(&target, 0, 1 << 20), 0) && is_filled(&read(&target, 23 * MIB, 1 << 20), 0));
    }
}

#[test]
fn a_disk_that_forgets_is_found_out_and_does_not_boot() {
    let (plan, target) = disk(24 * MIB);
    let spoiler = target.try_clone().unwrap();
    let error = install(&plan, &target, &mut |what, done, _| {
        if what == "writing" && done == 4 * MIB {
            spoiler.write_all_at(&[1], 8 * MIB + 800).unwrap();
        }
        Ok(())
    })
    .unwrap_err()
    .to_string();
    assert!(error.contains("at byte 8388608 (seed) the disk gives back something else"), "{error}");
    assert_eq!(read_table(&target).unwrap(), None);
}
