//! What a machine with this kernel cannot do without: switching itself off (the floor), and what any gateway needs before it
//! can answer (the least).

use anyhow::{Context, Result};
use camino::Utf8Path;
use kontor_boot::PartitionKind;
use nix::libc;

use super::ours::{Ours, dump};
use super::program::{Argument, Program};
use crate::image::cpio::Writer;
use crate::image::grub::partition_number;

/// In the initramfs as delivered: what mounts the base, and the file system of `state`.
const EARLY: [&str; 8] =
    ["crc32c_generic", "crc32c-intel", "libcrc32c", "erofs", "crc16", "mbcache", "jbd2", "ext4"];
/// In the base: the drivers of the bench's machine.
const DRIVERS: [&str; 4] =
    ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net", "drivers/block/virtio_blk"];
/// The first descriptor after standard input, output and error; each is closed before the next is opened.
const FD: i32 = 3;
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
        program.call(libc::SYS_mount, [source.into(), target.into(), kind.into(), flags.into(), 0.into()]);
    };
    mount(program, "devtmpfs", "/dev", "devtmpfs", 0);
    EARLY.iter().for_each(|name| insert(program, &format!("/modules/{name}.ko")));
    mount(program, "/base.erofs", "/root", "erofs", libc::MS_RDONLY);
    let modules = format!("/root/usr/lib/modules/{kernel_version}/kernel");
    DRIVERS.iter().for_each(|name| insert(program, &format!("{modules}/{name}.ko")));
    program.call(libc::SYS_mkdir, ["/state".into(), 0o700.into()]);
    let state = format!("/dev/vda{}", partition_number(PartitionKind::State));
    mount(program, &state, "/state", "ext4", 0);
    program.call(libc::SYS_socket, [libc::AF_INET.into(), libc::SOCK_DGRAM.into(), 0.into()]);
    program.call(libc::SYS_ioctl, [FD.into(), libc::SIOCSIFADDR.into(), address_request([192, 168, 77, 1])]);
    program.call(libc::SYS_ioctl, [FD.into(), libc::SIOCSIFFLAGS.into(), interface_request(&[1, 0])]); // IFF_UP
    program.call(libc::SYS_close, [FD.into()]);
    program
        .call(libc::SYS_open, ["/state/least".into(), (libc::O_WRONLY | libc::O_CREAT).into(), 0o600.into()]);
    program.call(libc::SYS_write, [FD.into(), "lease".into(), 5.into()]);
    program.call(libc::SYS_fdatasync, [FD.into()]);
}

fn insert(program: &mut Program, path: &str) {
    program.call(libc::SYS_open, [path.into(), 0.into()]);
    program.call(libc::SYS_finit_module, [FD.into(), "".into(), 0.into()]);
    program.call(libc::SYS_close, [FD.into()]);
}

fn switch_off(program: &mut Program) {
    let magic = [libc::LINUX_REBOOT_MAGIC1, libc::LINUX_REBOOT_MAGIC2, libc::LINUX_REBOOT_CMD_POWER_OFF];
    program.call(libc::SYS_reboot, magic.map(Argument::from));
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
