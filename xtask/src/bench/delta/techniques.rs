//! What others would fetch for the same pair of images. Each is given the better of what is documented of it and what costs
//! it less here: headers, requests and retries are not counted for anybody.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;

use anyhow::{Context, Result, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use fastcdc::v2020::FastCDC;
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{CCtx, CParameter};

use crate::archive::cache::parallel;

/// As ours.
const LEVEL: i32 = 19;
/// A block of RAUC's adaptive update, and a hash of it in the index.
const BLOCK: usize = 4096;
const BLOCK_HASH: usize = 32;
/// casync: chunks of 16 KiB on average, between a quarter and four times that; an entry of a `.caibx`.
const CHUNK: usize = 16 * 1024;
const CHUNK_ENTRY: usize = 40;
/// zsync, of a file of this size: blocks of 4 KiB, known by some 3 octets of a rolling sum and 5 of a strong one.
const ZSYNC_ENTRY: usize = 8;

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Length of these bytes as zstd -19 makes them.
fn packed(bytes: &[u8], old: &[u8]) -> Result<u64> {
    let mut context = CCtx::create();
    let window = (bytes.len() + old.len()).max(1024).next_power_of_two().ilog2().min(30);
    let set = |context: &mut CCtx<'_>, parameter| {
        context
            .set_parameter(parameter)
            .map_err(|code| anyhow!("zstd: {}", zstd::zstd_safe::get_error_name(code)))
    };
    set(&mut context, CParameter::CompressionLevel(LEVEL))?;
    if !old.is_empty() {
        set(&mut context, CParameter::WindowLog(window))?;
        set(&mut context, CParameter::EnableLongDistanceMatching(true))?;
        context.ref_prefix(old).map_err(|_| anyhow!("zstd refuses the old file"))?;
    }
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(bytes.len()));
    context.compress2(&mut out, bytes).map_err(|_| anyhow!("zstd fails"))?;
    Ok(out.len() as u64)
}

/// `zstd -19 --long --patch-from` of the whole image.
pub(super) fn patch_from(old: &[u8], new: &[u8]) -> Result<u64> {
    packed(new, old)
}

/// RAUC's adaptive update (`block-hash-index`): blocks of 4 KiB that no old image has at a block's boundary, and 32 octets for
/// each block of the new image. RAUC fetches blocks as they are; here runs of new blocks are compressed.
pub(super) fn rauc4k(old: &[u8], new: &[u8]) -> Result<u64> {
    let known: HashSet<[u8; 32]> = old.chunks(BLOCK).map(hash).collect();
    let missing: Vec<bool> = new.chunks(BLOCK).map(|block| !known.contains(&hash(block))).collect();
    Ok(runs(new, &missing)? + (missing.len() * BLOCK_HASH) as u64)
}

/// What is compressed together: runs of missing blocks.
fn runs(new: &[u8], missing: &[bool]) -> Result<u64> {
    let mut lengths = Vec::new();
    for (number, block) in new.chunks(BLOCK).enumerate().filter(|(number, _)| missing[*number]) {
        match lengths.last_mut() {
            Some((from, length)) if *from + *length == number * BLOCK => *length += block.len(),
            _ => lengths.push((number * BLOCK, block.len())),
        }
    }
    let sizes = parallel(&lengths, 2, |(from, length)| packed(&new[*from..from + length], &[]))?;
    Ok(sizes.into_iter().sum())
}

/// casync: chunks of 16 KiB on average that no old image has, each compressed by itself, and 40 octets for each of the new image.
pub(super) fn casync16k(old: &[u8], new: &[u8]) -> Result<u64> {
    let cut = |image: &[u8]| FastCDC::new(image, CHUNK / 4, CHUNK, CHUNK * 4).collect::<Vec<_>>();
    let bytes = |image: &[u8], chunk: &fastcdc::v2020::Chunk| {
        image[chunk.offset..chunk.offset + chunk.length].to_vec()
    };
    let mut known: HashSet<[u8; 32]> = cut(old).iter().map(|chunk| hash(&bytes(old, chunk))).collect();
    let chunks = cut(new);
    let missing: Vec<_> = chunks.iter().filter(|chunk| known.insert(hash(&bytes(new, chunk)))).collect();
    let sizes = parallel(&missing, 2, |chunk| packed(&bytes(new, chunk), &[]))?;
    Ok(sizes.iter().sum::<u64>() + (chunks.len() * CHUNK_ENTRY) as u64)
}

