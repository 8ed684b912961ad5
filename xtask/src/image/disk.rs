//! The disk image: partition table, GRUB's boot code, and every partition's content.
//!
//! Written sparsely under a temporary name and renamed when it is complete and synced: an interrupted build or
//! a full disk never leaves half an image under the final name.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::gpt::{Entry, SECTOR, Table, protective_mbr};
use kontor_boot::partition::{BOOTSTATE_SIZE, Guid, LAYOUT, PartitionKind, SEED_SIZE};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};
use sha2::{Digest, Sha256};

use super::declaration::PartitionSizes;
use crate::scratch;

const MIB: u64 = 1 << 20;
/// Sectors of one copy of the entry array (128 entries of 128 bytes).
const ENTRY_SECTORS: u64 = 32;
/// Partitions begin on whole mebibytes, as every partitioner does (flash erase blocks, 4Kn disks).
const ALIGNMENT: u64 = MIB;
/// How the names of unfinished images begin.
const UNFINISHED: &str = ".kontor-image-";
/// Zero runs of this length become holes.
const HOLE: usize = 64 << 10;

static ZEROS: [u8; HOLE] = [0; HOLE];

/// What goes into a partition; what is not given stays zero.
#[derive(Debug)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The bytes of this file.
    File(Utf8PathBuf),
}

/// GRUB's parts for BIOS machines.
#[derive(Debug)]
pub struct BiosBoot {
    /// `boot.img`, one sector.
    pub boot: Vec<u8>,
    /// `core.img`.
    pub core: Vec<u8>,
}

/// The unique GUID of a partition: the same in every image, so that images are reproducible.
#[must_use]
pub fn unique_guid(kind: PartitionKind) -> Guid {
    named_guid(&format!("partition {}", kind.name()))
}

