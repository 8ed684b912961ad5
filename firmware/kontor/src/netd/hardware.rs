//! Network cards as sysfs shows them: interfaces with hardware behind them, and PCI network controllers
//! whose driver has not come up yet.

use std::fs;
use std::path::Path;

use kontor_config::Board;
use kontor_network::{LinkKind, Nic, Observed};

/// PCI class of Ethernet controllers (base class 02, sub-class 00), as sysfs prints it.
const ETHERNET_CLASS: &str = "0x0200";

/// Every card that may be a port. An interface without hardware counts only if it already has a port's name:
/// that is how a trial run in a network namespace provides its ports.
pub(crate) fn nics(sys: &Path, observed: &Observed, board: &Board) -> Vec<Nic> {
    let mut nics = Vec::new();
    for link in observed.links.iter().filter(|link| link.kind == LinkKind::Other) {
        let device = fs::canonicalize(sys.join("class/net").join(&link.name).join("device")).ok();
        if device.is_none() && !board.port_names().any(|port| port == link.name) {
            continue;
        }
        let pci = device.as_deref().and_then(pci_path);
        nics.push(Nic { index: Some(link.index), pci, mac: link.mac });
    }
    for pci in ethernet_controllers(&sys.join("bus/pci/devices")) {
        if !nics.iter().any(|nic| nic.pci.as_ref() == Some(&pci)) {
            nics.push(Nic { index: None, pci: Some(pci), mac: None });
        }
    }
    nics
}

/// The last PCI address on a device path; none when the card hangs on USB behind a PCI controller.
fn pci_path(device: &Path) -> Option<String> {
    let parts: Vec<&str> = device.iter().filter_map(|part| part.to_str()).collect();
    if parts.iter().any(|part| part.starts_with("usb")) {
        return None;
    }
    parts.into_iter().rev().find(|part| is_pci_address(part)).map(str::to_owned)
}

/// `0000:00:02.0`
fn is_pci_address(text: &str) -> bool {
    let fields: Vec<&str> = text.split([':', '.']).collect();
    let hex = |field: &&str| field.chars().all(|c| c.is_ascii_hexdigit());
    let widths: Vec<usize> = fields.iter().map(|field| field.len()).collect();
    matches!(widths.as_slice(), [domain, 2, 2, 1] if *domain >= 4) && fields.iter().all(hex)
}

fn ethernet_controllers(devices: &Path) -> Vec<String> {
    let is_ethernet = |path: &Path| {
        fs::read_to_string(path.join("class")).is_ok_and(|class| class.starts_with(ETHERNET_CLASS))
    };
    let entries = fs::read_dir(devices).into_iter().flatten().flatten();
    let ethernet = entries.filter(|entry| is_ethernet(&entry.path()));
    ethernet.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pci_address_of_a_device_path() {
        let check = |path: &str, expect: Option<&str>| {
            assert_eq!(pci_path(Path::new(path)).as_deref(), expect, "{path}");
        };
        check("/sys/devices/pci0000:00/0000:00:02.0/virtio0", Some("0000:00:02.0"));
        check("/sys/devices/pci0000:00/0000:00:1c.0/0000:03:00.1", Some("0000:03:00.1"));
        check("/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0", None);
        check("/sys/devices/virtual/net/port1", None);
    }

    #[test]
    fn controllers_without_driver_are_listed_once() {
        let sys = tempfile::tempdir().unwrap();
        for (address, class) in [("0000:00:02.0", "0x020000\n"), ("0000:00:1f.2", "0x010601\n")] {
            let dir = sys.path().join("bus/pci/devices").join(address);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("class"), class).unwrap();
        }
        let nics = nics(sys.path(), &Observed::default(), &Board::default());
        assert_eq!(nics, [Nic { index: None, pci: Some("0000:00:02.0".into()), mac: None }]);
    }
}
