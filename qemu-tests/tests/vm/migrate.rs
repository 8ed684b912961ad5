//! What a box keeps, under releases of which one knows a newer schema than the other.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kontor_boot::Slot;
use qemu_tests::release::Draft;
use qemu_tests::{PcId, PcOptions, World};

use crate::office::Office;
use crate::update::{TRIAL_LIMIT, UPDATE_LIMIT, Updated};

/// The box begins to look for the way to the release by itself when `system` is mounted.
const RESUME_LIMIT: Duration = Duration::from_secs(2 * UPDATE_LIMIT.as_secs());

/// There: when no other slot needs the older schema any more. Back: before a release is installed that knows no other.
pub(crate) fn there_and_back(world: &mut World) -> Result<()> {
    let updated = Updated::open(world)?;
    updated.office.is_durable(world)?;
    let old = updated.draft("0.1.0")?;
    updated.publish(&old)?;
    let new = updated.draft_by("0.2.0", Draft::build_migrating)?;
    updated.publish(&new)?;
    world.run(updated.office.gateway, "update check")?;
    updated.restarts_into(world, Slot::B, UPDATE_LIMIT)?;
    updated.has_schema(world, "0.2.0 runs; everything that worked", "schema 1; this release reads 1 to 2")?;
    let mut leases = vec![(Office::PC_NAME, address(world, updated.office.pc)?)];
    leases.push(lease(world, &updated, "berta", 0xb1)?);

    // The old release has everything, also the lease that it has not given.
    world.run(updated.office.gateway, "update rollback")?;
    updated.restarts_into(world, Slot::A, UPDATE_LIMIT)?;
    updated.has_schema(world, "an operator has gone back from 0.2.0", "schema 1; this release reads 1\n")?;
    knows(world, &updated, &leases)?;

    // As if the power had gone while slot a was being written over: there is nothing left to go back to.
    world.vm(updated.office.gateway).power_cut()?;
    let disk = world.vm(updated.office.gateway).disk()?;
    let mut state = disk.boot_state()?;
    state.mark_good(Slot::B);
    state.invalidate(Slot::A);
    disk.set_boot_state(&state)?;
    world.power_on(updated.office.gateway)?;
    updated.is_in(world, Slot::B)?;
    updated.has_schema(world, "", "schema 2; this release reads 1 to 2")?;
    knows(world, &updated, &leases)?;
    updated.office.is_durable(world)?;
    leases.push(lease(world, &updated, "clara", 0xc1)?);

    updated.withdraw(&new)?;
    world.run(updated.office.gateway, "update check")?;
    updated.restarts_into(world, Slot::B, UPDATE_LIMIT)?;
    updated.has_schema(world, "0.1.0 reads schema 1 of what this box keeps", "schema 1; this release")?;
    updated.restarts_into(world, Slot::A, RESUME_LIMIT)?;
    updated.has_schema(world, "0.1.0 runs; everything that worked", "schema 1; this release reads 1\n")?;
    knows(world, &updated, &leases)
}

fn address(world: &mut World, pc: PcId) -> Result<Ipv4Addr> {
    Ok(world.pc(pc).lease().context("the PC has no lease")?.address.address())
}

/// One more PC.
fn lease(
    world: &mut World,
    updated: &Updated,
    name: &'static str,
    mac: u8,
) -> Result<(&'static str, Ipv4Addr)> {
    let pc = world.add_pc(updated.office.lan, &PcOptions { mac: [2, 0, 0, 0, 0, mac], name: Some(name) });
    world.wait_for_lease(pc, Office::LEASE_LIMIT)?;
    Ok((name, address(world, pc)?))
}

/// The PCs have not asked again: what the box knows of them was kept.
fn knows(world: &mut World, updated: &Updated, leases: &[(&str, Ipv4Addr)]) -> Result<()> {
    for (name, address) in leases {
        let name = format!("{name}.office.internal");
        let known = world.eventually(Office::LEASE_LIMIT, |world| world.resolve(updated.office.pc, &name))?;
        ensure!(known == *address, "{name} was {address}, is {known}");
    }
    Ok(())
}

impl Updated {
    fn restarts_into(&self, world: &mut World, slot: Slot, limit: Duration) -> Result<()> {
        world.wait_for_line(self.office.gateway, "going down (Reboot)", limit)?;
        self.is_in(world, slot)
    }

    /// The operator is logged in then.
    fn is_in(&self, world: &mut World, slot: Slot) -> Result<()> {
        let ready = world.wait_until_ready(self.office.gateway)?;
        ensure!(ready.contains(&format!("slot {slot}")), "{ready}");
        world.log_in(self.office.gateway)
    }

    /// The story has this in it, and this schema is in force.
    fn has_schema(&self, world: &mut World, part: &str, schema: &str) -> Result<()> {
        let story = self.wait_for(world, "update", part, TRIAL_LIMIT)?;
        println!("{story}");
        self.wait_for(world, "update", schema, TRIAL_LIMIT).map(drop)
    }
}