/// zsync: blocks of 4 KiB that the old image has nowhere, at whatever offset; runs of them are compressed.
pub(super) fn zsync(old: &[u8], new: &[u8]) -> Result<u64> {
    let mut blocks = HashMap::<u32, Vec<usize>>::new();
    for (number, block) in new.chunks_exact(BLOCK).enumerate() {
        blocks.entry(weak(block)).or_default().push(number);
    }
    // Nearly every offset has a sum that no block has.
    let mut sums = vec![false; 1 << FILTER_BITS];
    blocks.keys().for_each(|sum| sums[filter(*sum)] = true);
    let mut missing = vec![true; new.len().div_ceil(BLOCK)];
    let mut sum = Rolling::new(old.get(..BLOCK).unwrap_or(&[]));
    let mut offset = 0;
    while offset + BLOCK <= old.len() {
        if sums[filter(sum.value())]
            && let Some(numbers) = blocks.get_mut(&sum.value())
        {
            // What is found is not looked for again: thousands of blocks are zeros.
            numbers.retain(|number| {
                let wanted = new[number * BLOCK..(number + 1) * BLOCK] != old[offset..offset + BLOCK];
                missing[*number] = wanted;
                wanted
            });
        }
        if offset + BLOCK < old.len() {
            sum.roll(old[offset], old[offset + BLOCK]);
        }
        offset += 1;
    }
    Ok(runs(new, &missing)? + (missing.len() * ZSYNC_ENTRY) as u64)
}

const FILTER_BITS: u32 = 22;

fn filter(sum: u32) -> usize {
    (sum.wrapping_mul(0x9e37_79b1) >> (32 - FILTER_BITS)) as usize
}

/// rsync's rolling sum.
struct Rolling {
    a: u16,
    b: u16,
}

fn weak(block: &[u8]) -> u32 {
    Rolling::new(block).value()
}

impl Rolling {
    fn new(block: &[u8]) -> Self {
        let mut sum = Self { a: 0, b: 0 };
        for byte in block {
            sum.a = sum.a.wrapping_add(u16::from(*byte));
            sum.b = sum.b.wrapping_add(sum.a);
        }
        sum
    }

    fn roll(&mut self, out: u8, next: u8) {
        self.a = self.a.wrapping_sub(u16::from(out)).wrapping_add(u16::from(next));
        self.b = self.b.wrapping_sub(u16::from(out).wrapping_mul(BLOCK as u16)).wrapping_add(self.a);
    }

    fn value(&self) -> u32 {
        u32::from(self.a) | u32::from(self.b) << 16
    }
}

/// Every changed file by itself, as `zstd -19 --patch-from` of the file that had its path before; without an image around
/// them, so that nobody could make one of it. What is new without a predecessor is compressed.
pub(super) fn per_file(old: &Utf8Path, new: &Utf8Path) -> Result<u64> {
    let (old, new) = (files(old)?, files(new)?);
    let changed: Vec<(&String, &Utf8PathBuf)> = new.iter().collect();
    let sizes = parallel(&changed, 2, |(name, path)| {
        let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
        let before = old.get(*name).map(fs::read).transpose()?.unwrap_or_default();
        if bytes == before { Ok(0) } else { packed(&bytes, &before) }
    })?;
    Ok(sizes.into_iter().sum())
}

fn files(root: &Utf8Path) -> Result<BTreeMap<String, Utf8PathBuf>> {
    let (mut found, mut pending) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = pending.pop() {
        for entry in folder.read_dir_utf8().with_context(|| format!("cannot read {folder}"))? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                pending.push(path.to_owned());
            } else if kind.is_file() {
                found.insert(path.strip_prefix(root)?.to_string(), path.to_owned());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rolled_sum_is_the_sum_of_what_it_covers() {
        let bytes: Vec<u8> = (0..3 * BLOCK as u32).map(|n| ((n * n) >> 3) as u8).collect();
        let mut sum = Rolling::new(&bytes[..BLOCK]);
        for offset in 0..2 * BLOCK {
            assert_eq!(sum.value(), weak(&bytes[offset..offset + BLOCK]));
            sum.roll(bytes[offset], bytes[offset + BLOCK]);
        }
    }

    #[test]
    fn what_has_moved_is_found_by_those_who_look_for_it() {
        let old: Vec<u8> =
            (0..400_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let new = [&[1, 2, 3][..], &old].concat();
        let index = (new.len() / BLOCK * BLOCK_HASH) as u64;
        assert!(rauc4k(&old, &new).unwrap() > 500_000 + index, "its blocks are aligned");
        // The last block is a part of one.
        assert_eq!(rauc4k(&old, &old).unwrap(), (old.len().div_ceil(BLOCK) * BLOCK_HASH) as u64);
        assert!(zsync(&old, &new).unwrap() < 12_000);
        assert!(casync16k(&old, &new).unwrap() < 50_000);
        assert!(patch_from(&old, &new).unwrap() < 2_000);
    }
}
