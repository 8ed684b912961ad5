//! The `bootstate` partition: the boot state in sector 0, framed so that GRUB can write it in place.
//!
//! GRUB 2.12 reads a raw block list but refuses to save through one; it saves through a file whose sectors it
//! knows. So the partition is also the smallest ISO 9660 volume there can be (ECMA-119): its descriptors lie
//! behind the 32 KiB that the standard leaves to the system, and its only file, `GRUBENV`, is the sector at
//! offset 0. The builder writes the frame; the box writes it again only when it finds it damaged, for without it
//! GRUB can count no tries. Every change of the state is one sector, in place.

use crate::partition::BOOTSTATE_SIZE;
use crate::slots::{BootState, SECTOR};

/// Bytes of an ISO 9660 block.
const BLOCK: usize = 2048;
/// The standard's place of the first volume descriptor.
const DESCRIPTOR: usize = 16;
const TERMINATOR: usize = 17;
const ROOT: usize = 18;
const PATH_TABLE_LE: usize = 19;
const PATH_TABLE_BE: usize = 20;

/// Where the frame begins: before it are the state and what the standard leaves to the system.
pub const FRAME_OFFSET: u64 = (DESCRIPTOR * BLOCK) as u64;

/// Name of the file as GRUB knows it.
pub const FILE: &str = "/grubenv";

const DIRECTORY: u8 = 2;
const REGULAR: u8 = 0;

/// The beginning of the partition with this state; the rest of it is zero (the box keeps copies of the site
/// file from 64 KiB on).
#[must_use]
pub fn bootstate(state: &BootState) -> Vec<u8> {
    let mut bytes = vec![0; (PATH_TABLE_BE + 1) * BLOCK];
    bytes[..SECTOR].copy_from_slice(&state.encode());
    block(&mut bytes, DESCRIPTOR).copy_from_slice(&primary_descriptor());
    block(&mut bytes, TERMINATOR)[..7].copy_from_slice(b"\xffCD001\x01");
    let root = directory_record(&[0], ROOT, BLOCK, DIRECTORY);
    let parent = directory_record(&[1], ROOT, BLOCK, DIRECTORY);
    let file = directory_record(b"GRUBENV.;1", 0, SECTOR, REGULAR);
    let records = [root, parent, file].concat();
    block(&mut bytes, ROOT)[..records.len()].copy_from_slice(&records);
    block(&mut bytes, PATH_TABLE_LE)[..8].copy_from_slice(&[1, 0, ROOT as u8, 0, 0, 0, 1, 0]);
    block(&mut bytes, PATH_TABLE_BE)[..8].copy_from_slice(&[1, 0, 0, 0, 0, ROOT as u8, 0, 1]);
    bytes
}

/// The frame alone, from [`FRAME_OFFSET`] on.
#[must_use]
pub fn frame() -> Vec<u8> {
    bootstate(&BootState::fresh()).split_off(DESCRIPTOR * BLOCK)
}

fn block(bytes: &mut [u8], number: usize) -> &mut [u8] {
    &mut bytes[number * BLOCK..(number + 1) * BLOCK]
}

/// ECMA-119, 8.4.
fn primary_descriptor() -> Vec<u8> {
    let mut descriptor = vec![0; BLOCK];
    descriptor[..7].copy_from_slice(b"\x01CD001\x01");
    descriptor[8..72].fill(b' ');
    descriptor[40..49].copy_from_slice(b"BOOTSTATE");
    descriptor[80..88].copy_from_slice(&both_u32(BOOTSTATE_SIZE as usize / BLOCK));
    descriptor[120..124].copy_from_slice(&both_u16(1)); // volumes of the set
    descriptor[124..128].copy_from_slice(&both_u16(1)); // number of this one
    descriptor[128..132].copy_from_slice(&both_u16(BLOCK));
    descriptor[132..140].copy_from_slice(&both_u32(10)); // bytes of the path table
    descriptor[140] = PATH_TABLE_LE as u8;
    descriptor[151] = PATH_TABLE_BE as u8;
    descriptor[156..190].copy_from_slice(&directory_record(&[0], ROOT, BLOCK, DIRECTORY));
    descriptor[190..813].fill(b' ');
    for date in descriptor[813..881].chunks_exact_mut(17) {
        date[..16].fill(b'0');
    }
    descriptor[881] = 1; // version of the file structure
    descriptor
}

/// ECMA-119, 9.1.
fn directory_record(name: &[u8], extent: usize, size: usize, flags: u8) -> Vec<u8> {
    let mut record = vec![0; (33 + name.len()).next_multiple_of(2)];
    record[0] = record.len() as u8;
    record[2..10].copy_from_slice(&both_u32(extent));
    record[10..18].copy_from_slice(&both_u32(size));
    record[18..21].copy_from_slice(&[80, 1, 1]); // 1980-01-01
    record[25] = flags;
    record[28..32].copy_from_slice(&both_u16(1));
    record[32] = name.len() as u8;
    record[33..33 + name.len()].copy_from_slice(name);
    record
}

/// A number in both byte orders, as this format stores them.
fn both_u32(value: usize) -> [u8; 8] {
    let value = value as u32;
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn both_u16(value: usize) -> [u8; 4] {
    let [low, high] = (value as u16).to_le_bytes();
    [low, high, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_finds_the_state_in_sector_zero() {
        assert_eq!(BootState::decode(&bootstate(&BootState::fresh())), Ok(BootState::fresh()));
    }

    #[test]
    fn the_frame_stays_clear_of_the_state_and_of_the_sites_copies() {
        let bytes = bootstate(&BootState::fresh());
        assert!(bytes[512..32 << 10].iter().all(|byte| *byte == 0));
        assert!(bytes.len() <= 64 << 10);
        assert_eq!(bytes[FRAME_OFFSET as usize..], frame());
    }

    #[test]
    fn the_only_file_is_the_first_sector() {
        let bytes = bootstate(&BootState::fresh());
        assert_eq!(&bytes[0x8001..0x8006], b"CD001");
        let file = &bytes[ROOT * BLOCK + 2 * 34..];
        assert_eq!(&file[33..43], b"GRUBENV.;1");
        assert_eq!((&file[2..6], &file[10..14]), (&[0; 4][..], &512_u32.to_le_bytes()[..]));
    }
}
