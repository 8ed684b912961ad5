//! Mounts, swap and stacked devices, told by a /proc and a /sys of the tests' own.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// A machine with `sda` (two partitions, LVM on the second) and `sdb` (one partition).
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    pub(crate) kernel: Kernel,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (proc, sys) = (directory.path().join("proc"), directory.path().join("sys"));
        fs::create_dir_all(proc.join("self")).unwrap();
        let machine = Self { directory, kernel: Kernel { proc, sys } };
        machine.device("sda", "8:0", None);
        machine.device("sda1", "8:1", Some("sda"));
        machine.device("sda2", "8:2", Some("sda"));
        machine.device("sdb", "8:16", None);
        machine.device("sdb1", "8:17", Some("sdb"));
        machine.device("dm-0", "254:0", None);
        machine.mounts("");
        machine
    }

    fn device(&self, name: &str, number: &str, parent: Option<&str>) {
        let sys = &self.kernel.sys;
        let path = sys.join("devices").join(parent.unwrap_or("")).join(name);
        for folder in
            [path.join("holders"), path.join("device"), sys.join("class/block"), sys.join("dev/block")]
        {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(path.join("size"), "2048\n").unwrap();
        if parent.is_some() {
            fs::write(path.join("partition"), "1\n").unwrap();
        }
        symlink(&path, sys.join("class/block").join(name)).unwrap();
        symlink(&path, sys.join("dev/block").join(number)).unwrap();
    }

    pub(crate) fn set(&self, device: &str, file: &str, text: &str) {
        fs::write(self.kernel.sys.join("class/block").join(device).join(file), text).unwrap();
    }

    fn holder(&self, device: &str, holder: &str) {
        let path = self.kernel.sys.join("class/block").join(device).join("holders").join(holder);
        fs::create_dir(path).unwrap();
    }

    pub(crate) fn mounts(&self, text: &str) {
        fs::write(self.kernel.proc.join("self/mountinfo"), text).unwrap();
    }

    #[track_caller]
    fn check(&self, disk: &str, expect: &[&str]) {
        assert_eq!(self.kernel.uses(&self.kernel.device(disk).unwrap()), expect);
    }
}

#[test]
fn a_disk_nobody_uses_has_no_uses() {
    let machine = Machine::new();
    machine.mounts("22 1 0:21 / /proc rw - proc proc rw\n");
    machine.check("8:0", &[]);
    machine.check("8:16", &[]);
}

#[test]
fn a_mounted_disk_and_a_mounted_partition_are_found() {
    let machine = Machine::new();
    machine.mounts(
        "30 1 8:17 / /media/my\\040stick rw - vfat /dev/sdb1 rw\n31 1 8:0 / /mnt ro - ext4 /dev/sda ro\n",
    );
    machine.check("8:16", &["sdb1 is mounted on /media/my stick"]);
    machine.check("8:0", &["sda is mounted on /mnt"]);
}

#[test]
fn the_system_s_own_disk_is_called_that_even_through_lvm() {
    let machine = Machine::new();
    machine.holder("sda2", "dm-0");
    machine
        .mounts("30 1 254:0 / / rw - ext4 /dev/mapper/vg-root rw\n31 1 8:1 / /boot rw - ext4 /dev/sda1 rw\n");
    machine.check(
        "8:0",
        &[
            "this system runs from it: dm-0 is mounted on /",
            "this system runs from it: sda1 is mounted on /boot",
            "dm-0 is built on it (LVM, RAID or encryption)",
        ],
    );
    machine.check("8:16", &[]);
}

#[test]
fn btrfs_is_found_by_its_source_as_its_number_is_anonymous() {
    let machine = Machine::new();
    machine.mounts("30 1 0:40 /root / rw shared:1 - btrfs /dev/sda1 rw\n");
    machine.check("8:0", &["this system runs from it: sda1 is mounted on /"]);
}

#[test]
fn swap_is_found() {
    let machine = Machine::new();
    let text = "Filename Type Size Used Priority\n/dev/sdb1 partition 1000 0 -2\n/swapfile file 1 0 -3\n";
    fs::write(machine.kernel.proc.join("swaps"), text).unwrap();
    machine.check("8:16", &["sdb1 is swap space"]);
}

#[test]
fn what_a_disk_is_comes_from_sysfs() {
    let machine = Machine::new();
    machine.set("sdb", "device/vendor", "Kingston\n");
    machine.set("sdb", "device/model", "DataTraveler 3.0\n");
    machine.set("sdb", "removable", "1\n");
    machine.set("sdb", "ro", "1\n");
    let disk = machine.kernel.device("8:16").unwrap();
    assert_eq!((disk.name.as_str(), disk.model.as_str()), ("sdb", "Kingston DataTraveler 3.0"));
    assert!(disk.removable && disk.read_only && disk.parent.is_none());
    assert_eq!((disk.bytes, disk.partitions), (1 << 20, vec![("sdb1".to_owned(), 1 << 20)]));
    assert_eq!(machine.kernel.device("8:17").unwrap().parent.as_deref(), Some("sdb"));
    assert!(machine.kernel.device("9:9").is_err());
}

#[test]
fn a_file_behind_a_loop_device_is_in_use() {
    let machine = Machine::new();
    machine.device("loop7", "7:7", None);
    let folder = machine.kernel.sys.join("class/block/loop7/loop");
    fs::create_dir(&folder).unwrap();
    let file = machine.directory.path().join("disk.img");
    fs::write(folder.join("backing_file"), format!("{}\n", file.display())).unwrap();
    assert_eq!(machine.kernel.loops_on(&file), ["loop7"]);
    assert!(machine.kernel.loops_on(Path::new("/other")).is_empty());
}
