//! Finding Kontor's disk among those that are there or about to appear.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kontor_boot::gpt::{Header, SECTOR, Table};
use kontor_boot::install::identity;
use kontor_boot::{Guid, PartitionKind};
use kontor_sys::block;
use kontor_sys::uevent::{UeventSocket, wait_readable};

/// A lost announcement costs at most this.
const LOOK_AGAIN_MS: u16 = 500;
/// What makes a disk ours, one of each. Without `state` it still boots the box and knows the office's site.
const REQUIRED: [PartitionKind; 3] = [PartitionKind::BootState, PartitionKind::SlotA, PartitionKind::SlotB];

/// A disk with Kontor's partitions.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// `/dev/sda`
    pub(super) device: PathBuf,
    /// Its table: the primary copy, or the backup when the primary is damaged.
    pub(super) table: Table,
    /// Can be pulled out, or is attached by USB.
    is_removable: bool,
    is_on_usb: bool,
}

impl Disk {
    /// Opens a device and reads its table.
    pub(super) fn open(device: &Path) -> anyhow::Result<Self> {
        let file = File::open(device).with_context(|| device.display().to_string())?;
        let table = read_table(&file)?.context("no partition table")?;
        let name = device.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let place = Path::new("/sys/block").join(name);
        let (is_removable, is_on_usb) = (is_removable(&place), is_on_usb(&place));
        Ok(Self { device: device.to_owned(), table, is_removable, is_on_usb })
    }

    /// `/dev/sda`
    pub(crate) fn device(&self) -> &Path {
        &self.device
    }

    /// Its partitions.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Whether the box it is in may be meant to have it only for a while.
    pub(crate) fn is_stick(&self) -> bool {
        self.is_removable || self.is_on_usb
    }

    /// The same disk after its table was changed.
    pub(super) fn with_table(&self, table: Table) -> Self {
        Self { table, ..self.clone() }
    }

    fn is_ours(&self) -> bool {
        is_ours(&self.table)
    }

    fn has_state(&self) -> bool {
        self.table.find(PartitionKind::State).is_some()
    }

    /// The device node that the kernel makes last.
    fn last_node(&self) -> Option<PathBuf> {
        let number = self.table.entries.iter().map(|entry| entry.number).max();
        number.map(|number| partition_node(&self.device, number))
    }

    /// The device node of a partition.
    pub(crate) fn partition(&self, kind: PartitionKind) -> anyhow::Result<PathBuf> {
        let entry = self.table.find(kind).with_context(|| format!("no partition `{}`", kind.name()))?;
        Ok(partition_node(&self.device, entry.number))
    }
}

/// Whether a disk with this table is one of Kontor's.
pub(crate) fn is_ours(table: &Table) -> bool {
    REQUIRED.into_iter().all(|kind| table.find(kind).is_some())
}

/// Whether the disk with this directory in /sys/block can be pulled out: sticks and cards, not USB hard disks. The kernel does not
/// say so of SD cards, whose sockets are wired in many ways.
pub(crate) fn is_removable(place: &Path) -> bool {
    let says =
        |file: &str, word: &str| fs::read_to_string(place.join(file)).is_ok_and(|text| text.trim() == word);
    says("removable", "1") || says("device/type", "SD")
}

/// By the way to it: `…/usb2/2-1/…/block/sda`.
pub(crate) fn is_on_usb(place: &Path) -> bool {
    let path = fs::canonicalize(place).unwrap_or_default();
    path.iter().any(|part| part.to_string_lossy().starts_with("usb"))
}

/// `/dev/sda` 3 is `/dev/sda3`, `/dev/nvme0n1` 3 is `/dev/nvme0n1p3`.
fn partition_node(device: &Path, number: u32) -> PathBuf {
    let name = device.to_string_lossy();
    let separator = if name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    format!("{name}{separator}{number}").into()
}

