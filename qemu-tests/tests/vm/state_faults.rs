//! What survives on the disk is lost or damaged between two boots: the box boots, keeps the office's
//! addresses, serves it, and says what was lost.

use anyhow::{Result, ensure};
use kontor_boot::PartitionKind;
use kontor_boot::slots::{MAX_TRIES, Slot};
use qemu_tests::console::{BOOT_LIMIT, site_with_root_shell};
use qemu_tests::{BoxOptions, World};

use crate::disk_faults::{NOTICE_LIMIT, in_root_shell, status_says};
use crate::office::Office;

/// Not the default site's network: only a stored site file knows it.
const LAN: &str = "LAN 192.168.99.1/24";
/// Everything in ARCHITECTURE's table that the box keeps on `state`.
const FILES: &str = "site/site.toml site/good.toml site/history/0001.toml site/history/0001.info.toml \
                     netd/ports.json netd/wan-lease.json init/clock timed/drift dhcpd/leases.journal";

/// More than the first copy of the state file system's superblock, which is at 32 MiB: nothing leads back.
const GARBAGE: u64 = 40 << 20;

/// An office with addresses of its own, durable, its PC with a lease.
fn office_that_was(world: &mut World) -> Result<Office> {
    let site = site_with_root_shell().replace("192.168.77.", "192.168.99.");
    let office = Office::boot(world, &BoxOptions { site: Some(site), ..BoxOptions::default() })?;
    ensure!(office.ready.contains(LAN), "{}", office.ready);
    office.wait_until_durable(world)?;
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    Ok(office)
}

/// The box comes up with the office's own addresses and serves it; its operator is logged in.
fn serves_again(world: &mut World, office: &Office) -> Result<()> {
    world.power_on(office.gateway)?;
    let ready = world.wait_until_ready(office.gateway)?;
    ensure!(ready.contains(LAN), "the office's addresses are lost: {ready}");
    world.pc(office.pc).restart_dhcp();
    let lease = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    ensure!(lease.router.is_some_and(|router| router.octets() == [192, 168, 99, 1]), "{lease:?}");
    world.log_in(office.gateway)
}

/// The first `length` bytes of each of these partitions become `byte`.
fn overwrite(
    world: &mut World,
    office: &Office,
    kinds: &[PartitionKind],
    length: u64,
    byte: u8,
) -> Result<()> {
    let disk = world.vm(office.gateway).disk()?;
    kinds.iter().try_for_each(|kind| disk.overwrite(*kind, length, byte))
}

pub(crate) fn data_zeroed(world: &mut World) -> Result<()> {
    let office = office_that_was(world)?;
    world.vm(office.gateway).power_cut()?;
    overwrite(world, &office, &[PartitionKind::State, PartitionKind::Data], 8 << 20, 0)?;
    serves_again(world, &office)?;
    status_says(world, &office, "LAST GOOD site file")?;
    status_says(world, &office, "the operator's site file is not on the state partition")?;
    office.is_durable(world)
}

pub(crate) fn data_and_system_missing(world: &mut World) -> Result<()> {
    let office = office_that_was(world)?;
    world.vm(office.gateway).power_cut()?;
    let gone = [PartitionKind::System, PartitionKind::State, PartitionKind::Data];
    world.vm(office.gateway).disk()?.remove_partitions(&gone)?;
    serves_again(world, &office)?;
    status_says(world, &office, "no state partition")?;
    status_says(world, &office, "no data partition")?;
    status_says(world, &office, "no system partition")?;
    status_says(world, &office, "in RAM only")
}

pub(crate) fn data_and_system_garbage(world: &mut World) -> Result<()> {
    let office = office_that_was(world)?;
    world.vm(office.gateway).power_cut()?;
    let all = [PartitionKind::System, PartitionKind::State, PartitionKind::Data];
    overwrite(world, &office, &all, GARBAGE, 0xa5)?;
    serves_again(world, &office)?;
    status_says(world, &office, "holds something else")?;
    status_says(world, &office, "no system partition")?;
    status_says(world, &office, "was made anew")?;
    office.is_durable(world)
}

/// The first blocks, with superblock and mark, are overwritten: a copy of the superblock leads back to everything.
pub(crate) fn state_mended(world: &mut World) -> Result<()> {
    let office = office_that_was(world)?;
    world.vm(office.gateway).power_cut()?;
    world.vm(office.gateway).disk()?.overwrite(PartitionKind::State, 8 << 10, 0xa5)?;
    serves_again(world, &office)?;
    status_says(world, &office, "was damaged and has been mended")?;
    office.is_durable(world)?;
    world.vm(office.gateway).power_cut()?;
    serves_again(world, &office)?;
    let status = world.run(office.gateway, "status")?;
    ensure!(status.contains("operator's site file") && !status.contains("mended"), "{status}");
    Ok(())
}

pub(crate) fn state_files_damaged(world: &mut World) -> Result<()> {
    let office = office_that_was(world)?;
    for damage in [
        "echo garbage > $f; chown 0:0 $f; chmod 0 $f",
        ": > $f",
        "head -c 20 $f > $f.cut; mv $f.cut $f",
        "rm -rf $f; mkdir -p $f/x",
    ] {
        let each = format!("cd /state; for f in {FILES}; do {damage}; done; cd /; sync");
        in_root_shell(world, &office, &each)?;
        world.vm(office.gateway).power_cut()?;
        serves_again(world, &office)?;
        office.is_durable(world)?;
        status_says(world, &office, "all ")?;
        world.eventually(NOTICE_LIMIT, |world| {
            let pins = in_root_shell(world, &office, "ls -ld /state/netd/ports.json")?;
            ensure!(pins.contains("-rw"), "the pins are not written again after {damage:?}: {pins}");
            Ok(())
        })?;
    }
    let kept = in_root_shell(world, &office, "ls /state/*")?;
    for name in ["leases.journal.damaged", "ports.json.damaged", "wan-lease.json.damaged"] {
        ensure!(kept.contains(name), "{name} is not kept: {kept}");
    }
    Ok(())
}

pub(crate) fn boot_state_wiped(world: &mut World) -> Result<()> {
    let office = office_that_was(world)?;
    world.vm(office.gateway).power_cut()?;
    // The state and GRUB's frame around it, not the site's copies behind.
    world.vm(office.gateway).disk()?.overwrite(PartitionKind::BootState, 64 << 10, 0x5a)?;
    serves_again(world, &office)?;
    status_says(world, &office, "the boot state was damaged")?;
    status_says(world, &office, "(good)")?;
    world.vm(office.gateway).power_cut()?;
    let state = world.vm(office.gateway).disk()?.boot_state()?;
    ensure!(state.tries[Slot::A.index()] == MAX_TRIES, "{state:?}");
    // GRUB takes a try again.
    world.vm(office.gateway).serial.skip();
    world.power_on(office.gateway)?;
    world.expect(office.gateway, "Press Enter", BOOT_LIMIT)?;
    world.vm(office.gateway).power_cut()?;
    let state = world.vm(office.gateway).disk()?.boot_state()?;
    ensure!(state.tries[Slot::A.index()] == MAX_TRIES - 1, "GRUB counts no tries: {state:?}");
    Ok(())
}
