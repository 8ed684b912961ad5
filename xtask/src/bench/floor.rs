//! What a machine with this kernel cannot do without: switching itself off (the floor), and inserting the drivers of a gateway (the
//! least).

use anyhow::{Context, Result};
use camino::Utf8Path;

use super::ours::{Ours, dump};
use super::program::{Argument, Program};
use crate::image::cpio::Writer;

/// Numbers of system calls (`asm/unistd_64.h`).
mod number {
    pub(super) const WRITE: u32 = 1;
    pub(super) const OPEN: u32 = 2;
    pub(super) const CLOSE: u32 = 3;
    pub(super) const IOCTL: u32 = 16;
    pub(super) const SOCKET: u32 = 41;
    pub(super) const FDATASYNC: u32 = 75;
    pub(super) const MKDIR: u32 = 83;
    pub(super) const MOUNT: u32 = 165;
    pub(super) const REBOOT: u32 = 169;
    pub(super) const FINIT_MODULE: u32 = 313;
}

/// In the initramfs as delivered: what mounts the base, and the file system of `state`.
const EARLY: [&str; 8] =
    ["crc32c_generic", "crc32c-intel", "libcrc32c", "erofs", "crc16", "mbcache", "jbd2", "ext4"];
/// In the base: the drivers of the bench's machine.
const DRIVERS: [&str; 4] =
    ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net", "drivers/block/virtio_blk"];
/// The partition `state` on the machine's disk.
const STATE: &str = "/dev/vda8";
/// The first descriptor after standard input, output and error; each is closed before the next is opened.
const FD: u64 = 3;
const O_WRONLY_CREAT: u64 = 0o101;
const MS_RDONLY: u64 = 1;
const SIOCSIFFLAGS: u64 = 0x8914;
const SIOCSIFADDR: u64 = 0x8916;
/// The bench's LAN port, as the kernel names it.
const LAN: &str = "eth1";

/// Writes the initramfs of the floor, whose only program switches the machine off.
///
/// # Errors
/// When it cannot be written.
pub fn write_initramfs(path: &Utf8Path) -> Result<()> {
    let mut program = Program::default();
    switch_off(&mut program);
    let mut archive = Writer::new(0);
    archive.dir("dev", 0o755);
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, &program.elf());
    std::fs::write(path, archive.finish()).with_context(|| format!("cannot write {path}"))
}

/// Writes the initramfs of the least that any gateway does before it can answer: the base mounted, the drivers of its cards and of its
/// disk inserted, its state mounted, an address on the LAN, one durable record; then it switches the machine off. No process is
/// started, nothing is looked for or checked, and nobody is answered.
///
/// # Errors
/// When the image cannot be read, or the initramfs not written.
pub fn write_least(ours: &Ours, path: &Utf8Path) -> Result<()> {
    let manifest = path.with_extension("manifest");
    dump(&ours.tools, &ours.slot, "manifest.toml", &manifest)?;
    let text = std::fs::read_to_string(&manifest).with_context(|| manifest.to_string())?;
    let table: toml::Table = toml::from_str(&text).with_context(|| manifest.to_string())?;
    let version = table.get("kernel").and_then(toml::Value::as_str);
    let version = version.with_context(|| format!("{manifest}: no `kernel`"))?;
    let mut program = Program::default();
    serve_as_little_as_possible(&mut program, version);
    switch_off(&mut program);
    // The kernel unpacks one archive after the other; a file of the later replaces that of the earlier.
    let delivered = &ours.direct.initrd;
    let mut bytes = std::fs::read(delivered).with_context(|| format!("cannot read {delivered}"))?;
    let mut archive = Writer::new(0);
    archive.file("init", 0o755, &program.elf());
    bytes.extend(archive.finish());
    std::fs::write(path, bytes).with_context(|| format!("cannot write {path}"))
}

fn serve_as_little_as_possible(program: &mut Program, kernel_version: &str) {
    let mount = |program: &mut Program, source: &str, target: &str, kind: &str, flags: u64| {
        program.call(number::MOUNT, [source.into(), target.into(), kind.into(), flags.into(), 0.into()]);
    };
    mount(program, "devtmpfs", "/dev", "devtmpfs", 0);
    EARLY.iter().for_each(|name| insert(program, &format!("/modules/{name}.ko")));
    mount(program, "/base.erofs", "/root", "erofs", MS_RDONLY);
    let modules = format!("/root/usr/lib/modules/{kernel_version}/kernel");
    DRIVERS.iter().for_each(|name| insert(program, &format!("{modules}/{name}.ko")));
    program.call(number::MKDIR, ["/state".into(), 0o700.into()]);
    mount(program, STATE, "/state", "ext4", 0);
    program.call(number::SOCKET, [2.into(), 2.into(), 0.into()]); // AF_INET, SOCK_DGRAM
    program.call(number::IOCTL, [FD.into(), SIOCSIFADDR.into(), address_request([192, 168, 77, 1])]);
    program.call(number::IOCTL, [FD.into(), SIOCSIFFLAGS.into(), interface_request(&[1, 0])]); // IFF_UP
    program.call(number::CLOSE, [FD.into()]);
    program.call(number::OPEN, ["/state/least".into(), O_WRONLY_CREAT.into(), 0o600.into()]);
    program.call(number::WRITE, [FD.into(), "lease".into(), 5.into()]);
    program.call(number::FDATASYNC, [FD.into()]);
}

fn insert(program: &mut Program, path: &str) {
    program.call(number::OPEN, [path.into(), 0.into()]);
    program.call(number::FINIT_MODULE, [FD.into(), "".into(), 0.into()]);
    program.call(number::CLOSE, [FD.into()]);
}

/// `reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF)`
fn switch_off(program: &mut Program) {
    let arguments = [0xfee1_dead_u64, 0x2812_1969, 0x4321_fedc].map(Argument::from);
    program.call(number::REBOOT, arguments);
}

/// `struct ifreq` (netdevice(7)) with a `sockaddr_in`.
fn address_request(address: [u8; 4]) -> Argument {
    let [a, b, c, d] = address;
    interface_request(&[2, 0, 0, 0, a, b, c, d])
}

/// `struct ifreq` of the LAN's port, with this value.
fn interface_request(value: &[u8]) -> Argument {
    let mut request = LAN.as_bytes().to_vec();
    request.resize(16, 0);
    request.extend(value);
    request.resize(40, 0);
    Argument::Bytes(request)
}
