//! One image, several machines: what each board's own hardware needs to boot and to serve its office.
//!
//! QEMU mimics the machines as far as it has their parts (`[machine]` in `board/*.toml`); the image is always the
//! same one.

use anyhow::{Context, Result, ensure};
use qemu_tests::console::BOOT_LIMIT;
use qemu_tests::{BoxOptions, IspOptions, PcOptions, World};
use xtask::image::declaration::{BoardFile, Product};
use xtask::qemu::mimic::BootFirmware;
use xtask::workspace::Workspace;

use crate::office::Office;

/// BIOS, SATA, three igb ports, no graphics.
pub(crate) fn pcengines_apu2(world: &mut World) -> Result<()> {
    serves(world, "pcengines-apu2", &["console-ttyS0"])
}

/// UEFI, NVMe, four Intel ports, the chipset's watchdog.
pub(crate) fn protectli_vp24x0(world: &mut World) -> Result<()> {
    serves(world, "protectli-vp24x0", &["console-ttyS0", "console-tty0"])
}

/// A machine that says nothing we know: an old PC with its disk on USB.
pub(crate) fn unknown_machine(world: &mut World) -> Result<()> {
    serves(world, "generic-x86-64", &["console-ttyS0", "console-tty0"])
}

/// Boots on the board's mimic and looks at everything that depends on the board.
fn serves(world: &mut World, name: &str, consoles: &[&str]) -> Result<()> {
    let workspace = Workspace::locate();
    let product = Product::load(&workspace.product("branch"))?;
    let BoardFile { board, machine, .. } = BoardFile::load(&workspace.board(name), &product)?;
    let options =
        BoxOptions { uefi: machine.firmware == BootFirmware::Uefi, mimic: machine, ..BoxOptions::default() };
    // Every port of the board on a wire of its own.
    let ports = board.ports.len().min(4);
    let wires: Vec<_> =
        (1..=ports).map(|port| world.add_wire(&format!("wire{port}"))).collect::<Result<_>>()?;
    world.add_isp(wires[0], IspOptions::default())?;
    let pc = world.add_pc(wires[1], &PcOptions { mac: [2, 0, 0, 0, 0, 0xb0], name: Some("berta") });
    let gateway = world.prepare_box("gateway", &wires, &options)?;
    world.power_on(gateway)?;
    let ready = world.wait_until_ready(gateway)?;
    ensure!(ready.contains("LAN 192.168.77.1/24 on port2"), "{ready}");

    // The PC is plugged into the second port of the case, the provider into the first.
    world.wait_for_lease(pc, Office::LEASE_LIMIT)?;
    world.log_in(gateway)?;
    let status = status(world, gateway)?;
    ensure!(status["init"]["board"] == name, "it takes itself for {}", status["init"]["board"]);
    for (index, mac) in world.vm(gateway).macs.clone().into_iter().enumerate() {
        let port = format!("port{}", index + 1);
        let found = mac_of(&status, &port).with_context(|| format!("{port} is missing: {status}"))?;
        ensure!(found == text(mac), "{port} is the card {found}, not {}", text(mac));
    }
    let running: Vec<&str> = services(&status).filter(|name| name.starts_with("console-")).collect();
    ensure!(running == consoles, "the consoles are {running:?}");

    world.eventually(BOOT_LIMIT, |world| {
        let logs = world.run(gateway, "logs modules -n 100")?;
        ensure!(!logs.contains("no hardware watchdog"), "{logs}");
        let errors = world.run(gateway, "status")?;
        ensure!(!errors.contains("watchdog"), "{errors}");
        Ok(())
    })
}

fn status(world: &mut World, gateway: qemu_tests::BoxId) -> Result<serde_json::Value> {
    let text = world.run(gateway, "status --json")?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

fn services(status: &serde_json::Value) -> impl Iterator<Item = &str> {
    status["init"]["services"].as_array().into_iter().flatten().filter_map(|service| service["name"].as_str())
}

fn mac_of(status: &serde_json::Value, port: &str) -> Option<String> {
    let mut links = status["net"]["links"].as_array().into_iter().flatten();
    Some(links.find(|link| link["name"] == port)?["mac"].as_str()?.to_owned())
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
