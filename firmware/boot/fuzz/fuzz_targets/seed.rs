//! Any bytes as a seed partition; every second input gets right header checksums.
#![no_main]

use kontor_boot::seed;
use libfuzzer_sys::fuzz_target;

/// Octets of a tar block (POSIX.1-2017, pax, ustar interchange format).
const BLOCK: usize = 512;

/// Puts the checksum right in every block that says it is a header.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
    bytes
}

fuzz_target!(|input: (bool, &[u8])| {
    let (seal, bytes) = input;
    let partition = if seal { sealed(bytes) } else { bytes.to_vec() };
    let Ok(files) = seed::read(&partition) else { return };
    for file in &files {
        assert!(!file.path.contains("..") && !file.path.starts_with('/'), "{}", file.path);
        assert!(file.content.len() <= partition.len());
    }
});
