//! ext4 as the kernel would find it after a power cut: its journal replayed in memory, then files by their names.
//!
//! For checking what cuts leave, thousands of times, where mounting is too slow. It reads what the box's file systems are
//! made with (extents, 4 KiB blocks) and refuses everything else; checksums are not looked at, so that damage behind one is
//! found as what it is. Layout: the kernel's Documentation/filesystems/ext4.

mod journal;

use std::collections::HashMap;
use std::io;

use anyhow::{Context, Result, bail, ensure};

use crate::block::picture::{Film, Number};

/// The only block size that is read.
pub const BLOCK: usize = 4096;

const MAGIC: u16 = 0xef53;
const EXTENT_MAGIC: u16 = 0xf30a;
/// `s_state`: the kernel has met an error.
const FLAWED: u16 = 2;
/// `s_feature_incompat`: the journal has something to be replayed.
const RECOVER: u32 = 0x4;
const WITH_64_BITS: u32 = 0x80;
/// What may be in `s_feature_incompat`: filetype, recover, extents, 64bit, flex_bg, csum_seed.
const KNOWN: u32 = 0x2 | RECOVER | 0x40 | WITH_64_BITS | 0x200 | 0x2000;
/// `i_flags`: the inode has extents.
const EXTENTS: u32 = 0x8_0000;
/// And fs-verity: the tree of hashes lies behind the end of the file.
const SEALED: u32 = 0x10_0000;
const DIRECTORY: u16 = 0x4000;
const REGULAR: u16 = 0x8000;
const KIND: u16 = 0xf000;
const ROOT: u32 = 2;
/// From this length on an extent is one of blocks that read as zeros.
const UNWRITTEN: u16 = 0x8000;
/// A tree of extents is never deeper.
const MAX_DEPTH: u16 = 5;
/// Longer files are compared by their blocks, not read.
const MAX_READ: u64 = 1 << 20;

/// A block of the file system.
#[derive(Debug, Clone)]
enum Block {
    Number(Number),
    /// Out of the journal, where its first bytes were in the journal's way.
    Bytes(Vec<u8>),
}

/// A file system, its journal replayed.
#[derive(Debug)]
pub struct Ext4<'a> {
    film: &'a Film,
    blocks: &'a [Number],
    replayed: HashMap<u64, Block>,
    inodes_per_group: u32,
    inode_size: usize,
    descriptor_size: usize,
    /// Transactions that were replayed.
    pub transactions: usize,
}

/// A file's inode.
#[derive(Debug)]
pub struct Inode {
    kind: u16,
    is_sealed: bool,
    /// Its length in bytes.
    pub length: u64,
    /// Logical block, length, physical block: of what is written.
    extents: Vec<(u64, u64, u64)>,
}

impl<'a> Ext4<'a> {
    /// The file system in these blocks.
    ///
    /// # Errors
    /// When the kernel would not mount it, or it is not of the kind that this reads.
    pub fn open(film: &'a Film, blocks: &'a [Number]) -> Result<Self> {
        let mut found = Self {
            film,
            blocks,
            replayed: HashMap::new(),
            inodes_per_group: 0,
            inode_size: 0,
            descriptor_size: 0,
            transactions: 0,
        };
        let features = found.read_superblock()?;
        if features & RECOVER != 0 {
            found.replay()?;
            found.read_superblock()?;
        }
        Ok(found)
    }

    /// Its features.
    fn read_superblock(&mut self) -> Result<u32> {
        let block = self.block(0)?;
        let superblock = &block[1024..2048];
        ensure!(u16_at(superblock, 0x38) == MAGIC, "there is no ext4");
        ensure!(u16_at(superblock, 0x3a) & FLAWED == 0, "the kernel has met an error in it");
        ensure!(u32_at(superblock, 0x18) == 2, "its blocks are not of 4 KiB");
        let features = u32_at(superblock, 0x60);
        ensure!(features & !KNOWN == 0, "unknown features {:#x}", features & !KNOWN);
        self.inodes_per_group = u32_at(superblock, 0x28);
        self.inode_size = u16_at(superblock, 0x58).into();
        let wide = usize::from(u16_at(superblock, 0xfe));
        self.descriptor_size = if features & WITH_64_BITS == 0 { 32 } else { wide };
        ensure!(
            self.inodes_per_group > 0 && self.inode_size >= 128 && self.descriptor_size >= 32,
            "no layout"
        );
        Ok(features)
    }

