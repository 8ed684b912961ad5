//! GRUB for BIOS and UEFI: one embedded configuration that chooses the slot.
//!
//! The configuration is the counterpart of `kontor_boot::slots::BootState::take_try`: the try is saved before
//! the slot is loaded, and there is always something that boots or a menu that ends in a reboot. Partitions are
//! those of the disk GRUB itself came from; only when that disk has no boot state are all disks searched.

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::PartitionKind;
use kontor_boot::partition::LAYOUT;

use super::bootstate;
use super::disk::unique_guid;
use super::process::run;
use crate::tools::Tools;

/// Modules of both cores; `normal` brings the script interpreter.
const MODULES: &str = "memdisk tar part_gpt ext2 iso9660 linux loadenv normal configfile test echo regexp probe \
    sleep serial terminal reboot halt";

const TEMPLATE: &str = include_str!("grub.cfg");

/// Runs before the configuration, in a parser that only knows simple commands. The prefix without a device makes
/// the core set `root` to where the firmware loaded it from; no other variable tells that on BIOS machines.
const ORIGIN: &str = "set origin=$root\nset prefix=(memdisk)/boot/grub\n";

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
        .replace("@STATE_FILE@", bootstate::FILE)
        .replace("@SLOT_A@", &number(PartitionKind::SlotA))
        .replace("@SLOT_B@", &number(PartitionKind::SlotB))
}

/// Makes `core.img` and `boot.img` (BIOS) and `BOOTX64.EFI` in `out`.
///
/// # Errors
/// When a tool fails or a file cannot be written.
pub fn make_cores(out: &Utf8Path, configuration: &str, tools: &Tools) -> Result<()> {
    let input = |name: &str, bytes: &[u8]| -> Result<Utf8PathBuf> {
        let path = out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {path}"))?;
        Ok(path)
    };
    let memdisk = input("memdisk.tar", &memdisk_tar(configuration)?)?;
    let origin = input("origin.cfg", ORIGIN.as_bytes())?;
    let modules = tools.path("usr/lib/grub");
    for (format, output, extra) in
        [("i386-pc", "core.img", "biosdisk"), ("x86_64-efi", "BOOTX64.EFI", "efifwsetup")]
    {
        let mut make = tools.command("grub-mkimage")?;
        // The prefix must come after the memdisk, which would else set it.
        make.args(["-O", format, "-c", origin.as_str(), "-m", memdisk.as_str(), "-p", "/boot/grub"]);
        make.args(["-d", modules.join(format).as_str(), "-o", out.join(output).as_str()]);
        make.args(MODULES.split_whitespace()).arg(extra);
        run(make)?;
    }
    std::fs::copy(modules.join("i386-pc/boot.img"), out.join("boot.img"))
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
