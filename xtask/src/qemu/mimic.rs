//! How QEMU mimics a board: the `[machine]` table of its file, and the devices it becomes.
//!
//! Only what matters to the firmware is mimicked: what the machine says it is, how its disk and its ports are
//! reached, what its console is, and which watchdog there is.

use kontor_config::board::{BoardMatch, Dmi};
use serde::Deserialize;

use super::{Args, DISK_SLOT, FIRST_NIC_SLOT, WATCHDOG_SLOT};

/// A machine's hardware, without its size.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Mimic {
    /// Chipset.
    pub chipset: Chipset,
    /// Boot firmware the real board comes with.
    pub firmware: BootFirmware,
    /// How the disk is reached.
    pub disk: DiskBus,
    /// What the network ports are.
    pub nic: NicModel,
    /// Hardware watchdog.
    pub watchdog: WatchdogModel,
    /// Whether there is a graphics card.
    pub vga: bool,
    /// What the machine says it is.
    #[serde(skip)]
    pub identity: Dmi,
}

impl Default for Mimic {
    /// The machine of `cargo xtask run` and of the tests, as `board/qemu.toml` has it.
    fn default() -> Self {
        Self {
            chipset: Chipset::Q35,
            firmware: BootFirmware::Bios,
            disk: DiskBus::Virtio,
            nic: NicModel::Virtio,
            watchdog: WatchdogModel::I6300esb,
            vga: true,
            identity: Dmi {
                vendor: "QEMU".to_owned(),
                product: "Kontor test machine".to_owned(),
                board: String::new(),
            },
        }
    }
}

/// Chipset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chipset {
    /// PCI Express, since 2007.
    Q35,
    /// Plain PCI, before that.
    Pc,
}

/// Boot firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootFirmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// How the disk is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// Paravirtual.
    Virtio,
    /// SATA, the chipset's own controller.
    Ahci,
    /// NVM Express.
    Nvme,
    /// USB mass storage on an xHCI controller.
    Usb,
}

/// What the network ports are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// Paravirtual, on the root bus.
    Virtio,
    /// Intel 82576, the family of i210 and i211, each behind a root port.
    Igb,
    /// Intel 82574, each behind a root port.
    E1000e,
}

/// Hardware watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchdogModel {
    /// Intel 6300ESB, a PCI device.
    I6300esb,
    /// That of the q35's chipset.
    Itco,
}

impl Mimic {
    /// The same machine, saying of itself what a board file asks for.
    #[must_use]
    pub fn identified(self, wanted: &BoardMatch) -> Self {
        let first = |list: &[String]| list.first().cloned().unwrap_or_default();
        let board = first(&wanted.dmi_board);
        let product = wanted.dmi_product.first().unwrap_or(&board).clone();
        Self { identity: Dmi { vendor: first(&wanted.dmi_vendor), product, board }, ..self }
    }

    pub(super) fn push_machine(&self, args: &mut Args) {
        let machine = match self.chipset {
            Chipset::Q35 => "q35,usb=off,hpet=off",
            Chipset::Pc => "pc,usb=off,hpet=off",
        };
        args.words(&["-machine", machine]);
        self.push_identity(args);
        if self.vga {
            // A graphics card without a window: the VGA console is real and can be looked at over QMP. The old
            // chipset has its own functions where the card is on the new one.
            let slot = if self.chipset == Chipset::Q35 { 0x1 } else { 0x1e };
            args.pair("-device", format!("VGA,addr={slot:#x}"));
        }
    }

    fn push_identity(&self, args: &mut Args) {
        let Dmi { vendor, product, board } = &self.identity;
        for (kind, texts) in [(1, [vendor, product]), (2, [vendor, board])] {
            let keys = ["manufacturer", "product"].into_iter().zip(texts);
            let said: Vec<String> = keys
                .filter(|(_, text)| !text.is_empty())
                .map(|(key, text)| format!(",{key}={}", comma(text)))
                .collect();
            if !said.is_empty() {
                args.pair("-smbios", format!("type={kind}{}", said.concat()));
            }
        }
    }

    /// The disk's device; its drive is `disk0`.
    pub(super) fn push_disk(&self, args: &mut Args) {
        let slot = format!("addr={DISK_SLOT:#x}");
        match self.disk {
            DiskBus::Virtio => args.pair("-device", format!("virtio-blk-pci,drive=disk0,{slot},bootindex=1")),
            DiskBus::Ahci => args.pair("-device", "ide-hd,drive=disk0,bus=ide.0,bootindex=1".to_owned()),
            DiskBus::Nvme => {
                args.pair("-device", format!("nvme,drive=disk0,serial=disk0,{slot},bootindex=1"))
            }
            DiskBus::Usb => {
                args.pair("-device", format!("qemu-xhci,id=usb0,{slot}"));
                args.pair("-device", "usb-storage,drive=disk0,bus=usb0.0,bootindex=1".to_owned());
            }
        }
    }

    pub(super) fn push_watchdog(&self, args: &mut Args) {
        match self.watchdog {
            WatchdogModel::I6300esb => args.pair("-device", format!("i6300esb,addr={WATCHDOG_SLOT:#x}")),
            // A strap of the chipset forbids the reset otherwise.
            WatchdogModel::Itco => args.words(&["-global", "ICH9-LPC.noreboot=off"]),
        }
        args.words(&["-action", "watchdog=reset"]);
    }

    /// Where the port of this index is plugged in; makes the root port for it if it needs one.
    pub(super) fn push_slot(&self, index: usize, args: &mut Args) -> String {
        let slot = FIRST_NIC_SLOT + index;
        if self.nic == NicModel::Virtio || self.chipset == Chipset::Pc {
            return format!("addr={slot:#x}");
        }
        args.pair("-device", format!("pcie-root-port,id=slot{index},chassis={},addr={slot:#x}", index + 1));
        format!("bus=slot{index}")
    }
}

impl NicModel {
    /// QEMU's device.
    #[must_use]
    pub fn device(self) -> &'static str {
        match self {
            Self::Virtio => super::VIRTIO_NET,
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
        }
    }
}

/// A value inside a QEMU option: commas are doubled.
fn comma(text: &str) -> String {
    text.replace(',', ",,")
}
