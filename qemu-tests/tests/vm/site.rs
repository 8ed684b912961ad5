//! A new site file on a running box.

use anyhow::{Result, ensure};
use qemu_tests::World;
use qemu_tests::console::site_with_operator;

use crate::office::Office;

const NAS: &str = "[[dns.host]]\nname = \"nas\"\naddress = \"192.168.77.5\"\n";

pub(crate) fn reload_keeps_connections(world: &mut World) -> Result<()> {
    let office = Office::open(world)?;
    let web = world.isp(office.isp).options.web_server;
    let connection = world.connect(office.pc, web, 7)?;
    world.echo(connection, b"before")?;

    world.log_in(office.gateway)?;
    let said = world.load_site(office.gateway, &site_with_operator(NAS))?;
    let nas = world
        .eventually(Office::LEASE_LIMIT, |world| world.resolve(office.pc, "nas.office.internal"))
        .map_err(|error| error.context(format!("the box said: {said}")))?;
    ensure!(nas.octets() == [192, 168, 77, 5], "nas is {nas}");
    world.echo(connection, b"after")?;
    world.close(connection);
    office.wait_until_online(world)
}

pub(crate) fn error_changes_nothing(world: &mut World) -> Result<()> {
    let office = Office::open(world)?;
    world.log_in(office.gateway)?;
    world.load_site(office.gateway, &site_with_operator(NAS))?;
    world.eventually(Office::LEASE_LIMIT, |world| world.resolve(office.pc, "nas.office.internal"))?;

    let wrong = site_with_operator(NAS).replace("lease-time-s", "lease-tiem-s");
    let said = world.load_site(office.gateway, &wrong)?;
    ensure!(said.contains("lease-tiem-s"), "the error does not show the line: {said}");
    ensure!(said.contains('^'), "the error shows no caret: {said}");
    let status = world.run(office.gateway, "status")?;
    ensure!(status.contains("lease-tiem-s"), "the status does not show the error: {status}");
    let shown = world.run(office.gateway, "site show")?;
    ensure!(shown.contains("nas") && !shown.contains("lease-tiem-s"), "not the last good site: {shown}");
    ensure!(world.resolve(office.pc, "nas.office.internal")?.octets() == [192, 168, 77, 5]);

    // And so it is after a restart.
    world.vm(office.gateway).serial.send("reboot\r")?;
    world.wait_until_ready(office.gateway)?;
    let nas =
        world.eventually(Office::LEASE_LIMIT, |world| world.resolve(office.pc, "nas.office.internal"))?;
    ensure!(nas.octets() == [192, 168, 77, 5], "after a restart nas is {nas}");
    Ok(())
}