/// A GUID derived from a name (RFC 9562, version 8).
#[must_use]
pub fn named_guid(name: &str) -> Guid {
    let digest = Sha256::digest(format!("kontor {name}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Guid(bytes)
}

/// The primary partition table for these sizes.
#[must_use]
pub fn layout(sizes: &PartitionSizes) -> Table {
    let mut next = ALIGNMENT;
    let mut entries = Vec::new();
    for (number, kind) in (1..).zip(LAYOUT) {
        let size = partition_size(kind, sizes);
        let mut name = [0; 36];
        for (unit, letter) in name.iter_mut().zip(kind.name().encode_utf16()) {
            *unit = letter;
        }
        entries.push(Entry {
            number,
            type_guid: kind.type_guid(),
            unique: unique_guid(kind),
            first_lba: next / SECTOR,
            last_lba: (next + size) / SECTOR - 1,
            attributes: 0,
            name,
        });
        next += size.next_multiple_of(ALIGNMENT);
    }
    // The second copy of the table has the last mebibyte.
    let last_lba = (next + ALIGNMENT) / SECTOR - 1;
    Table {
        disk: named_guid("disk"),
        my_lba: 1,
        alternate_lba: last_lba,
        first_usable_lba: 2 + ENTRY_SECTORS,
        last_usable_lba: last_lba - ENTRY_SECTORS - 1,
        entries_lba: 2,
        entry_count: 128,
        entries,
    }
}

fn partition_size(kind: PartitionKind, sizes: &PartitionSizes) -> u64 {
    match kind {
        PartitionKind::Bios => sizes.bios * MIB,
        PartitionKind::Esp => sizes.esp * MIB,
        PartitionKind::BootState => BOOTSTATE_SIZE,
        PartitionKind::Seed => SEED_SIZE,
        PartitionKind::SlotA | PartitionKind::SlotB => sizes.slot * MIB,
        PartitionKind::System => sizes.system * MIB,
        PartitionKind::State => sizes.state * MIB,
        PartitionKind::Data => sizes.data * MIB,
    }
}

/// Writes the whole image to `path`.
///
/// # Errors
/// When something does not fit or cannot be written; `path` is then as it was.
pub fn write(
    path: &Utf8Path,
    table: &Table,
    bios: &BiosBoot,
    contents: &[(PartitionKind, Content)],
) -> Result<()> {
    let directory = path.parent().with_context(|| format!("{path} has no directory"))?;
    // `disk.img` alone: the directory it means has no name here.
    let directory = if directory.as_str().is_empty() { Utf8Path::new(".") } else { directory };
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {directory}"))?;
    scratch::sweep(directory, UNFINISHED);
    // A seed holds the operator's password hash; without one there is nothing to hide.
    let secret = contents.iter().any(|(kind, _)| *kind == PartitionKind::Seed);
    let (mut temporary, _claim) = scratch::file(directory, UNFINISHED, if secret { 0o600 } else { 0o666 })?;
    fill(temporary.as_file_mut(), table, bios, contents).with_context(|| format!("cannot write {path}"))?;
    temporary.as_file().sync_all().with_context(|| format!("cannot write {path}"))?;
    temporary.persist(path).with_context(|| format!("cannot rename to {path}"))?;
    Ok(())
}

/// Writes a partition's content to a file, sparsely.
///
/// # Errors
/// When it cannot be written.
pub fn write_file(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.set_len(bytes.len() as u64)?;
        write_sparse(&mut file, 0, &mut &*bytes)
    };
    write().with_context(|| format!("cannot write {path}"))
}

fn fill(
    file: &mut File,
    table: &Table,
    bios: &BiosBoot,
    contents: &[(PartitionKind, Content)],
) -> Result<()> {
    file.set_len((table.alternate_lba + 1) * SECTOR)?;
    let backup = backup_of(table);
    for copy in [table, &backup] {
        write_at(file, copy.entries_lba * SECTOR, &copy.encode_entries())?;
        write_at(file, copy.my_lba * SECTOR, &copy.encode_header())?;
    }
    let core = table.find(PartitionKind::Bios).context("no BIOS partition in the layout")?;
    ensure!(
        bios.core.len() as u64 <= core.length(),
        "GRUB's core of {} bytes does not fit its partition",
        bios.core.len()
    );
    write_at(file, 0, &boot_sector(&bios.boot, table.alternate_lba, core.first_lba)?)?;
    write_at(file, core.offset(), &located_core(&bios.core, core.first_lba)?)?;
    for (kind, content) in contents {
        let entry =
            table.find(*kind).with_context(|| format!("no partition {} in the layout", kind.name()))?;
        write_content(file, entry, content).with_context(|| format!("partition {}", kind.name()))?;
    }
    Ok(())
}

fn backup_of(table: &Table) -> Table {
    let mut backup = table.clone();
    backup.my_lba = table.alternate_lba;
    backup.alternate_lba = table.my_lba;
    backup.entries_lba = table.alternate_lba - ENTRY_SECTORS;
    backup
}

/// GRUB's first sector inside a protective MBR (UEFI 2.10, 5.2.3).
fn boot_sector(boot: &[u8], last_lba: u64, core_lba: u64) -> Result<[u8; 512]> {
    ensure!(boot.len() == 512, "GRUB's boot.img is {} bytes, not one sector", boot.len());
    let mut sector = [0; 512];
    sector[..0x1b8].copy_from_slice(&boot[..0x1b8]);
    sector[0x5c..0x64].copy_from_slice(&core_lba.to_le_bytes());
    // Two NOPs let it believe the BIOS about the boot drive (grub-install does the same for hard disks).
    sector[0x66..0x68].copy_from_slice(&[0x90, 0x90]);
    protective_mbr(&mut sector, last_lba);
    Ok(sector)
}

/// `core.img` whose first sector knows where the rest of it lies.
fn located_core(core: &[u8], first_lba: u64) -> Result<Vec<u8>> {
    let rest = core.len().div_ceil(512) - 1;
    let rest = u16::try_from(rest).context("GRUB's core is too large for one block list")?;
    ensure!(core.len() > 512, "GRUB's core is only {} bytes", core.len());
    let mut located = core.to_vec();
    located[0x1f4..0x1fc].copy_from_slice(&(first_lba + 1).to_le_bytes());
    located[0x1fc..0x1fe].copy_from_slice(&rest.to_le_bytes());
    located[0x1fe..0x200].copy_from_slice(&0x820_u16.to_le_bytes());
    Ok(located)
}

fn write_content(file: &mut File, entry: &Entry, content: &Content) -> Result<()> {
    match content {
        Content::Bytes(bytes) => {
            ensure!(
                bytes.len() as u64 <= entry.length(),
                "{} bytes do not fit into {}",
                bytes.len(),
                entry.length()
            );
            write_sparse(file, entry.offset(), &mut bytes.as_slice())
        }
        Content::File(path) => {
            let source = File::open(path).with_context(|| format!("cannot open {path}"))?;
            let length = source.metadata()?.len();
            ensure!(length <= entry.length(), "{length} bytes do not fit into {}", entry.length());
            copy_data(file, entry.offset(), &source).with_context(|| format!("copying {path}"))
        }
    }
}

/// Copies what `source` holds; its holes are not even read.
fn copy_data(file: &mut File, offset: u64, source: &File) -> Result<()> {
    each_extent(source, |start, data| write_sparse(file, offset + start, data))
}

/// Calls `each` with the place and the bytes of everything between two holes.
fn each_extent(
    source: &File,
    mut each: impl FnMut(u64, &mut std::io::Take<&File>) -> Result<()>,
) -> Result<()> {
    let mut end = 0;
    while let Some(start) = seek(source, end, Whence::SeekData)? {
        // The end of a file counts as a hole.
        end = seek(source, start, Whence::SeekHole)?.context("no end of data")?;
        let mut reader = source;
        reader.seek(SeekFrom::Start(start))?;
        each(start, &mut reader.take(end - start))?;
    }
    Ok(())
}

/// `None` when there is nothing of that kind any more.
fn seek(file: &File, from: u64, whence: Whence) -> Result<Option<u64>> {
    match lseek64(file, from.try_into()?, whence) {
        Ok(at) => Ok(Some(at.try_into()?)),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write_sparse(file: &mut File, offset: u64, source: &mut impl Read) -> Result<()> {
    let mut block = Vec::with_capacity(HOLE);
    let mut at = offset;
    loop {
        block.clear();
        source.take(HOLE as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(());
        }
        // A comparison of slices is memcmp; a loop over a gigabyte takes long in an unoptimised builder.
        if block != ZEROS[..block.len()] {
            write_at(file, at, &block)?;
        }
        at += block.len() as u64;
    }
}

fn write_at(file: &mut File, offset: u64, bytes: &[u8]) -> Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    Ok(file.write_all(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: PartitionSizes = PartitionSizes { bios: 1, esp: 40, slot: 8, system: 8, state: 8, data: 16 };

    fn image(contents: &[(PartitionKind, Content)]) -> (tempfile::TempDir, Utf8PathBuf, Result<()>) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().join("disk.img")).unwrap();
        let bios = BiosBoot { boot: vec![0xeb; 512], core: vec![7; 1300] };
        let result = write(&path, &layout(&SIZES), &bios, contents);
        (directory, path, result)
    }

    #[test]
    fn another_implementation_reads_the_partition_table() {
        let (_directory, path, result) = image(&[]);
        result.unwrap();
        let disk = gpt::GptConfig::new().open(&path).unwrap();
        let names: Vec<&str> = disk.partitions().values().map(|partition| partition.name.as_str()).collect();
        assert_eq!(
            names,
            ["bios", "esp", "bootstate", "seed", "slot-a", "slot-b", "system", "state", "data"]
        );
        assert!(disk.primary_header().is_ok() && disk.backup_header().is_ok());
        let slots: Vec<u64> =
            disk.partitions().values().map(|partition| partition.first_lba % 2048).collect();
        assert_eq!(slots, [0; 9], "everything begins on a mebibyte");
    }

    #[test]
    fn the_boot_code_knows_where_its_rest_is() {
        let (_directory, path, result) = image(&[]);
        result.unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes[0x5c..0x64], 2048_u64.to_le_bytes());
        assert_eq!(bytes[0x66..0x68], [0x90, 0x90]);
        assert_eq!((bytes[450], &bytes[510..512]), (0xee, &[0x55, 0xaa][..]));
        let core = &bytes[1 << 20..];
        assert_eq!(core[0x1f4..0x1fc], 2049_u64.to_le_bytes());
        assert_eq!(core[0x1fc..0x200], [2, 0, 0x20, 0x08]);
    }

    #[test]
    fn contents_land_in_their_partitions() {
        let table = layout(&SIZES);
        let (_directory, path, result) = image(&[(PartitionKind::Seed, Content::Bytes(b"seed".to_vec()))]);
        result.unwrap();
        let bytes = std::fs::read(path).unwrap();
        let at = usize::try_from(table.find(PartitionKind::Seed).unwrap().offset()).unwrap();
        assert_eq!(&bytes[at..at + 6], b"seed\0\0");
    }

    #[test]
    fn files_are_copied_with_their_holes() {
        let source = tempfile::NamedTempFile::new().unwrap();
        source.as_file().set_len(6 << 20).unwrap();
        for at in [0, 3 << 20, (6 << 20) - 4] {
            std::os::unix::fs::FileExt::write_all_at(source.as_file(), b"data", at).unwrap();
        }
        let content = Content::File(Utf8PathBuf::from_path_buf(source.path().to_owned()).unwrap());
        let (_directory, path, result) = image(&[(PartitionKind::SlotA, content)]);
        result.unwrap();
        let bytes = std::fs::read(path).unwrap();
        let at = usize::try_from(layout(&SIZES).find(PartitionKind::SlotA).unwrap().offset()).unwrap();
        assert!(bytes[at..at + (6 << 20)] == std::fs::read(source.path()).unwrap());
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let too_large = Content::Bytes(vec![1; (8 << 20) + 1]);
        let (directory, path, result) = image(&[(PartitionKind::SlotA, too_large)]);
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains("partition slot-a: 8388609 bytes do not fit into 8388608"), "{error}");
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_image_with_secrets_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_directory, path, result) = image(&[(PartitionKind::Seed, Content::Bytes(b"seed".to_vec()))]);
        result.unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_a_killed_build_left_is_removed() {
        let (directory, path, result) = image(&[]);
        result.unwrap();
        std::fs::write(directory.path().join(".kontor-image-dead"), "half").unwrap();
        let bios = BiosBoot { boot: vec![0xeb; 512], core: vec![7; 1300] };
        write(&path, &layout(&SIZES), &bios, &[]).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn guids_never_change() {
        assert_eq!(unique_guid(PartitionKind::BootState), named_guid("partition bootstate"));
        insta::assert_snapshot!(unique_guid(PartitionKind::BootState), @"DD172B50-E15E-8FA7-AE43-3FF967AAE535");
    }
}
