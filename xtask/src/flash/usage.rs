//! Whether anybody uses a disk: mounts, swap, and whatever the kernel has stacked on it (LVM, RAID, encryption).
//!
//! Read from /proc and /sys, whose places are arguments, so that tests bring their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Mount points that make a disk the one this system runs from.
const SYSTEM_MOUNTS: [&str; 5] = ["/", "/boot", "/boot/efi", "/usr", "/var"];

/// Where the kernel tells about disks.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// /proc
    pub proc: PathBuf,
    /// /sys
    pub sys: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

/// A block device as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// `sda`
    pub name: String,
    /// Vendor and model, as far as known.
    pub model: String,
    /// Serial number, as far as known.
    pub serial: String,
    /// Size.
    pub bytes: u64,
    /// Switched to read-only, by hand or by a slider.
    pub read_only: bool,
    /// Whether it can be pulled out.
    pub removable: bool,
    /// Partitions by name, with their sizes.
    pub partitions: Vec<(String, u64)>,
    /// The disk of which it is a partition.
    pub parent: Option<String>,
}

impl Kernel {
    /// What is known about the block device with this `MAJOR:MINOR`.
    ///
    /// # Errors
    /// When the kernel has no such device.
    pub fn device(&self, number: &str) -> Result<BlockDevice> {
        let link = self.sys.join("dev/block").join(number);
        let directory =
            fs::canonicalize(&link).with_context(|| format!("the kernel has no block device {number}"))?;
        let name = file_name(&directory);
        let read =
            |path: &str| fs::read_to_string(directory.join(path)).unwrap_or_default().trim().to_owned();
        let parent = directory.join("partition").exists().then(|| directory.parent().map(file_name));
        let model = format!("{} {}", read("device/vendor"), read("device/model"));
        Ok(BlockDevice {
            model: model.trim().to_owned(),
            serial: read("device/serial"),
            bytes: sectors(&read("size")),
            read_only: read("ro") == "1",
            removable: read("removable") == "1",
            partitions: self.partitions(&name),
            parent: parent.flatten(),
            name,
        })
    }

    fn partitions(&self, disk: &str) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.sys.join("class/block").join(disk)).into_iter().flatten().flatten();
        let partitions = entries.map(|entry| entry.path()).filter(|path| path.join("partition").exists());
        let size = |path: &PathBuf| sectors(fs::read_to_string(path.join("size")).unwrap_or_default().trim());
        let mut partitions: Vec<_> = partitions.map(|path| (file_name(&path), size(&path))).collect();
        partitions.sort();
        partitions
    }

    /// Every reason not to write to this disk, for people.
    #[must_use]
    pub fn uses(&self, disk: &BlockDevice) -> Vec<String> {
        let names = self.stacked(disk);
        let mut uses = Vec::new();
        for (source, point) in self.mounts() {
            if !names.contains(&source) {
                continue;
            }
            uses.push(match SYSTEM_MOUNTS.contains(&point.as_str()) {
                true => format!("this system runs from it: {source} is mounted on {point}"),
                false => format!("{source} is mounted on {point}"),
            });
        }
        uses.extend(
            self.swaps()
                .filter(|source| names.contains(source))
                .map(|source| format!("{source} is swap space")),
        );
        let own: BTreeSet<&String> =
            disk.partitions.iter().map(|(name, _)| name).chain([&disk.name]).collect();
        let holders = names.iter().filter(|name| !own.contains(name));
        uses.extend(holders.map(|name| format!("{name} is built on it (LVM, RAID or encryption)")));
        uses
    }

    /// The disk, its partitions, and everything built on them.
    fn stacked(&self, disk: &BlockDevice) -> BTreeSet<String> {
        let mut pending = vec![disk.name.clone()];
        pending.extend(disk.partitions.iter().map(|(name, _)| name.clone()));
        let mut names = BTreeSet::new();
        while let Some(name) = pending.pop() {
            let holders = fs::read_dir(self.sys.join("class/block").join(&name).join("holders"));
            pending.extend(holders.into_iter().flatten().flatten().map(|entry| file_name(&entry.path())));
            names.insert(name);
        }
        names
    }

    /// Device names and mount points. Both what a mount was asked for with and what its number says count: the
    /// first may be a link, the second is an anonymous one for btrfs.
    fn mounts(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.proc.join("self/mountinfo")).unwrap_or_default();
        let mut mounts = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let separator = words.iter().position(|word| *word == "-");
            let (Some(number), Some(point)) = (words.get(2), words.get(4)) else { continue };
            let source = separator.and_then(|at| words.get(at + 2)).unwrap_or(&"");
            let by_number =
                fs::canonicalize(self.sys.join("dev/block").join(number)).map(|path| file_name(&path));
            let names: BTreeSet<String> = by_number.into_iter().chain(self.device_name(source)).collect();
            mounts.extend(names.into_iter().map(|name| (name, unescape(point))));
        }
        mounts
    }

    fn swaps(&self) -> impl Iterator<Item = String> {
        let text = fs::read_to_string(self.proc.join("swaps")).unwrap_or_default();
        let sources: Vec<String> = text
            .lines()
            .skip(1)
            .filter_map(|line| self.device_name(line.split_whitespace().next()?))
            .collect();
        sources.into_iter()
    }

    /// The kernel's name of a device node, links followed; nothing when the text is no block device's path.
    fn device_name(&self, source: &str) -> Option<String> {
        let source = unescape(source);
        let path = fs::canonicalize(&source).unwrap_or_else(|_| source.into());
        let name = path.strip_prefix("/dev").ok().map(|_| file_name(&path))?;
        self.sys.join("class/block").join(&name).exists().then_some(name)
    }

    /// Loop devices behind which this file is.
    #[must_use]
    pub fn loops_on(&self, file: &std::path::Path) -> Vec<String> {
        let entries = fs::read_dir(self.sys.join("class/block")).into_iter().flatten().flatten();
        let backed = |path: &PathBuf| {
            let backing = fs::read_to_string(path.join("loop/backing_file")).unwrap_or_default();
            std::path::Path::new(backing.trim_end()) == file
        };
        entries.map(|entry| entry.path()).filter(backed).map(|path| file_name(&path)).collect()
    }
}

/// The kernel counts in 512 bytes, whatever the disk does.
fn sectors(text: &str) -> u64 {
    text.parse::<u64>().unwrap_or(0) * 512
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Spaces and the like are octal in /proc's tables.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, letter)| text.replace(code, letter))
}

#[cfg(test)]
#[path = "usage/tests.rs"]
pub(super) mod tests;