    fn replay(&mut self) -> Result<()> {
        let block = self.block(0)?;
        let inode = self.inode(u32_at(&block[1024..2048], 0xe0)).context("the journal's inode")?;
        let mut log = Vec::new();
        for index in 0..inode.length / BLOCK as u64 {
            log.push(inode.physical(index).context("the journal has a hole")?);
        }
        let replay = journal::replay(log.len(), |index| self.block(log[index])).context("the journal")?;
        self.transactions = replay.transactions;
        for (home, (index, escaped)) in replay.blocks {
            let place = log[index];
            let content = if escaped {
                let mut bytes = self.block(place)?;
                bytes[..4].copy_from_slice(&journal::MAGIC.to_be_bytes());
                Block::Bytes(bytes)
            } else {
                Block::Number(*self.blocks.get(usize::try_from(place)?).context("beyond the end")?)
            };
            self.replayed.insert(home, content);
        }
        Ok(())
    }

    fn block(&self, block: u64) -> Result<Vec<u8>> {
        let number = match self.replayed.get(&block) {
            Some(Block::Bytes(bytes)) => return Ok(bytes.clone()),
            Some(Block::Number(number)) => *number,
            None => *self.blocks.get(usize::try_from(block)?).context("a block beyond the end")?,
        };
        let read: io::Result<_> = self.film.read(number);
        Ok(read?)
    }

    fn inode(&self, number: u32) -> Result<Inode> {
        ensure!(number > 0, "inode 0");
        let (group, index) = ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        let at = group as usize * self.descriptor_size;
        let descriptors = self.block(1 + (at / BLOCK) as u64)?;
        let descriptor = &descriptors[at % BLOCK..][..self.descriptor_size];
        let high = if self.descriptor_size >= 64 { u32_at(descriptor, 0x28) } else { 0 };
        let table = u64::from(high) << 32 | u64::from(u32_at(descriptor, 0x8));
        let at = index as usize * self.inode_size;
        let block = self.block(table + (at / BLOCK) as u64)?;
        let inode = &block[at % BLOCK..][..self.inode_size];
        let kind = u16_at(inode, 0) & KIND;
        let length = u64::from(u32_at(inode, 0x6c)) << 32 | u64::from(u32_at(inode, 0x4));
        let flags = u32_at(inode, 0x20);
        ensure!(flags & EXTENTS != 0, "inode {number} has no extents");
        let mut extents = Vec::new();
        self.read_extents(&inode[0x28..0x64], MAX_DEPTH, &mut extents)
            .with_context(|| format!("inode {number}"))?;
        Ok(Inode { kind, is_sealed: flags & SEALED != 0, length, extents })
    }

    fn read_extents(&self, node: &[u8], depth: u16, extents: &mut Vec<(u64, u64, u64)>) -> Result<()> {
        let (entries, found) = (u16_at(node, 2).into(), u16_at(node, 6));
        ensure!(u16_at(node, 0) == EXTENT_MAGIC && found <= depth, "no node of extents");
        for entry in node[12..].chunks_exact(12).take(entries) {
            let logical = u64::from(u32_at(entry, 0));
            if found > 0 {
                let child = u64::from(u16_at(entry, 8)) << 32 | u64::from(u32_at(entry, 4));
                self.read_extents(&self.block(child)?, found - 1, extents)?;
            } else if u16_at(entry, 4) <= UNWRITTEN {
                let physical = u64::from(u16_at(entry, 6)) << 32 | u64::from(u32_at(entry, 8));
                extents.push((logical, u16_at(entry, 4).into(), physical));
            }
        }
        Ok(())
    }

