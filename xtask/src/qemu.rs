//! Virtual machines: which one, as a value, and the QEMU command line it becomes.
//!
//! [`Machine`] is pure; nothing here starts a process. Its hardware is that of a board ([`Mimic`]), normally of
//! `board/qemu.toml`: a q35 with the network ports at fixed PCI addresses. `port1` is always the first of
//! [`Machine::nics`].

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};

pub mod accel;
pub mod development;
pub mod disk;
pub mod firmware;
pub mod mimic;
pub mod qmp;
pub mod session;

pub use accel::Accel;
pub use development::development_site;
pub use firmware::Firmware;
pub use mimic::Mimic;
pub use qmp::Qmp;

use crate::tools::Tools;

/// PCI device number of the first network port (`0000:00:02.0`); the others follow.
const FIRST_NIC_SLOT: usize = 2;
/// PCI device number of the disk, behind room for eight ports.
const DISK_SLOT: usize = 0xa;
/// PCI device number of the watchdog.
const WATCHDOG_SLOT: usize = 0xb;

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its hardware.
    pub mimic: Mimic,
    /// RAM.
    pub memory_mib: u32,
    /// How many processors it has.
    pub processors: u8,
    /// Boot firmware.
    pub firmware: Firmware,
    /// Raw disk image; the machine writes to it.
    pub disk: PathBuf,
    /// Network ports: `port1`, `port2`, …
    pub nics: Vec<Nic>,
    /// Where the serial console goes.
    pub serial: Serial,
    /// Unix socket on which somebody listens for QEMU's control connection.
    pub qmp: Option<PathBuf>,
    /// Whether there is a hardware watchdog.
    pub watchdog: bool,
    /// End QEMU when the guest reboots.
    pub no_reboot: bool,
    /// How guest code is executed.
    pub accel: Accel,
}

/// A network port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Hardware address, colon-separated.
    pub mac: String,
    /// What the cable is plugged into.
    pub backend: Backend,
    /// QEMU's device model, normally [`VIRTIO_NET`].
    pub model: &'static str,
}

/// The paravirtual network card.
pub const VIRTIO_NET: &str = "virtio-net-pci";

/// The far end of a network port's cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A Unix stream socket on which a simulated wire listens (u32 big-endian length before each frame).
    Stream(PathBuf),
    /// QEMU's own user-mode network.
    User(UserNet),
    /// No cable.
    None,
}

/// QEMU's user-mode network: NAT to the host, without privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserNet {
    /// Network and prefix length; QEMU's default (10.0.2.0/24) without it.
    pub net: Option<ipnet::Ipv4Net>,
    /// QEMU's own address in it.
    pub host: Option<Ipv4Addr>,
    /// Ports of the host's loopback that lead into the network.
    pub forwards: Vec<Forward>,
}

/// One forwarded port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Transport.
    pub protocol: Protocol,
    /// Port on 127.0.0.1 of the host.
    pub host_port: u16,
    /// Address inside the network.
    pub guest: Ipv4Addr,
    /// Port there.
    pub guest_port: u16,
}

/// Transport protocol of a forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The serial console's far end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serial {
    /// The terminal, with QEMU's escapes (Ctrl-A X ends the machine).
    Terminal,
    /// Standard output; nothing is ever typed.
    Output,
    /// A Unix stream socket on which somebody listens.
    Socket(PathBuf),
}

impl Machine {
    /// QEMU's arguments.
    #[must_use]
    pub fn args(&self) -> Vec<OsString> {
        let mut args = Args::default();
        args.words(&["-nodefaults", "-no-user-config", "-display", "none"]);
        self.mimic.push_machine(&mut args);
        args.pair("-m", format!("{}M", self.memory_mib));
        args.pair("-smp", self.processors.to_string());
        args.words(&["-accel", self.accel.argument(), "-cpu", self.accel.cpu()]);
        self.firmware.push_args(&mut args);
        self.push_disk(&mut args);
        self.push_serial(&mut args);
        for (index, nic) in self.nics.iter().enumerate() {
            let slot = self.mimic.push_slot(index, &mut args);
            nic.push_args(index, &slot, &mut args);
        }
        if let Some(path) = &self.qmp {
            args.pair("-chardev", format!("socket,id=qmp0,path={}", escape(path)));
            args.words(&["-mon", "chardev=qmp0,mode=control"]);
        }
        if self.watchdog {
            self.mimic.push_watchdog(&mut args);
        }
        if self.no_reboot {
            args.words(&["-no-reboot"]);
        }
        args.0
    }

    fn push_disk(&self, args: &mut Args) {
        let file = escape(&self.disk);
        args.pair("-drive", format!("if=none,id=disk0,format=raw,discard=unmap,file={file}"));
        self.mimic.push_disk(args);
    }

    fn push_serial(&self, args: &mut Args) {
        match &self.serial {
            Serial::Terminal => {
                args.words(&["-chardev", "stdio,id=serial0,mux=on,signal=off", "-serial", "chardev:serial0"]);
                args.words(&["-mon", "chardev=serial0,mode=readline"]);
            }
            Serial::Output => {
                args.words(&["-chardev", "stdio,id=serial0,signal=off", "-serial", "chardev:serial0"]);
            }
            Serial::Socket(path) => {
                args.pair("-chardev", format!("socket,id=serial0,path={}", escape(path)));
                args.words(&["-serial", "chardev:serial0"]);
            }
        }
    }
}

impl Nic {
    fn push_args(&self, index: usize, slot: &str, args: &mut Args) {
        let id = format!("net{index}");
        let peer = match &self.backend {
            Backend::Stream(path) => {
                let path = escape(path);
                args.pair("-netdev", format!("stream,id={id},server=off,addr.type=unix,addr.path={path}"));
                format!(",netdev={id}")
            }
            Backend::User(net) => {
                args.pair("-netdev", format!("user,id={id},ipv6=off{}", net.options()));
                format!(",netdev={id}")
            }
            Backend::None => String::new(),
        };
        // An id, so that `set_link` finds the card; no option ROM, so that the firmware never boots from it.
        let device = format!("{},id=nic{index},{slot},mac={},romfile={peer}", self.model, self.mac);
        args.pair("-device", device);
    }
}

impl UserNet {
    fn options(&self) -> String {
        let mut text = String::new();
        if let Some(net) = self.net {
            text += &format!(",net={net}");
        }
        if let Some(host) = self.host {
            text += &format!(",host={host}");
        }
        for forward in &self.forwards {
            let protocol = match forward.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let Forward { host_port, guest, guest_port, .. } = forward;
            text += &format!(",hostfwd={protocol}:127.0.0.1:{host_port}-{guest}:{guest_port}");
        }
        text
    }
}

/// The command that starts `machine` with the QEMU of the tool set.
///
/// # Errors
/// When the tool set has no QEMU.
pub fn command(tools: &Tools, machine: &Machine) -> Result<std::process::Command> {
    let mut command = tools.command("qemu-system-x86_64").context("QEMU of the tool set")?;
    command.args(machine.args());
    Ok(command)
}

/// A growing argument list.
#[derive(Debug, Default)]
struct Args(Vec<OsString>);

impl Args {
    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }

    fn pair(&mut self, option: &str, value: String) {
        self.0.push(option.into());
        self.0.push(value.into());
    }
}

/// A path inside a QEMU option: commas are doubled.
fn escape(path: &std::path::Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests;
