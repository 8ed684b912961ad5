//! A kernel that panics, a process 1 that hangs, and people who lose patience: who starts again, and at what cost.

use std::time::Duration;

use anyhow::{Result, ensure};
use kontor_boot::slots::{MAX_TRIES, Slot};
use qemu_tests::{BoxOptions, World};

use crate::office::Office;
use crate::scene::Scene;

const POWER_OFF_LIMIT: Duration = Duration::from_secs(90);

const STORAGE_LIMIT: Duration = Duration::from_secs(120);

fn typed(world: &mut World, scene: &Scene, line: &str) -> Result<()> {
    let serial = &mut world.vm(scene.office.gateway).serial;
    serial.skip();
    serial.send(&format!("{line}\r"))
}

/// The kernel shows its panic for ten seconds and starts again.
pub(crate) fn panic(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, BoxOptions::default())?;
    scene.office.wait_until_durable_in_shell(world)?;
    typed(world, &scene, "echo c > /proc/sysrq-trigger")?;
    world.wait_until_ready(scene.office.gateway)?;
    scene.office.ensure_lease_is_known(world)
}

/// Process 1 cannot be stopped by a signal, but it can be frozen: then nobody feeds the hardware watchdog.
pub(crate) fn frozen_process_1(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, BoxOptions::default())?;
    scene.office.wait_until_durable_in_shell(world)?;
    let armed = scene.shell(world, "dmesg | grep -c 'hardware watchdog armed'")?;
    ensure!(armed.trim() == "1", "the watchdog is not armed: {armed}");
    let group = "/sys/fs/cgroup/frozen";
    typed(
        world,
        &scene,
        &format!("mkdir {group}; echo 1 > {group}/cgroup.procs; echo 1 > {group}/cgroup.freeze"),
    )?;
    world.wait_until_ready(scene.office.gateway)?;
    scene.office.ensure_lease_is_known(world)
}

/// Somebody switches the box off before it has proved itself, again and again: that is no reason to distrust it.
pub(crate) fn orderly_ends(world: &mut World) -> Result<()> {
    let office = Office::prepare(world, &BoxOptions::default())?;
    for round in 1..=MAX_TRIES + 1 {
        world.power_on(office.gateway)?;
        let ready = world.wait_until_ready(office.gateway)?;
        ensure!(ready.contains("slot a"), "boot {round}: {ready}");
        // Whoever leaves before the disk is there cannot give anything back.
        world.wait_for("the state of the slot on the console", STORAGE_LIMIT, |world| {
            let named = world.vm(office.gateway).serial.text().matches(", slot a (").count();
            Ok((named >= usize::from(round)).then_some(()))
        })?;
        office.power_off_in_order(world, POWER_OFF_LIMIT)?;
        let state = world.vm(office.gateway).disk()?.boot_state()?;
        ensure!(state.tries[Slot::A.index()] == MAX_TRIES, "after boot {round}: {state:?}");
    }
    Ok(())
}
