//! The journal's replay (jbd2): what of it is committed, and which block of it belongs where.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

/// Each block that is not data begins with it.
pub(super) const MAGIC: u32 = 0xc03b_3998;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK: u32 = 4;
const REVOKE: u32 = 5;
/// `s_feature_incompat`.
const WITH_64_BITS: u32 = 2;
const CHECKSUM_2: u32 = 8;
const CHECKSUM_3: u32 = 0x10;
/// Revocations, 64 bits, checksums; neither commits that wait for nothing nor fast ones.
const KNOWN: u32 = 1 | WITH_64_BITS | CHECKSUM_2 | CHECKSUM_3;
/// Of a tag: the block begins with the magic, which was taken out; no UUID follows; it is the last one.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;
const HEADER: usize = 12;

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Block of the file system → block of the journal that belongs there, and whether it is escaped.
    pub(super) blocks: HashMap<u64, (usize, bool)>,
    pub(super) transactions: usize,
}

#[derive(Debug, Default)]
struct Transaction {
    blocks: Vec<(u64, usize, bool)>,
    revoked: Vec<u64>,
}

/// Reads a journal of so many blocks.
///
/// # Errors
/// When it is none, or of another kind than the kernel makes for us.
pub(super) fn replay(length: usize, block: impl Fn(usize) -> Result<Vec<u8>>) -> Result<Replay> {
    let superblock = block(0)?;
    ensure!(word(&superblock, 0) == MAGIC && word(&superblock, 4) == SUPERBLOCK, "it has no superblock");
    let features = word(&superblock, 0x28);
    ensure!(features & !KNOWN == 0, "unknown features {:#x}", features & !KNOWN);
    ensure!(word(&superblock, 0x20) == 0, "it was aborted with error {}", word(&superblock, 0x20));
    let end = word(&superblock, 0x10) as usize;
    let (first, start) = (word(&superblock, 0x14) as usize, word(&superblock, 0x1c) as usize);
    ensure!(end <= length && first < end && start < end, "its superblock contradicts itself");
    if start == 0 {
        return Ok(Replay::default());
    }
    let step = |at: usize, by: usize| if at + by >= end { at + by - end + first } else { at + by };
    let (mut at, mut sequence) = (start, word(&superblock, 0x18));
    let (mut committed, mut open) = (Vec::new(), Transaction::default());
    // Once around at most: a journal whose end is not found has none.
    for _ in 0..end {
        let content = block(at)?;
        if word(&content, 0) != MAGIC || word(&content, 8) != sequence {
            break;
        }
        at = step(at, 1);
        match word(&content, 4) {
            DESCRIPTOR => {
                for (home, escaped) in tags(&content, features)? {
                    open.blocks.push((home, at, escaped));
                    at = step(at, 1);
                }
            }
            REVOKE => open.revoked.extend(revoked(&content, features)?),
            COMMIT => {
                committed.push(std::mem::take(&mut open));
                sequence = sequence.wrapping_add(1);
            }
            other => bail!("a block of type {other}"),
        }
    }
    Ok(collect(&committed))
}

/// The last word on each block: a revocation counts for its own transaction and all before it.
fn collect(transactions: &[Transaction]) -> Replay {
    let mut revoked_at: HashMap<u64, usize> = HashMap::new();
    for (number, transaction) in transactions.iter().enumerate() {
        revoked_at.extend(transaction.revoked.iter().map(|block| (*block, number)));
    }
    let mut replay = Replay { transactions: transactions.len(), ..Replay::default() };
    for (number, transaction) in transactions.iter().enumerate() {
        for (home, at, escaped) in &transaction.blocks {
            if revoked_at.get(home).is_none_or(|revoked| *revoked < number) {
                replay.blocks.insert(*home, (*at, *escaped));
            }
        }
    }
    replay
}

/// Which blocks follow a descriptor.
fn tags(content: &[u8], features: u32) -> Result<Vec<(u64, bool)>> {
    let wide = features & WITH_64_BITS != 0;
    let size = if features & CHECKSUM_3 != 0 {
        16
    } else {
        8 + if features & CHECKSUM_2 != 0 { 2 } else { 0 } + if wide { 4 } else { 0 }
    };
    let (mut at, mut found) = (HEADER, Vec::new());
    loop {
        let tag = content.get(at..at + size).context("a descriptor without an end")?;
        let (flags, high) = if features & CHECKSUM_3 != 0 {
            (word(tag, 4), word(tag, 8))
        } else {
            (word(tag, 4) & 0xffff, if wide { word(tag, 8) } else { 0 })
        };
        let high = if wide { high } else { 0 };
        found.push((u64::from(high) << 32 | u64::from(word(tag, 0)), flags & ESCAPED != 0));
        at += size + if flags & SAME_UUID == 0 { 16 } else { 0 };
        if flags & LAST != 0 {
            return Ok(found);
        }
    }
}

