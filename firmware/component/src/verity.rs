//! The digest by which fs-verity knows a file (Documentation/filesystems/fsverity.rst, "Merkle tree" and
//! "fs-verity descriptor"): SHA-256, blocks of 4 KiB, no salt.
//!
//! The builder computes it without a kernel; on the box the kernel measures a sealed file by itself, and what it measures
//! must be this.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// Bytes of a block, of data and of the tree.
pub const BLOCK: usize = 4096;
const HASH: usize = 32;
/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256_ALGORITHM: u8 = 1;

/// The digest of what `file` reads.
///
/// # Errors
/// Those of reading.
pub fn digest(mut file: impl Read) -> io::Result<[u8; HASH]> {
    let mut tree = Tree::default();
    let mut size: u64 = 0;
    let mut block = [0; BLOCK];
    loop {
        let length = read_block(&mut file, &mut block)?;
        if length == 0 {
            break;
        }
        // A last block is filled up with zeros.
        block[length..].fill(0);
        size += length as u64;
        tree.add(0, hash(&block));
        if length < BLOCK {
            break;
        }
    }
    Ok(descriptor(size, &tree.root()))
}

/// `struct fsverity_descriptor`, without a signature, hashed.
fn descriptor(size: u64, root: &[u8; HASH]) -> [u8; HASH] {
    let mut descriptor = [0; 256];
    descriptor[0] = 1;
    descriptor[1] = SHA256_ALGORITHM;
    descriptor[2] = BLOCK.trailing_zeros() as u8;
    descriptor[8..16].copy_from_slice(&size.to_le_bytes());
    descriptor[16..48].copy_from_slice(root);
    hash(&descriptor)
}

fn hash(bytes: &[u8]) -> [u8; HASH] {
    Sha256::digest(bytes).into()
}

/// Fills `block` as far as there is something.
fn read_block(file: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < BLOCK {
        match file.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Each level's block that is being filled, and how many hashes the level has had.
#[derive(Debug, Default)]
struct Tree {
    levels: Vec<(Vec<u8>, u64)>,
}

impl Tree {
    fn add(&mut self, level: usize, hash: [u8; HASH]) {
        if self.levels.len() == level {
            self.levels.push((Vec::with_capacity(BLOCK), 0));
        }
        let (block, count) = &mut self.levels[level];
        // A full block goes up only when more comes: the block that holds everything is the root's own.
        let full = (block.len() == BLOCK).then(|| self::hash(block));
        if full.is_some() {
            block.clear();
        }
        block.extend_from_slice(&hash);
        *count += 1;
        if let Some(full) = full {
            self.add(level + 1, full);
        }
    }

    /// All zeros for an empty file, as the kernel has it.
    fn root(mut self) -> [u8; HASH] {
        let mut level = 0;
        while level < self.levels.len() {
            let is_top = level + 1 == self.levels.len();
            let (block, count) = &mut self.levels[level];
            if *count == 1 && is_top {
                return block[..HASH].try_into().unwrap_or([0; HASH]);
            }
            block.resize(BLOCK, 0);
            let up = hash(block);
            self.add(level + 1, up);
            level += 1;
        }
        [0; HASH]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The plain definition: levels of whole blocks until there is one hash.
    fn plain(data: &[u8]) -> [u8; HASH] {
        let padded = |bytes: &[u8]| {
            let mut block = bytes.to_vec();
            block.resize(BLOCK, 0);
            hash(&block)
        };
        let mut hashes: Vec<[u8; HASH]> = data.chunks(BLOCK).map(padded).collect();
        while hashes.len() > 1 {
            hashes = hashes.concat().chunks(BLOCK).map(padded).collect();
        }
        descriptor(data.len() as u64, &hashes.first().copied().unwrap_or([0; HASH]))
    }

    #[test]
    fn an_empty_file_has_the_digest_that_the_kernel_gives() {
        // `fsverity digest` of an empty file (fsverity-utils, README and tests).
        let expected = "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";
        assert_eq!(hex(&digest(io::empty()).unwrap()), expected);
    }

    #[test]
    fn every_depth_of_the_tree_is_as_defined() {
        let hashes = BLOCK / HASH;
        for length in [
            1,
            BLOCK - 1,
            BLOCK,
            BLOCK + 1,
            hashes * BLOCK,
            hashes * BLOCK + 1,
            2 * hashes * BLOCK,
            hashes * hashes * BLOCK + 1,
        ] {
            let data: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
            assert_eq!(hex(&digest(data.as_slice()).unwrap()), hex(&plain(&data)), "{length} bytes");
        }
    }

    #[test]
    fn one_bit_changes_the_digest() {
        let mut data = vec![0; 300 * BLOCK];
        let before = digest(data.as_slice()).unwrap();
        data[299 * BLOCK + 17] ^= 1;
        assert_ne!(digest(data.as_slice()).unwrap(), before);
    }
}
