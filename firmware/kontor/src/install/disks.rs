//! The machine's disks, as the kernel shows them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context as _;
use kontor_boot::PartitionKind;
use kontor_boot::filesystem::STATE_MARK;
use kontor_boot::gpt::{SECTOR, Table};
use kontor_boot::install::identity;
use kontor_boot::target::{Candidate, Contents};
use kontor_sys::block;
use nix::fcntl::OFlag;

use crate::storage::Disk;
use crate::storage::disk::{is_on_usb, is_ours, is_removable, may_be_disk, read_table};

const BLOCKS: &str = "/sys/block";
/// Disks that are made of others, or of nothing.
const NEVER: [&str; 3] = ["nbd", "dm-", "md"];
/// An area at either end in which any use of the disk leaves something.
const PROBED: usize = 1 << 20;

/// Names of all that may be disks.
pub(super) fn names() -> Vec<String> {
    let entries = fs::read_dir(BLOCKS).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_disk = |name: &String| {
        may_be_disk(name)
            // Of a card: its boot areas, which are disks of their own to the kernel.
            && !name.contains("boot")
            && !NEVER.iter().any(|kind| name.starts_with(kind))
            && number(&Path::new(BLOCKS).join(name).join("size")) > 0
    };
    let mut names: Vec<String> = names.filter(is_disk).collect();
    names.sort();
    names
}

/// All disks, the one that the box runs from among them.
pub(super) fn all(running: &Disk) -> Vec<Candidate> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    names().into_iter().map(|name| candidate(name, running.device(), &mounts)).collect()
}

/// As it is now.
pub(super) fn again(disk: &Candidate, running: &Disk) -> Candidate {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    candidate(disk.name.clone(), running.device(), &mounts)
}

fn candidate(name: String, running: &Path, mounts: &str) -> Candidate {
    let place = Path::new(BLOCKS).join(&name);
    let text = |file: &str| fs::read_to_string(place.join(file)).unwrap_or_default().trim().to_owned();
    let device = Path::new("/dev").join(&name);
    Candidate {
        // In 512 bytes, whatever the disk does.
        bytes: number(&place.join("size")) * 512,
        model: text("device/model"),
        running: device == running,
        usb: is_on_usb(&place),
        removable: is_removable(&place),
        read_only: text("ro") == "1",
        block: number(&place.join("queue/logical_block_size")),
        mounted: mounted(mounts, &name),
        contents: contents(&device),
        name,
    }
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Where the disk or a partition of it is mounted, by mountinfo (proc(5)).
fn mounted(mounts: &str, name: &str) -> Option<String> {
    let is_part = |device: &str| {
        let rest = device.strip_prefix("/dev/").and_then(|device| device.strip_prefix(name));
        rest.is_some_and(|rest| rest.trim_start_matches('p').bytes().all(|byte| byte.is_ascii_digit()))
    };
    let line = mounts.lines().find(|line| {
        let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
        source.is_some_and(is_part)
    })?;
    line.split(' ').nth(4).map(str::to_owned)
}

fn contents(device: &Path) -> Contents {
    File::open(device)
        .and_then(|file| look(&file))
        .unwrap_or_else(|error| Contents::Unreadable(error.to_string()))
}

/// What is on a disk.
fn look(disk: &File) -> io::Result<Contents> {
    let size = block::size(disk)?;
    let (mut start, mut end) = (vec![0; PROBED], vec![0; PROBED]);
    disk.read_exact_at(&mut start, 0)?;
    disk.read_exact_at(&mut end, size.saturating_sub(PROBED as u64))?;
    // The boot sector comes last: with a table of ours and without it, an installation was cut short, unless somebody has served an
    // office from there.
    let has_boot_sector = start[510..512] == [0x55, 0xaa];
    let table = read_table(disk)?;
    if let Some(table) = &table
        && is_ours(table)
        && let Some(identity) = identity(table)
    {
        let office = has_state(disk, table)?;
        let is_finished = has_boot_sector || office;
        return Ok(if is_finished { Contents::Kontor { identity, office } } else { Contents::Empty });
    }
    let is_empty = start.iter().chain(&end).all(|byte| *byte == 0);
    Ok(match table {
        Some(table) => Contents::Partitions(table.entries.len()),
        None if is_empty => Contents::Empty,
        None if has_boot_sector => Contents::Partitions(dos_partitions(&start)),
        None => Contents::Data,
    })
}

fn has_state(disk: &File, table: &Table) -> io::Result<bool> {
    let Some(state) = table.find(PartitionKind::State) else { return Ok(false) };
    let mut start = [0; SECTOR as usize];
    disk.read_exact_at(&mut start, state.offset())?;
    Ok(start.starts_with(STATE_MARK))
}

/// Entries of a DOS partition table that are used.
fn dos_partitions(sector: &[u8]) -> usize {
    sector[446..510].chunks(16).filter(|entry| entry[4] != 0).count()
}

/// For writing, with the kernel's word that nobody uses any of it (open(2), `O_EXCL` of a block device).
pub(super) fn open(device: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlag::O_EXCL.bits());
    options.open(device).with_context(|| format!("{} (in use?)", device.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::table::tests::image;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_on_a_disk_is_seen_at_either_end() {
        let disk = |at: Option<u64>, bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(8 * MIB).unwrap();
            if let Some(at) = at {
                file.write_all_at(bytes, at).unwrap();
            }
            look(&file).unwrap()
        };
        assert_eq!(disk(None, &[]), Contents::Empty);
        assert_eq!(disk(Some(0x438), &[0x53, 0xef]), Contents::Data);
        assert_eq!(disk(Some(8 * MIB - 512), b"raid"), Contents::Data);
        let mut dos = [0; 512];
        (dos[446 + 4], dos[462 + 4]) = (0x0c, 0x83);
        dos[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(disk(Some(0), &dos), Contents::Partitions(2));
    }

    #[test]
    fn a_disk_of_ours_without_its_boot_sector_was_never_finished() {
        let file = image(20 * MIB);
        assert_eq!(look(&file).unwrap(), Contents::Empty);
        file.write_all_at(&[0x55, 0xaa], 510).unwrap();
        let table = read_table(&file).unwrap().unwrap();
        let identity = identity(&table).unwrap();
        assert_eq!(look(&file).unwrap(), Contents::Kontor { identity, office: false });
        file.write_all_at(STATE_MARK, table.find(PartitionKind::State).unwrap().offset()).unwrap();
        for boot_sector in [[0x55, 0xaa], [0, 0]] {
            file.write_all_at(&boot_sector, 510).unwrap();
            assert_eq!(look(&file).unwrap(), Contents::Kontor { identity, office: true });
        }
    }

    #[test]
    fn a_mount_of_any_partition_counts_and_of_no_other_disk() {
        let mounts = "36 25 8:1 / /run/a rw - vfat /dev/sda1 rw\n37 25 8:1 / /b rw - ext4 /dev/nvme0n1p3 ro\n\
                      38 25 0:1 / /c rw - tmpfs tmpfs rw\n39 25 8:9 / /d rw - ext4 /dev/sdab rw\n";
        let of = |name: &str| mounted(mounts, name);
        assert_eq!([of("sda").as_deref(), of("nvme0n1").as_deref()], [Some("/run/a"), Some("/b")]);
        assert_eq!([of("sdaa"), of("sdb"), of("nvme0n2"), of("tmpfs")], [const { None }; 4]);
        assert_eq!(of("sdab").as_deref(), Some("/d"));
    }
}
