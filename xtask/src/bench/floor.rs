//! The floor: the least that a machine with this kernel can do, an initramfs whose only program switches it off.

use anyhow::{Context, Result};
use camino::Utf8Path;

use crate::image::cpio::Writer;

/// `reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF)`, for ever.
const CODE: [u8; 24] = [
    0xb8, 0xa9, 0x00, 0x00, 0x00, // mov eax, 169 (reboot)
    0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, 0xfee1dead
    0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, 0x28121969
    0xba, 0xdc, 0xfe, 0x21, 0x43, // mov edx, 0x4321fedc
    0x0f, 0x05, // syscall
    0xeb, 0xe8, // jmp to the start
];
/// Where the program is loaded.
const ADDRESS: u64 = 0x40_0000;
/// Sizes of an ELF64 header and a program header.
const HEADERS: usize = 64 + 56;

/// Writes the initramfs.
///
/// # Errors
/// When it cannot be written.
pub fn write_initramfs(path: &Utf8Path) -> Result<()> {
    let mut archive = Writer::new(0);
    archive.dir("dev", 0o755);
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, &program());
    std::fs::write(path, archive.finish()).with_context(|| format!("cannot write {path}"))
}

/// A static ELF64 executable of one segment.
fn program() -> Vec<u8> {
    let size = (HEADERS + CODE.len()) as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let half = |elf: &mut Vec<u8>, values: &[u16]| {
        elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let long = |elf: &mut Vec<u8>, values: &[u64]| {
        elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    half(&mut elf, &[2, 62]); // executable, x86-64
    elf.extend(1_u32.to_le_bytes());
    long(&mut elf, &[ADDRESS + HEADERS as u64, 64, 0]); // entry, program headers, no sections
    elf.extend(0_u32.to_le_bytes());
    half(&mut elf, &[64, 56, 1, 0, 0, 0]);
    elf.extend(1_u32.to_le_bytes()); // PT_LOAD
    elf.extend(5_u32.to_le_bytes()); // readable and executable
    long(&mut elf, &[0, ADDRESS, ADDRESS, size, size, 0x1000]);
    elf.extend(CODE);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_where_its_headers_say() {
        let elf = program();
        assert_eq!(elf.len(), HEADERS + CODE.len());
        let entry = u64::from_le_bytes(elf[24..32].try_into().unwrap());
        assert_eq!(elf[usize::try_from(entry - ADDRESS).unwrap()..], CODE);
        let jump = i8::from_le_bytes([CODE[CODE.len() - 1]]);
        assert_eq!(i64::from(jump), -(CODE.len() as i64), "the jump leads to the start");
    }
}
