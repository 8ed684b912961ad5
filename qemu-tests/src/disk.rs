//! A machine's disk as a file: partitions found by type, slots broken, the boot state read and written.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kontor_boot::PartitionKind;
use kontor_boot::gpt::{Header, SECTOR, Table};
use kontor_boot::install::Order;
use kontor_boot::slots::{BootState, Slot};

/// The disk of a machine that does not run.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
    table: Table,
}

impl Disk {
    /// Opens a disk and reads its partition table.
    ///
    /// # Errors
    /// When there is none, or its checksums are wrong.
    pub fn open(path: &Path) -> Result<Self> {
        let open = OpenOptions::new().read(true).write(true).open(path);
        let file = open.with_context(|| format!("open {}", path.display()))?;
        let mut sector = [0; SECTOR as usize];
        file.read_exact_at(&mut sector, SECTOR).context("read the partition table")?;
        let header = Header::decode(&sector, 1).context("partition table")?;
        let (offset, length) = header.entries_range();
        let mut entries = vec![0; length];
        file.read_exact_at(&mut entries, offset).context("read the partition table's entries")?;
        let table = header.with_entries(&entries).context("partition table")?;
        Ok(Self { file, path: path.into(), table })
    }

    /// Offset and length of a partition, in bytes.
    ///
    /// # Errors
    /// When the disk does not have it.
    pub fn partition(&self, kind: PartitionKind) -> Result<(u64, u64)> {
        let entry = self.table.find(kind);
        let entry =
            entry.with_context(|| format!("no partition {} on {}", kind.name(), self.path.display()))?;
        Ok((entry.offset(), entry.length()))
    }

    /// Puts `site` into the seed partition, as `cargo xtask image --site` does, and with `join` user and password to join a domain,
    /// as `cargo xtask flash --join`.
    ///
    /// # Errors
    /// When it does not fit, or any I/O error.
    pub fn write_seed(&self, site: &str, join: Option<&str>) -> Result<()> {
        let content = xtask::image::seed::seed(site, join, 0)?;
        self.write(PartitionKind::Seed, &content)
    }

    /// Puts `site` and an order to install into the seed partition, as `cargo xtask flash --install` does.
    ///
    /// # Errors
    /// When it does not fit, or any I/O error.
    pub fn write_order(&self, site: &str, order: &Order) -> Result<()> {
        self.write(PartitionKind::Seed, &xtask::image::seed::installing(Some((site, None)), order, 0)?)
    }

    /// What the first sector of a partition holds.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn first_sector(&self, kind: PartitionKind) -> Result<[u8; SECTOR as usize]> {
        let (offset, _) = self.partition(kind)?;
        let mut sector = [0; SECTOR as usize];
        self.file.read_exact_at(&mut sector, offset).context("read a sector")?;
        Ok(sector)
    }

    /// Overwrites the first `length` bytes of a partition (all of it at most) with this byte.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn overwrite(&self, kind: PartitionKind, length: u64, byte: u8) -> Result<()> {
        let (offset, whole) = self.partition(kind)?;
        let filler = vec![byte; 1 << 20];
        let mut at = 0;
        while at < length.min(whole) {
            let count = usize::try_from((length.min(whole) - at).min(filler.len() as u64))?;
            self.file.write_all_at(&filler[..count], offset + at).context("overwrite a partition")?;
            at += count as u64;
        }
        Ok(())
    }

    /// Takes partitions out of the table, as somebody with a partitioning tool may.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn remove_partitions(&self, kinds: &[PartitionKind]) -> Result<()> {
        let mut table = self.table.clone();
        table.entries.retain(|entry| entry.kind().is_none_or(|kind| !kinds.contains(&kind)));
        let size = self.file.metadata()?.len();
        let both = kontor_boot::growth::plan(&table, size).context("partition table")?;
        for copy in [&both.backup, &both.primary] {
            self.file.write_all_at(&copy.encode_header(), copy.my_lba * SECTOR)?;
            self.file.write_all_at(&copy.encode_entries(), copy.entries_lba * SECTOR)?;
        }
        Ok(())
    }

    /// The boot state.
    ///
    /// # Errors
    /// When the sector does not hold one.
    pub fn boot_state(&self) -> Result<BootState> {
        BootState::decode(&self.first_sector(PartitionKind::BootState)?).context("boot state")
    }

    /// Replaces the boot state.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn set_boot_state(&self, state: &BootState) -> Result<()> {
        self.write(PartitionKind::BootState, &state.encode())
    }

    /// Zeroes a whole slot: nothing in it can be loaded.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn erase_slot(&self, slot: Slot) -> Result<()> {
        let (offset, length) = self.partition(slot_partition(slot))?;
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < length {
            let count = usize::try_from((length - at).min(zeros.len() as u64))?;
            self.file.write_all_at(&zeros[..count], offset + at).context("erase the slot")?;
            at += count as u64;
        }
        Ok(())
    }

    /// Overwrites the start of the slot's initrd, where it lies on the disk: the boot loader loads it, the
    /// kernel finds no program in it.
    ///
    /// # Errors
    /// When no initrd is found, or any I/O error.
    pub fn spoil_initrd(&self, slot: Slot) -> Result<()> {
        let (offset, length) = self.partition(slot_partition(slot))?;
        let start = self.find_initrd(offset, length)?;
        self.file.write_all_at(&vec![0xa5; 1 << 20], start).context("spoil the initrd")
    }

    /// Flips a bit of the first component's image, this far in it.
    ///
    /// # Errors
    /// When there is no image on the system partition, or any I/O error.
    pub fn flip_in_component(&self, at: u64) -> Result<()> {
        // The superblock of EROFS, after a boot block.
        const MAGIC: (u64, [u8; 4]) = (1024, [0xe2, 0xe1, 0xf5, 0xe0]);
        let (offset, length) = self.partition(PartitionKind::System)?;
        let mut begins = [0; 4];
        for block in (0..length).step_by(4096) {
            self.file.read_exact_at(&mut begins, offset + block + MAGIC.0).context("search the image")?;
            if begins == MAGIC.1 {
                let place = offset + block + at;
                let mut byte = [0];
                self.file.read_exact_at(&mut byte, place)?;
                byte[0] ^= 0x10;
                return self.file.write_all_at(&byte, place).context("flip a bit of the image");
            }
        }
        bail!("no image of a component on {}", self.path.display())
    }

    /// The first block of the slot that begins like a newc archive: file data begins on block boundaries.
    fn find_initrd(&self, offset: u64, length: u64) -> Result<u64> {
        const BLOCK: usize = 1024;
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < length {
            let count = usize::try_from((length - at).min(buffer.len() as u64))?;
            self.file.read_exact_at(&mut buffer[..count], offset + at).context("search the initrd")?;
            let found = buffer[..count].chunks(BLOCK).position(|block| block.starts_with(b"070701"));
            if let Some(index) = found {
                return Ok(offset + at + (index * BLOCK) as u64);
            }
            at += count as u64;
        }
        bail!("no initrd in the slot at {offset} of {}", self.path.display())
    }

    fn write(&self, kind: PartitionKind, content: &[u8]) -> Result<()> {
        let (offset, length) = self.partition(kind)?;
        ensure!(content.len() as u64 <= length, "{} bytes do not fit into {}", content.len(), kind.name());
        let written = self.file.write_all_at(content, offset);
        written.with_context(|| format!("write {} of {}", kind.name(), self.path.display()))
    }
}

const fn slot_partition(slot: Slot) -> PartitionKind {
    match slot {
        Slot::A => PartitionKind::SlotA,
        Slot::B => PartitionKind::SlotB,
    }
}
