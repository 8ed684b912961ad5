//! Targets that must not be overwritten.

use super::super::source::tests::image;
use super::super::usage::tests::Machine;
use super::*;

struct Case {
    directory: tempfile::TempDir,
    source: Source,
    machine: Machine,
}

impl Case {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = Source::open(&image(directory.path())).unwrap();
        Self { directory, source, machine: Machine::new() }
    }

    fn file(&self, bytes: u64) -> Utf8PathBuf {
        let path = Utf8PathBuf::from_path_buf(self.directory.path().join("disk.img")).unwrap();
        File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }

    fn inspect(&self, path: &Utf8Path) -> Result<Target> {
        Target::inspect(path, &self.source, &self.machine.kernel)
    }

    #[track_caller]
    fn check_disk(&self, number: &str, expected: &str) {
        let error = Target::disk(Utf8Path::new("/dev/target"), number, &self.machine.kernel).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[track_caller]
fn check_refused(result: Result<Target>, expected: &str) {
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_large_enough_file_is_taken() {
    let case = Case::new();
    let target = case.inspect(&case.file(case.source.length())).unwrap();
    assert_eq!(target.bytes, case.source.length());
    assert!(target.open().is_ok());
    assert!(target.to_string().contains("a file of"));
}

#[test]
fn a_too_small_target_is_told_how_much_is_missing() {
    let case = Case::new();
    let path = case.file(case.source.length() - (3 << 20));
    check_refused(case.inspect(&path), "which is 3 MiB more");
}

#[test]
fn the_image_itself_is_refused_by_any_name() {
    let case = Case::new();
    check_refused(case.inspect(case.source.path()), "is the image itself");
    let link = Utf8PathBuf::from_path_buf(case.directory.path().join("other-name")).unwrap();
    std::fs::hard_link(case.source.path(), &link).unwrap();
    check_refused(case.inspect(&link), "is the image itself");
}

#[test]
fn what_is_neither_disk_nor_file_is_refused() {
    let case = Case::new();
    check_refused(case.inspect(Utf8Path::new("/dev/null")), "neither a disk nor an ordinary file");
    check_refused(case.inspect(Utf8Path::new("/nonexistent")), "give --size to make a file");
}

#[test]
fn disks_in_use_partitions_and_read_only_disks_are_refused() {
    let case = Case::new();
    case.check_disk("8:1", "is a partition; an image is a whole disk, which would be /dev/sda");
    case.machine.mounts("30 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    case.check_disk("8:0", "/dev/target is in use:\n  this system runs from it: sda1 is mounted on /");
    case.machine.set("sdb", "ro", "1\n");
    case.check_disk("8:16", "is read-only");
}

#[test]
fn what_will_be_lost_is_shown() {
    let case = Case::new();
    case.machine.set("sdb", "device/model", "Stick\n");
    let target = Target::disk(Utf8Path::new("/dev/sdb"), "8:16", &case.machine.kernel).unwrap();
    let expected = "  /dev/sdb: 1 MiB\n  model Stick, serial number unknown\n  partition sdb1: 1 MiB";
    assert_eq!(target.to_string(), expected);
}
