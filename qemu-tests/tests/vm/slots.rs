//! A slot that does not start, and a box that has no tries left.

use std::time::Duration;

use anyhow::{Result, ensure};
use kontor_boot::slots::{BootState, MAX_TRIES, Slot};
use qemu_tests::console::BOOT_LIMIT;
use qemu_tests::{BoxOptions, World};

use crate::office::Office;

/// Each try of a slot that panics: a boot, and the ten seconds the kernel shows its panic.
const TRIES_LIMIT: Duration = Duration::from_secs(2 * BOOT_LIMIT.as_secs());
const HEALTH_LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn erased(world: &mut World) -> Result<()> {
    let office = Office::prepare(world, &BoxOptions::default())?;
    world.vm(office.gateway).disk()?.erase_slot(Slot::A)?;
    world.power_on(office.gateway)?;
    let ready = world.wait_until_ready(office.gateway)?;
    ensure!(ready.contains("slot b"), "{ready}");
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    Ok(())
}

pub(crate) fn panicking(world: &mut World) -> Result<()> {
    let office = Office::prepare(world, &BoxOptions::default())?;
    world.vm(office.gateway).disk()?.spoil_initrd(Slot::A)?;
    world.power_on(office.gateway)?;
    let ready = world.wait_for_line(office.gateway, "kontor: gateway ready", TRIES_LIMIT)?;
    ensure!(ready.contains("slot b"), "{ready}");
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    world.vm(office.gateway).power_cut()?;
    let state = world.vm(office.gateway).disk()?.boot_state()?;
    ensure!(state.tries[Slot::A.index()] == 0, "slot a was given up early: {state:?}");
    Ok(())
}

pub(crate) fn out_of_tries(world: &mut World) -> Result<()> {
    let office = Office::prepare(world, &BoxOptions::default())?;
    let state =
        BootState { active: Slot::A, last_good: Slot::B, tries: [0, 0], good: [true, true], installed: None };
    world.vm(office.gateway).disk()?.set_boot_state(&state)?;
    world.power_on(office.gateway)?;
    let ready = world.wait_until_ready(office.gateway)?;
    ensure!(ready.contains("slot b"), "{ready}");

    // Healthy for five seconds, it proves itself again.
    world.log_in(office.gateway)?;
    world.eventually(HEALTH_LIMIT, |world| {
        let status = world.run(office.gateway, "status")?;
        ensure!(status.contains("(good)"), "not good: {status}");
        Ok(())
    })?;
    world.vm(office.gateway).power_cut()?;
    let state = world.vm(office.gateway).disk()?.boot_state()?;
    ensure!(state.tries[Slot::B.index()] == MAX_TRIES, "{state:?}");
    ensure!((state.active, state.last_good) == (Slot::B, Slot::B), "{state:?}");
    Ok(())
}
