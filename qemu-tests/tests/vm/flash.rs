//! An image flashed as an operator would flash it, and the box that boots from it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use kontor_boot::PartitionKind;
use qemu_tests::console::site_with_operator;
use qemu_tests::{BoxOptions, World};
use xtask::qemu::disk::MACHINE_SIZE;

use crate::office::Office;

/// Not the default's, so that it must come from the flashed site file.
const NAS: &str = "[[dns.host]]\nname = \"nas\"\naddress = \"192.168.77.5\"\n";

pub(crate) fn boots(world: &mut World) -> Result<()> {
    let site = world.artefacts().directory().join("site.toml");
    std::fs::write(&site, site_with_operator(NAS))?;
    let office = Office::prepare(world, &BoxOptions { site: None, ..BoxOptions::default() })?;

    // Instead of the copy that the box would have got: the whole command, on a disk with other things on it.
    let disk = world.vm(office.gateway).disk_path().to_owned();
    let file = std::fs::OpenOptions::new().write(true).open(&disk)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xa5; 64 << 20], 0)?;
    drop(file);
    let image = std::env::var(xtask::command::test::IMAGE).context("no image")?;
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(["run", "--quiet", "--package", "xtask", "--", "flash", &image]).arg(&disk);
    command.arg("--site").arg(&site).args(["--board", "qemu", "--yes-erase-all-data-on-target"]);
    let output = command.output().context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "flash failed: {said}");
    for expected in ["everything on this target will be lost", "writing: ", "MiB/s", "reading back: "] {
        ensure!(said.contains(expected), "flash did not say {expected:?}: {said}");
    }

    let table = world.vm(office.gateway).disk()?;
    let (offset, length) = table.partition(PartitionKind::Data)?;
    ensure!(offset + length > MACHINE_SIZE - (2 << 20), "data ends at {} of {MACHINE_SIZE}", offset + length);
    world.power_on(office.gateway)?;
    world.wait_until_ready(office.gateway)?;
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    let nas =
        world.eventually(Office::LEASE_LIMIT, |world| world.resolve(office.pc, "nas.office.internal"))?;
    ensure!(nas.octets() == [192, 168, 77, 5], "nas is {nas}");
    office.wait_until_durable(world)
}
