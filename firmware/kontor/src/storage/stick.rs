//! A stick with a repository of releases: found among the file systems that are not the box's own, mounted for reading until
//! another one is asked for, or the box restarts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::disk::may_be_disk;
use super::{chosen_disk, is_mounted};

/// Where it is mounted, in a folder of its device's name.
const MOUNT_POINTS: &str = "/run/kontor/stick";
/// File systems of sticks, and with what they are mounted: the children that read have no rights; an untidy one is not repaired, and
/// one that asks for a panic gets none.
const KINDS: [(&str, &str); 2] = [("vfat", "umask=022"), ("ext4", "noload,errors=continue")];
/// Where on it the repository may be.
const FOLDERS: [&str; 2] = ["", "kontor"];
/// What makes a folder a repository.
const METADATA: &str = "metadata/timestamp.json";
/// Disks that nobody has plugged in.
const NEVER: [&str; 2] = ["nbd", "dm-"];

/// The first stick with a repository, mounted; the repository's folder.
///
/// # Errors
/// When there is none; what was looked at is said.
pub(crate) fn with_repository() -> anyhow::Result<PathBuf> {
    let own =
        chosen_disk().ok().and_then(|disk| Some(disk.device.file_name()?.to_string_lossy().into_owned()));
    let devices = candidates(Path::new("/sys/class/block"), own.as_deref());
    release_gone(&devices);
    let mut looked_at = Vec::new();
    for device in devices {
        let mount_point = Path::new(MOUNT_POINTS).join(&device);
        fs::create_dir_all(&mount_point).with_context(|| mount_point.display().to_string())?;
        // Somebody may be reading from it.
        let is_new = !is_mounted(&mount_point.to_string_lossy());
        if is_new && let Err(error) = attach(&Path::new("/dev").join(&device), &mount_point) {
            release(&mount_point);
            looked_at.push(format!("{device} ({error})"));
            continue;
        }
        if let Some(folder) = repository(&mount_point) {
            return Ok(folder);
        }
        if is_new {
            release(&mount_point);
        }
        looked_at.push(format!("{device} (neither {METADATA} nor kontor/{METADATA})"));
    }
    match looked_at[..] {
        [] => bail!("there is no stick"),
        _ => bail!("no stick with a repository of releases: looked at {}", looked_at.join(", ")),
    }
}

/// Disks and partitions that are not on the box's own disk, by name.
fn candidates(class: &Path, own: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(class)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| own.is_none_or(|own| !is_part_of(&entry.path(), own)))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| may_be_disk(name) && !NEVER.iter().any(|kind| name.starts_with(kind)))
        .collect();
    names.sort();
    names
}

/// Whether this is the disk, or a partition, whose directory is in the disk's.
fn is_part_of(device: &Path, disk: &str) -> bool {
    let place = fs::canonicalize(device).unwrap_or_default();
    place.iter().any(|part| part == disk)
}

fn attach(device: &Path, mount_point: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mut last = Errno::ENODEV;
    for (kind, options) in KINDS {
        match mount(Some(device), mount_point, Some(kind), flags, Some(options)) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn release(mount_point: &Path) {
    let _ = umount2(mount_point, MntFlags::MNT_DETACH);
    let _ = fs::remove_dir(mount_point);
}

/// Those that have been pulled.
fn release_gone(devices: &[String]) {
    for entry in fs::read_dir(MOUNT_POINTS).into_iter().flatten().flatten() {
        if !devices.contains(&entry.file_name().to_string_lossy().into_owned()) {
            release(&entry.path());
        }
    }
}

fn repository(root: &Path) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| root.join(folder)).find(|folder| folder.join(METADATA).is_file())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_box_s_own_disk_is_no_stick() {
        let scratch = tempfile::tempdir().unwrap();
        let class = scratch.path().join("class");
        fs::create_dir(&class).unwrap();
        for place in ["pci/vda", "pci/vda/vda1", "pci/vdaa", "usb/sdb", "usb/sdb/sdb1", "virtual/loop0"] {
            let device = scratch.path().join(place);
            fs::create_dir_all(&device).unwrap();
            symlink(&device, class.join(device.file_name().unwrap())).unwrap();
        }
        assert_eq!(candidates(&class, Some("vda")), ["sdb", "sdb1", "vdaa"]);
        assert_eq!(candidates(&class, None), ["sdb", "sdb1", "vda", "vda1", "vdaa"]);
    }

    #[test]
    fn a_repository_is_at_the_top_or_in_its_folder() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(repository(scratch.path()), None);
        let folder = scratch.path().join("kontor");
        fs::create_dir_all(folder.join("metadata")).unwrap();
        fs::write(folder.join(METADATA), "{}").unwrap();
        assert_eq!(repository(scratch.path()), Some(folder));
    }
}
