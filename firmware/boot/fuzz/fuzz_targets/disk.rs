//! Any bytes as what the box finds on a disk: partition table, boot state, site copy, start of a file system.
//!
//! With right checksums where there are any, so that what is behind them is fuzzed.
#![no_main]

use kontor_boot::{filesystem, gpt, growth, site_copy, slots};
use libfuzzer_sys::fuzz_target;

const HEADER: usize = 92;
/// Of the builder's environment block: what comes behind it are variables.
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// A table of these entries, its checksums put right.
fn table(input: &[u8]) -> Option<gpt::Table> {
    let (header, entries) = input.split_at_checked(HEADER)?;
    let mut header = header.to_vec();
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    let count = 1 + header[80] % 128;
    header[80..88].copy_from_slice(&[count, 0, 0, 0, 128, 0, 0, 0]);
    let mut array = entries.to_vec();
    array.resize(usize::from(count) * 128, 0);
    header[88..92].copy_from_slice(&crc32fast::hash(&array).to_le_bytes());
    header[16..20].fill(0);
    let crc = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    let lba = u64::from_le_bytes(header[24..32].try_into().ok()?);
    gpt::Header::decode(&header, lba).ok()?.with_entries(&array).ok()
}

fn fuzz_table(disk_size: u64, input: &[u8]) {
    let Some(table) = table(input) else { return };
    for entry in &table.entries {
        let _ = (entry.kind(), entry.offset(), entry.length());
    }
    let Ok(growth) = growth::plan(&table, disk_size) else { return };
    for copy in [&growth.primary, &growth.backup] {
        let header = gpt::Header::decode(&copy.encode_header(), copy.my_lba).expect("our own header");
        assert_eq!(header.with_entries(&copy.encode_entries()).as_ref(), Ok(copy));
        assert!(copy.entries.iter().all(|entry| entry.offset() + entry.length() <= disk_size));
    }
    // Planning again after a power cut between the two writes ends at the same place.
    assert_eq!(growth::plan(&growth.backup, disk_size).as_ref(), Ok(&growth));
}

fn fuzz_boot_state(variables: &[u8]) {
    let mut sector = [SIGNATURE, variables].concat();
    sector.resize(slots::SECTOR, b'#');
    let Ok(mut state) = slots::BootState::decode(&sector) else { return };
    assert_eq!(slots::BootState::decode(&state.encode()), Ok(state));
    for _ in 0..8 {
        let _ = state.take_try([variables.len() % 2 == 0, variables.len() % 3 == 0]);
        assert_eq!(slots::BootState::decode(&state.encode()), Ok(state));
    }
}

fuzz_target!(|input: (u8, u64, &[u8])| {
    let (kind, number, bytes) = input;
    match kind % 4 {
        0 => fuzz_table(number, bytes),
        1 => fuzz_boot_state(bytes),
        2 => {
            let copy = site_copy::SiteCopy { sequence: number, text: bytes.to_vec() };
            assert_eq!(site_copy::SiteCopy::decode(&copy.encode().expect("short")), Some(copy));
        }
        _ => {
            let _ = (gpt::Header::decode(bytes, 1), slots::BootState::decode(bytes));
            let _ = (site_copy::SiteCopy::decode(bytes), filesystem::identify(bytes));
        }
    }
});
