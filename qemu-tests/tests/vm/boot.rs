//! From power-on to power-off.

use std::time::Duration;

use anyhow::{Result, ensure};
use kontor_boot::PartitionKind;
use qemu_tests::{BoxOptions, World};
use xtask::qemu::disk::MACHINE_SIZE;

use crate::office::Office;

const POWER_OFF_LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn by_seabios(world: &mut World) -> Result<()> {
    let office = Office::boot(world, &BoxOptions::default())?;
    ensure!(office.ready.contains("LAN 192.168.77.1/24"), "{}", office.ready);
    ensure!(office.ready.contains("slot a"), "{}", office.ready);
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    Ok(())
}

pub(crate) fn by_ovmf(world: &mut World) -> Result<()> {
    let office = Office::boot(world, &BoxOptions { uefi: true, ..BoxOptions::default() })?;
    ensure!(office.ready.contains("slot a"), "{}", office.ready);
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    Ok(())
}

pub(crate) fn power_button(world: &mut World) -> Result<()> {
    let office = Office::boot(world, &BoxOptions::default())?;
    office.power_off_in_order(world, POWER_OFF_LIMIT)
}

pub(crate) fn data_grows(world: &mut World) -> Result<()> {
    // What a partition table of 128 entries keeps for its copy at the end, and alignment.
    const ROOM: u64 = 2 << 20;
    let office = Office::boot(world, &BoxOptions::default())?;
    office.wait_until_durable(world)?;
    world.vm(office.gateway).power_cut()?;
    let (offset, length) = world.vm(office.gateway).disk()?.partition(PartitionKind::Data)?;
    let end = offset + length;
    ensure!(end > MACHINE_SIZE - ROOM, "data ends at {end} on a disk of {MACHINE_SIZE} bytes");
    Ok(())
}
