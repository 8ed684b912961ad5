//! A stick that is ordered to install itself, in a machine with an empty disk of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use kontor_boot::install::Order;
use kontor_boot::{Guid, PartitionKind};
use qemu_tests::console::site_with_root_shell;
use qemu_tests::{BoxOptions, World};

use crate::office::Office;

/// A boot, the wait for disks that are late, and more than a gibibyte read, written and read back by emulation.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
/// Where the box says which disk it uses.
const USED: &str = "cat /run/kontor/storage/disk; echo";

pub(crate) fn by_order(world: &mut World) -> Result<()> {
    let options = BoxOptions { site: None, stick: true, ..BoxOptions::default() };
    let office = Office::prepare(world, &options)?;
    let order = Order { id: Guid::from_u128(0x5713_4b00 << 64), over: false };
    world.vm(office.gateway).disk()?.write_order(&site_with_root_shell(), &order)?;

    world.power_on(office.gateway)?;
    for said in ["writing vda: ", "reading back vda: ", "done: this box is on vda"] {
        world.wait_for_line(office.gateway, said, INSTALL_LIMIT)?;
    }
    let ended =
        world.wait_for("it switches itself off", INSTALL_LIMIT, |world| world.vm(office.gateway).ended())?;
    ensure!(ended.success(), "QEMU ended with {ended}");
    let stick = world.vm(office.gateway).disk()?;
    let seed = stick.first_sector(PartitionKind::Seed)?;
    ensure!(seed == [0; 512], "the stick's seed is still there");
    ensure!(stick.first_sector(PartitionKind::State)? == [0; 512], "somebody has worked on the stick");
    ensure!(stick.boot_state()?.installed.is_some(), "the stick does not know what was made of it");
    world.vm(office.gateway).internal_disk()?.boot_state()?;

    // Nobody has pulled the stick, and the firmware prefers it: it starts the disk, whose state is the only one.
    world.power_on(office.gateway)?;
    world.wait_until_ready(office.gateway)?;
    office.wait_until_durable(world)?;
    // The lease it has is of the stick, which kept it in RAM.
    world.pc(office.pc).restart_dhcp();
    let lease = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    world.open_shell(office.gateway)?;
    let used = world.shell(office.gateway, USED)?;
    ensure!(used.contains("/dev/vda"), "it uses {used}");
    let mounts = world.shell(office.gateway, "cat /proc/mounts")?;
    ensure!(mounts.contains("/dev/vda8 /state") && !mounts.contains("/dev/sda"), "{mounts}");
    world.vm(office.gateway).power_cut()?;

    world.vm(office.gateway).take_stick_out()?;
    world.power_on(office.gateway)?;
    world.wait_until_ready(office.gateway)?;
    office.ensure_lease_is_known(world)?;
    world.pc(office.pc).restart_dhcp();
    let again = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    ensure!(again.address == lease.address, "{} became {}", lease.address, again.address);
    office.wait_until_online(world)
}
