//! Machines with disks of every kind, and what a box does about them.

use super::*;

const NEEDED: u64 = 2 << 30;
const MADE: Guid = Guid::from_u128(77);
const GB: u64 = 1_000_000_000;

fn disk(name: &str, contents: Contents) -> Candidate {
    Candidate {
        name: name.into(),
        bytes: 256 * GB,
        model: "Disk 1".into(),
        running: false,
        usb: false,
        removable: false,
        read_only: false,
        block: 512,
        mounted: None,
        contents,
    }
}

fn stick() -> Candidate {
    let contents = Contents::Kontor { identity: Guid::from_u128(1), office: false };
    Candidate { running: true, usb: true, removable: true, ..disk("sda", contents) }
}

fn empty(name: &str) -> Candidate {
    disk(name, Contents::Empty)
}

fn kontor(identity: Guid, office: bool) -> Candidate {
    disk("nvme0n1", Contents::Kontor { identity, office })
}

#[track_caller]
fn check(disks: &[Candidate], over: bool, expect: Result<&str, &str>) {
    match (choose(disks, NEEDED, over, MADE), expect) {
        (Ok(Choice::Install(disk)), Ok(name)) => assert_eq!(format!("install {}", disk.name), name),
        (Ok(Choice::Done(disk)), Ok(name)) => assert_eq!(format!("done {}", disk.name), name),
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
        (got, expect) => panic!("{got:?}, not {expect:?}"),
    }
}

#[test]
fn the_only_internal_disk_is_taken_when_it_is_empty() {
    check(&[stick(), empty("nvme0n1")], false, Ok("install nvme0n1"));
    let second_stick = Candidate { usb: true, ..empty("sdb") };
    let card = Candidate { removable: true, ..empty("sdc") };
    check(&[stick(), second_stick, card, empty("vda")], false, Ok("install vda"));
}

#[test]
fn what_holds_something_is_left_alone_unless_the_order_says_otherwise() {
    let other = Guid::from_u128(2);
    for (contents, said) in [
        (Contents::Kontor { identity: other, office: true }, "there is a Kontor with an office's state"),
        (Contents::Kontor { identity: other, office: false }, "there is a Kontor that has served nobody"),
        (Contents::Partitions(3), "there is 3 partitions, which is left alone"),
        (Contents::Data, "on vda (Disk 1, 256 GB) there is data without a partition table"),
    ] {
        let disks = [stick(), disk("vda", contents)];
        check(&disks, false, Err(said));
        check(&disks, false, Err("flash the stick with --install-over"));
        check(&disks, true, Ok("install vda"));
    }
}

#[test]
fn none_and_several_are_refused_even_if_something_may_be_overwritten() {
    for over in [false, true] {
        check(&[stick()], over, Err("this machine shows no disk but the stick"));
        check(
            &[stick(), Candidate { bytes: GB, ..empty("mmcblk0") }],
            over,
            Err("no internal disk to install to: mmcblk0 (Disk 1, 1000 MB): too small, 2048 MiB are needed"),
        );
        check(
            &[stick(), empty("sdb"), empty("nvme0n1")],
            over,
            Err("several internal disks: sdb (Disk 1, 256 GB), nvme0n1 (Disk 1, 256 GB); `install DISK`"),
        );
        check(
            &[stick(), empty("sdb"), kontor(Guid::from_u128(2), true)],
            over,
            Err("several internal disks"),
        );
    }
}

#[test]
fn a_disk_made_by_the_same_order_is_not_made_again() {
    for office in [false, true] {
        check(&[stick(), kontor(MADE, office)], false, Ok("done nvme0n1"));
        check(&[stick(), empty("sdb"), kontor(MADE, office)], true, Ok("done nvme0n1"));
    }
}

#[test]
fn each_refusal_says_why() {
    let office = Contents::Kontor { identity: MADE, office: true };
    for (disk, said) in [
        (stick(), "the box runs from it"),
        (Candidate { usb: true, ..empty("sdb") }, "it is no internal disk"),
        (Candidate { removable: true, ..empty("sdb") }, "it is no internal disk"),
        (Candidate { mounted: Some("/mnt".into()), ..empty("sdb") }, "it is mounted on /mnt"),
        (Candidate { read_only: true, ..empty("sdb") }, "it is read-only"),
        (Candidate { block: 4096, ..empty("sdb") }, "its blocks have 4096 bytes, not 512"),
        (Candidate { bytes: NEEDED - 1, ..empty("sdb") }, "too small, 2048 MiB are needed"),
        (disk("sdb", Contents::Unreadable("I/O error".into())), "it cannot be read"),
    ] {
        assert_eq!(disk.refusal(NEEDED).unwrap().to_string(), said);
    }
    for disk in [empty("sdb"), disk("sdb", office), Candidate { bytes: NEEDED, ..empty("sdb") }] {
        assert_eq!(disk.refusal(NEEDED), None, "{disk}");
    }
}