fn revoked(content: &[u8], features: u32) -> Result<Vec<u64>> {
    let used = word(content, HEADER) as usize;
    let records = content.get(HEADER + 4..used).context("a revocation of no length")?;
    let read = |record: &[u8]| record.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok(records.chunks_exact(if features & WITH_64_BITS != 0 { 8 } else { 4 }).map(read).collect())
}

/// Big-endian, as everything in a journal.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: usize = 10;
    const FIRST: u32 = 1;

    /// Blocks of a journal of version 2 with 64 bits and checksums of version 3.
    struct Log(Vec<Vec<u8>>);

    impl Log {
        fn new(start: u32, sequence: u32) -> Self {
            let mut log = Self(vec![vec![0; 4096]; BLOCKS]);
            log.words(0, 0, &[MAGIC, SUPERBLOCK, 0, 4096, BLOCKS as u32, FIRST, sequence, start, 0]);
            log.words(0, 0x28, &[1 | WITH_64_BITS | CHECKSUM_3]);
            log
        }

        fn words(&mut self, block: usize, at: usize, words: &[u32]) {
            for (place, word) in (at..).step_by(4).zip(words) {
                self.0[block][place..place + 4].copy_from_slice(&word.to_be_bytes());
            }
        }

        fn descriptor(&mut self, at: usize, sequence: u32, homes: &[(u32, bool)]) {
            self.words(at, 0, &[MAGIC, DESCRIPTOR, sequence]);
            let mut place = HEADER;
            for (index, (home, escaped)) in homes.iter().enumerate() {
                let flags = if *escaped { ESCAPED } else { 0 }
                    | if index > 0 { SAME_UUID } else { 0 }
                    | if index + 1 == homes.len() { LAST } else { 0 };
                self.words(at, place, &[*home, flags, 0, 0]);
                place += 16 + if index > 0 { 0 } else { 16 };
            }
        }

        #[track_caller]
        fn check(&self, transactions: usize, expect: &[(u64, (usize, bool))]) {
            let found = replay(BLOCKS, |block| Ok(self.0[block].clone())).unwrap();
            assert_eq!(found.transactions, transactions);
            assert_eq!(found.blocks, expect.iter().copied().collect());
        }
    }

    #[test]
    fn only_what_is_committed_counts() {
        Log::new(0, 7).check(0, &[]);
        let mut log = Log::new(1, 7);
        log.descriptor(1, 7, &[(100, false), (200, true)]);
        log.check(0, &[]);
        log.words(4, 0, &[MAGIC, COMMIT, 6]);
        log.check(0, &[]);
        log.words(4, 0, &[MAGIC, COMMIT, 7]);
        log.check(1, &[(100, (2, false)), (200, (3, true))]);
        log.descriptor(5, 8, &[(100, false)]);
        log.words(7, 0, &[MAGIC, COMMIT, 8]);
        log.check(2, &[(100, (6, false)), (200, (3, true))]);
    }

    #[test]
    fn it_goes_round_at_its_end() {
        let mut log = Log::new(8, 1);
        log.descriptor(8, 1, &[(100, false), (101, false)]);
        log.words(2, 0, &[MAGIC, COMMIT, 1]);
        log.check(1, &[(100, (9, false)), (101, (1, false))]);
    }

    #[test]
    fn what_was_revoked_is_not_brought_back() {
        let mut log = Log::new(1, 1);
        log.descriptor(1, 1, &[(100, false), (101, false)]);
        log.words(4, 0, &[MAGIC, COMMIT, 1]);
        log.words(5, 0, &[MAGIC, REVOKE, 2, 24, 0, 100]);
        log.words(6, 0, &[MAGIC, COMMIT, 2]);
        log.check(2, &[(101, (3, false))]);
        log.descriptor(7, 3, &[(100, false)]);
        log.words(9, 0, &[MAGIC, COMMIT, 3]);
        log.check(3, &[(100, (8, false)), (101, (3, false))]);
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        for byte in [0, 0xff] {
            assert!(replay(BLOCKS, |_| Ok(vec![byte; 4096])).is_err());
        }
        let mut log = Log::new(1, 1);
        log.words(1, 0, &[MAGIC, DESCRIPTOR, 1]);
        assert!(replay(BLOCKS, |block| Ok(log.0[block].clone())).is_err());
    }
}
