//! `kontor ctl install`: what a person sees, and what they are asked.

use anyhow::{Context as _, bail, ensure};
use kontor_boot::Guid;
use kontor_boot::install;
use kontor_boot::target::{Candidate, size};

use super::report::Report;
use super::{disks, identity_made, install_to, installed, stick};
use crate::ctl::is_typed;
use crate::ctl::table::{Table, plain};
use crate::storage::{Disk, chosen_disk};

/// The disks of this machine, and to which of them the box could be installed.
pub(crate) fn list() -> anyhow::Result<String> {
    let running = chosen_disk()?;
    let needed = install::needed(running.table());
    Ok(text(&disks::all(&running), needed, running.is_stick()))
}

fn text(disks: &[Candidate], needed: u64, from_stick: bool) -> String {
    let mut table = Table::new(&["DISK", "SIZE", "MODEL", "ON IT", ""]);
    for disk in disks {
        let what = disk.refusal(needed).map_or("possible".to_owned(), |refusal| format!("no: {refusal}"));
        table.row(&[&disk.name, &size(disk.bytes), &disk.model, &disk.contents.to_string(), &what]);
    }
    let advice = match from_stick {
        true => "`install DISK` erases a disk and puts this box on it.",
        false => "This box does not run from a stick: there is nothing to install from.",
    };
    format!("{}\n{advice}\n", table.render())
}

/// Asks, unless `agreed` says that this disk may be erased, and installs the box to it.
pub(crate) fn to(name: &str, agreed: Option<&str>) -> anyhow::Result<()> {
    let running = chosen_disk()?;
    ensure!(running.is_stick(), "this box does not run from a stick: there is nothing to install from");
    let disks = disks::all(&running);
    let disk = disks.iter().find(|disk| disk.name == name);
    let disk = disk.with_context(|| format!("there is no disk `{name}`; `install` lists them"))?;
    if let Some(refusal) = disk.refusal(install::needed(running.table())) {
        bail!("{disk}: {refusal}");
    }
    agree(disk, agreed)?;
    carry_out(&running, disk)?;
    crate::ctl::print(&format!(
        "this box is on {disk} now: `reboot`, and pull the stick out. What was kept on the stick since it was flashed (leases, \
         users' files) stays there.\n"
    ))
}

fn carry_out(running: &Disk, disk: &Candidate) -> anyhow::Result<()> {
    let id = Guid(kontor_sys::random::octets().context("/dev/urandom")?);
    let mut report = Report::new();
    let result = install_to(running, disk, id, &mut report)
        .context("not installed")
        .and_then(|()| stick::finish(running, identity_made(running, id)?).with_context(|| installed(disk)));
    match &result {
        Ok(()) => report.phase(&format!("done: {}; restart it and pull the stick out", installed(disk))),
        Err(error) => report.phase(&format!("{error:#}")),
    }
    result
}

/// The word that has to be typed names the disk, so that nobody types it by habit.
fn agree(disk: &Candidate, agreed: Option<&str>) -> anyhow::Result<()> {
    eprintln!("everything on {} will be lost; on it there is {}", plain(&disk.to_string()), disk.contents);
    let flag = flag(&disk.name);
    if let Some(given) = agreed {
        ensure!(given == flag, "`{given}` does not agree to that; {flag} would");
        return Ok(());
    }
    let word = format!("erase {}", disk.name);
    let nobody = format!("there is no terminal to ask on; {flag} erases it without asking");
    ensure!(is_typed(&word, &format!("type \"{word}\" to go on: "), &nobody)?, "nothing was written");
    Ok(())
}

/// Agrees to erase this disk.
fn flag(name: &str) -> String {
    format!("--yes-erase-{name}")
}

#[cfg(test)]
mod tests {
    use kontor_boot::target::Contents;

    use super::*;

    fn disks() -> Vec<Candidate> {
        let disk = Candidate {
            name: "sda".into(),
            bytes: 15_500_000_000,
            model: "Stick\u{1b}[2J".into(),
            running: true,
            usb: true,
            removable: true,
            read_only: false,
            block: 512,
            mounted: None,
            contents: Contents::Kontor { identity: Guid::from_u128(1), office: true },
        };
        let free = Candidate { running: false, usb: false, removable: false, ..disk.clone() };
        let internal = Candidate {
            name: "nvme0n1".into(),
            model: "Disk 1".into(),
            contents: Contents::Partitions(3),
            ..free.clone()
        };
        let small = Candidate {
            name: "mmcblk0".into(),
            model: String::new(),
            bytes: 1_000_000_000,
            contents: Contents::Empty,
            ..free
        };
        vec![disk, internal, small]
    }

    #[test]
    fn all_disks_are_listed_with_the_reason_against_them() {
        insta::assert_snapshot!(text(&disks(), 2 << 30, true));
        assert!(text(&disks(), 2 << 30, false).ends_with("nothing to install from.\n"));
    }

    #[test]
    fn only_the_disk_that_is_named_may_be_erased() {
        let disk = &disks()[1];
        agree(disk, Some("--yes-erase-nvme0n1")).unwrap();
        let error = agree(disk, Some("--yes-erase-sdb")).unwrap_err().to_string();
        assert!(error.contains("--yes-erase-nvme0n1 would"), "{error}");
    }
}