    /// The file of this path; nothing when there is none.
    ///
    /// # Errors
    /// When the file system is damaged on the way there.
    pub fn find(&self, path: &str) -> Result<Option<Inode>> {
        let mut inode = self.inode(ROOT)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Some(next) = self.entry(&inode, name).with_context(|| format!("the directory of {name}"))?
            else {
                return Ok(None);
            };
            inode = self.inode(next).with_context(|| path.to_owned())?;
        }
        Ok(Some(inode))
    }

    fn entry(&self, directory: &Inode, wanted: &str) -> Result<Option<u32>> {
        ensure!(directory.kind == DIRECTORY, "it is none");
        let bytes = self.content(directory)?;
        let mut at = 0;
        while at + 8 <= bytes.len() {
            let entry = &bytes[at..];
            let length = usize::from(u16_at(entry, 4));
            ensure!(length >= 8 && length <= entry.len(), "an entry of {length} bytes");
            let name = entry.get(8..8 + usize::from(entry[6]));
            if u32_at(entry, 0) != 0 && name == Some(wanted.as_bytes()) {
                return Ok(Some(u32_at(entry, 0)));
            }
            at += length;
        }
        Ok(None)
    }

    fn content(&self, inode: &Inode) -> Result<Vec<u8>> {
        ensure!(inode.length <= MAX_READ, "{} bytes are too many to be read", inode.length);
        let mut bytes = Vec::new();
        for index in 0..inode.length.div_ceil(BLOCK as u64) {
            match inode.physical(index) {
                Some(block) => bytes.extend(self.block(block)?),
                None => bytes.resize(bytes.len() + BLOCK, 0),
            }
        }
        bytes.truncate(usize::try_from(inode.length)?);
        Ok(bytes)
    }

    /// A short file's bytes; nothing when there is none.
    ///
    /// # Errors
    /// When the file system is damaged, or the file is no file.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(inode) = self.find(path)? else { return Ok(None) };
        ensure!(inode.kind == REGULAR, "{path} is no file");
        self.content(&inode).with_context(|| path.to_owned()).map(Some)
    }

    /// What lies behind the end of a file that is sealed by fs-verity; nothing when there is no such file.
    ///
    /// # Errors
    /// When the file system is damaged.
    pub fn seal(&self, path: &str) -> Result<Option<Vec<(u64, Number)>>> {
        let Some(inode) = self.find(path)?.filter(|inode| inode.is_sealed) else { return Ok(None) };
        let end = inode.length.div_ceil(BLOCK as u64);
        let mut behind = Vec::new();
        for (logical, count, physical) in &inode.extents {
            for index in (*logical..logical + count).filter(|index| *index >= end) {
                let place = usize::try_from(physical + index - logical)?;
                behind.push((index, *self.blocks.get(place).context("beyond the end")?));
            }
        }
        Ok(Some(behind))
    }

    /// Whether a file has these contents, block by block, and this length.
    ///
    /// # Errors
    /// With the first difference.
    pub fn ensure_content(&self, path: &str, wanted: &[Number], length: u64) -> Result<()> {
        let inode = self.find(path)?.with_context(|| format!("{path} is missing"))?;
        ensure!(inode.kind == REGULAR, "{path} is no file");
        ensure!(inode.length == length, "{path} has {} bytes instead of {length}", inode.length);
        // Up to the end, the seal behind it left out; what no extent has, before it and behind the last one, is a hole.
        let end = wanted.len();
        let mut next = 0;
        for (logical, count, physical) in inode.extents.iter().copied().chain([(end as u64, 0, 0)]) {
            let (first, place) = (usize::try_from(logical)?.min(end), usize::try_from(physical)?);
            let hole = wanted.get(next..first).with_context(|| format!("{path}: extents out of order"))?;
            ensure!(self.are_zero(hole)?, "{path} has a hole at block {next}");
            let count = usize::try_from(count)?;
            next = (first + count).min(end);
            let expect = &wanted[first..next];
            // What the journal replays is never a file's content.
            let found = self.blocks.get(place..place + count).context("beyond the end")?;
            if found.get(..expect.len()) != Some(expect) {
                let at = found.iter().zip(expect).take_while(|(found, wanted)| found == wanted).count();
                bail!("{path} has other bytes in block {}", first + at);
            }
        }
        Ok(())
    }

    /// Whether a hole reads as these blocks.
    fn are_zero(&self, blocks: &[Number]) -> Result<bool> {
        let Some(first) = blocks.first() else { return Ok(true) };
        let is_zero = self.film.read(*first)?.iter().all(|byte| *byte == 0);
        Ok(is_zero && blocks.iter().all(|block| block == first))
    }
}

impl Inode {
    fn physical(&self, index: u64) -> Option<u64> {
        let inside = |(logical, count, _): &&(u64, u64, u64)| (*logical..logical + count).contains(&index);
        self.extents.iter().find(inside).map(|(logical, _, physical)| physical + index - logical)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
