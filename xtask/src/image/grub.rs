//! GRUB for BIOS and UEFI: one embedded configuration that chooses the slot.
//!
//! The configuration is the counterpart of `kontor_boot::slots::BootState::take_try`: the try is saved before
//! the slot is loaded, and there is always something that boots or a menu that ends in a reboot. Partitions are
//! those of the disk GRUB itself came from; only when that disk has no boot state are all disks searched.

use std::process::Command;

use anyhow::{Context, Result};
use camino::Utf8Path;
use kontor_boot::PartitionKind;
use kontor_boot::partition::LAYOUT;

use super::disk::unique_guid;
use super::process::run;

/// Modules of both cores; `normal` brings the script interpreter.
const MODULES: [&str; 17] = [
    "memdisk",
    "tar",
    "part_gpt",
    "ext2",
    "linux",
    "loadenv",
    "normal",
    "configfile",
    "test",
    "echo",
    "regexp",
    "probe",
    "sleep",
    "serial",
    "terminal",
    "reboot",
    "halt",
];

const TEMPLATE: &str = include_str!("grub.cfg");

/// Number of a partition, as GRUB and the kernel count them.
#[must_use]
pub fn partition_number(kind: PartitionKind) -> usize {
    LAYOUT.iter().position(|other| *other == kind).map_or(0, |index| index + 1)
}

/// The embedded configuration for this kernel command line.
#[must_use]
pub fn configuration(cmdline: &[String]) -> String {
    let number = |kind| partition_number(kind).to_string();
    TEMPLATE
        .replace("@CMDLINE@", &cmdline.join(" "))
        .replace("@BOOTSTATE@", &number(PartitionKind::BootState))
        .replace("@BOOTSTATE_GUID@", &unique_guid(PartitionKind::BootState).to_string().to_lowercase())
        .replace("@SLOT_A@", &number(PartitionKind::SlotA))
        .replace("@SLOT_B@", &number(PartitionKind::SlotB))
}

/// Makes `core.img` (BIOS) and `BOOTX64.EFI` in `out`.
///
/// `command` gives a tool by its name, `modules` is the directory of a platform's GRUB modules.
///
/// # Errors
/// When a tool fails or a file cannot be written.
pub fn make_cores(
    out: &Utf8Path,
    configuration: &str,
    command: impl Fn(&str) -> Command,
    modules: impl Fn(&str) -> camino::Utf8PathBuf,
) -> Result<()> {
    let memdisk = out.join("memdisk.tar");
    std::fs::write(&memdisk, memdisk_tar(configuration)?)
        .with_context(|| format!("cannot write {memdisk}"))?;
    for (format, output, extra) in
        [("i386-pc", "core.img", "biosdisk"), ("x86_64-efi", "BOOTX64.EFI", "efifwsetup")]
    {
        let mut make = command("grub-mkimage");
        make.args([
            "-O",
            format,
            "-p",
            "(memdisk)/boot/grub",
            "-d",
            modules(format).as_str(),
            "-m",
            memdisk.as_str(),
        ]);
        make.args(["-o", out.join(output).as_str()]).args(MODULES).arg(extra);
        run(make)?;
    }
    std::fs::copy(modules("i386-pc").join("boot.img"), out.join("boot.img"))
        .context("cannot copy GRUB's boot.img")?;
    Ok(())
}

fn memdisk_tar(configuration: &str) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(configuration.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    tar.append_data(&mut header, "boot/grub/grub.cfg", configuration.as_bytes())?;
    Ok(tar.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_complete() {
        let text = configuration(&["console=ttyS0".to_owned(), "quiet".to_owned()]);
        assert!(!text.contains('@'), "a place holder is left over");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn partitions_are_numbered_from_one() {
        assert_eq!(partition_number(PartitionKind::Bios), 1);
        assert_eq!(partition_number(PartitionKind::SlotB), 6);
    }
}