/// Waits until our disk and the node of its last partition are there; nothing when `patience` is up.
///
/// It is the one that the boot loader has started from, and never another one: a stick beside the internal disk that was made of
/// it has the same partitions. Where that is not known (a boot loader of an early image), or of several that look the same to it, one
/// with `state` is preferred, then a fixed one to a stick, then the first by name; the choice is reported, as it may be the wrong one.
pub(super) fn wait(
    patience: Duration,
    booted: Option<Guid>,
    problems: &mut Vec<String>,
) -> anyhow::Result<Option<Disk>> {
    let events = UeventSocket::open().context("cannot listen for disks")?;
    let deadline = Instant::now() + patience;
    loop {
        let mut found = scan();
        found.retain(|disk| booted.is_none() || identity(&disk.table) == booted);
        found.sort_by_key(|disk| (!disk.has_state(), disk.is_removable, disk.is_on_usb, disk.device.clone()));
        let complete = |disk: &Disk| disk.last_node().is_some_and(|node| node.exists());
        let late = Instant::now() >= deadline;
        if let Some(disk) = found.first().filter(|disk| complete(disk) || late) {
            if found.len() > 1 {
                let names: Vec<String> = found.iter().map(|disk| disk.device.display().to_string()).collect();
                problems.push(format!("several Kontor disks ({}): using the first", names.join(", ")));
            }
            return Ok(Some(disk.clone()));
        }
        if late {
            return Ok(None);
        }
        wait_readable(events.as_fd(), LOOK_AGAIN_MS)?;
        // What is announced is looked at by the next scan; lost announcements are made up for by it too.
        while let Ok(Some(_)) = events.next() {}
    }
}

fn scan() -> Vec<Disk> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let disks = names.filter(|name| may_be_disk(name));
    let disks = disks.filter_map(|name| Disk::open(&Path::new("/dev").join(name)).ok());
    disks.filter(Disk::is_ours).collect()
}

/// Whether a block device of this name may be a disk, or a part of one.
pub(crate) fn may_be_disk(name: &str) -> bool {
    !["loop", "ram", "zram", "sr", "fd"].iter().any(|kind| name.starts_with(kind))
}

/// The table of a disk; nothing when neither copy is valid.
pub(crate) fn read_table(file: &File) -> io::Result<Option<Table>> {
    if let Some(primary) = read_copy(file, 1)? {
        return Ok(Some(primary));
    }
    let last = (block::size(file)? / SECTOR).saturating_sub(1);
    read_copy(file, last)
}

/// One copy, if it is valid.
pub(super) fn read_copy(file: &File, lba: u64) -> io::Result<Option<Table>> {
    let mut block = [0; SECTOR as usize];
    if read_short(file, &mut block, lba.saturating_mul(SECTOR))? < block.len() {
        return Ok(None);
    }
    let Ok(header) = Header::decode(&block, lba) else { return Ok(None) };
    let (offset, length) = header.entries_range();
    let mut entries = vec![0; length];
    let length = read_short(file, &mut entries, offset)?;
    Ok(header.with_entries(&entries[..length]).ok())
}

/// Reads up to the end of the file.
fn read_short(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            length => done += length,
        }
    }
    Ok(done)
}

/// Opens a device for writing in place.
pub(super) fn open_writable(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().read(true).write(true).open(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_nodes_are_named_as_the_kernel_does() {
        assert_eq!(partition_node(Path::new("/dev/sda"), 3), Path::new("/dev/sda3"));
        assert_eq!(partition_node(Path::new("/dev/nvme0n1"), 8), Path::new("/dev/nvme0n1p8"));
        assert_eq!(partition_node(Path::new("/dev/mmcblk0"), 1), Path::new("/dev/mmcblk0p1"));
        assert_eq!(partition_node(Path::new("/dev/vda"), 8), Path::new("/dev/vda8"));
    }

    #[test]
    fn a_disk_without_a_table_or_shorter_than_one_has_none() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read_table(&file).unwrap(), None);
        file.set_len(1 << 20).unwrap();
        assert_eq!(read_table(&file).unwrap(), None);
    }
}
