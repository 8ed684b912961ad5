//! GRUB for BIOS and UEFI: one embedded configuration that chooses the slot.
//!
//! The configuration is the counterpart of `kontor_boot::slots::BootState::take_try`: the try is saved before
//! the slot is loaded, and there is always something that boots or a menu that ends in a reboot. Partitions are
//! those of the disk GRUB itself came from; only when that disk has no boot state are all disks searched.

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::PartitionKind;
use kontor_boot::partition::LAYOUT;

use super::declaration::BoardFile;
use super::disk::unique_guid;
use super::process::run;
use crate::tools::Tools;
use kontor_boot::frame;

/// Modules of both cores; `normal` brings the script interpreter.
const MODULES: &str = "memdisk tar part_gpt ext2 iso9660 linux loadenv normal configfile test echo regexp probe \
    sleep serial smbios terminal reboot halt";

const TEMPLATE: &str = include_str!("grub.cfg");

/// Runs before the configuration, in a parser that only knows simple commands. The prefix without a device makes
/// the core set `root` to where the firmware loaded it from; no other variable tells that on BIOS machines.
const ORIGIN: &str = "set origin=$root\nset prefix=(memdisk)/boot/grub\n";

/// Number of a partition, as GRUB and the kernel count them.
#[must_use]
pub fn partition_number(kind: PartitionKind) -> usize {
    LAYOUT.iter().position(|other| *other == kind).map_or(0, |index| index + 1)
}

/// The embedded configuration for a product's boards.
#[must_use]
pub fn configuration(boards: &[BoardFile]) -> String {
    let number = |kind| partition_number(kind).to_string();
    TEMPLATE
        .replace("@BOARDS@", &board_settings(boards))
        .replace("@BOOTSTATE@", &number(PartitionKind::BootState))
        .replace("@BOOTSTATE_GUID@", &unique_guid(PartitionKind::BootState).to_string().to_lowercase())
        .replace("@STATE_FILE@", frame::FILE)
        .replace("@SLOT_A@", &number(PartitionKind::SlotA))
        .replace("@SLOT_B@", &number(PartitionKind::SlotB))
}

/// Console and kernel command line of each board, as a script: the fallback's first, the most specific last.
fn board_settings(boards: &[BoardFile]) -> String {
    let mut boards: Vec<&BoardFile> = boards.iter().collect();
    boards.sort_by_key(|file| (file.board.matching.specificity(), std::cmp::Reverse(&file.board.name)));
    boards.into_iter().map(board_setting).collect()
}

fn board_setting(file: &BoardFile) -> String {
    let wanted = &file.board.matching;
    let strings =
        [("vendor", &wanted.dmi_vendor), ("product", &wanted.dmi_product), ("mainboard", &wanted.dmi_board)];
    let conditions: Vec<String> =
        strings.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| one_of(name, list)).collect();
    let open: String = conditions.iter().map(|condition| format!("if {condition}; then ")).collect();
    let close = "; fi".repeat(conditions.len());
    let screen = file
        .board
        .console_devices
        .iter()
        .any(|device| device.starts_with("tty") && !device.starts_with("ttyS"));
    let consoles = if screen { "console serial" } else { "serial" };
    let cmdline = file.board.kernel_cmdline.join(" ");
    format!("{open}set consoles=\"{consoles}\"; set cmdline=\"{cmdline}\"{close}\n")
}

/// `[ "$vendor" = "A" -o "$vendor" = "B" ]`
fn one_of(variable: &str, texts: &[String]) -> String {
    let equal = |text: &String| format!("\"${variable}\" = \"{text}\"");
    format!("[ {} ]", texts.iter().map(equal).collect::<Vec<_>>().join(" -o "))
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
    use crate::image::declaration::Product;
    use crate::workspace::Workspace;

    #[test]
    fn the_configuration_is_complete() {
        let workspace = Workspace::locate();
        let product = Product::load(&workspace.product("branch")).unwrap();
        let text = configuration(&BoardFile::load_all(&product, &workspace).unwrap());
        assert!(!text.contains('@'), "a place holder is left over");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn partitions_are_numbered_from_one() {
        assert_eq!(partition_number(PartitionKind::Bios), 1);
        assert_eq!(partition_number(PartitionKind::SlotB), 6);
    }
}
