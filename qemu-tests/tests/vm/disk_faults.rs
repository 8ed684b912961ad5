//! The disk is pulled, dies, hangs, crawls or is full: leases and names go on, and the box says so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::block::trace::{Base, Recorder};
use qemu_tests::block::{BlockServer, Mood};
use qemu_tests::console::site_with_root_shell;
use qemu_tests::disk::Disk;
use qemu_tests::{BoxOptions, PcOptions, World};
use xtask::qemu::disk::{MACHINE_SIZE, copy_sparse};

use crate::office::Office;

/// Detection of what does not announce itself takes up to half a minute of the box's time.
pub(crate) const NOTICE_LIMIT: Duration = Duration::from_secs(240);
/// Name of a PC that comes while the disk is away.
const NEW_PC: &str = "berta";
const NOT_DURABLE: &str = "NOTHING IS DURABLE";

/// A disk of a box that the test serves, with this site in its seed.
pub(crate) fn served_disk(world: &mut World, site: &str) -> Result<BlockServer<Recorder>> {
    let base = flashed(world, site)?;
    BlockServer::start(world.artefacts().socket("served"), Recorder::new(base))
}

/// What is on a disk that was flashed with this site.
pub(crate) fn flashed(world: &mut World, site: &str) -> Result<Base> {
    let image = world.artefacts().directory().join("served.img");
    copy_sparse(&world.equipment()?.image, &image, MACHINE_SIZE)?;
    Disk::open(&image)?.write_seed(site, None)?;
    let base = Base::open(&image)?;
    // The open file is enough; a failed test leaves no disk behind.
    std::fs::remove_file(&image)?;
    Ok(base)
}

/// The office with a lease, durable, its disk in the test's hand, its operator logged in.
fn office_with_served_disk(world: &mut World) -> Result<(Office, BlockServer<Recorder>)> {
    let server = served_disk(world, &site_with_root_shell())?;
    let served_disk = Some(server.socket().to_owned());
    let office = Office::boot(world, &BoxOptions { served_disk, ..BoxOptions::default() })?;
    office.wait_until_durable(world)?;
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    Ok((office, server))
}

/// Runs one line in the root shell of a logged-in operator; what came up.
pub(crate) fn in_root_shell(world: &mut World, office: &Office, line: &str) -> Result<String> {
    world.vm(office.gateway).serial.send("shell\r")?;
    world.expect(office.gateway, "root# ", Office::LEASE_LIMIT)?;
    world.vm(office.gateway).serial.send(&format!("{line}; exit\r"))?;
    world.expect(office.gateway, "kontor> ", NOTICE_LIMIT).context(line.to_owned())
}

/// The status says `words` sooner or later.
pub(crate) fn status_says(world: &mut World, office: &Office, words: &str) -> Result<()> {
    world.eventually(NOTICE_LIMIT, |world| {
        let status = world.run(office.gateway, "status")?;
        ensure!(status.contains(words), "the status does not say {words:?}: {status}");
        Ok(())
    })
}

/// The old PC keeps its address, a new one gets another and a name, and the box admits what that is worth.
fn office_goes_on(world: &mut World, office: &Office) -> Result<std::net::Ipv4Addr> {
    let before = world.pc(office.pc).lease().context("no lease before")?.address;
    world.pc(office.pc).restart_dhcp();
    let after = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?.address;
    ensure!(before == after, "{before} became {after}");
    let new = world.add_pc(office.lan, &PcOptions { mac: [2, 0, 0, 0, 0, 0xb1], name: Some(NEW_PC) });
    let address = world.wait_for_lease(new, Office::LEASE_LIMIT)?.address.address();
    let name = format!("{NEW_PC}.office.internal");
    let found = world.eventually(Office::LEASE_LIMIT, |world| world.resolve(new, &name))?;
    ensure!(found == address, "{NEW_PC} has {address}, but resolves to {found}");
    Ok(address)
}

/// After the disk is back and the power was cut, the lease given without it is known.
fn lease_came_to_the_disk(world: &mut World, office: &Office, address: std::net::Ipv4Addr) -> Result<()> {
    world.vm(office.gateway).power_cut()?;
    world.power_on(office.gateway)?;
    world.wait_until_ready(office.gateway)?;
    let name = format!("{NEW_PC}.office.internal");
    let known = world.eventually(Office::LEASE_LIMIT, |world| world.resolve(office.pc, &name))?;
    ensure!(known == address, "{name} was {address}, is {known}");
    Ok(())
}

pub(crate) fn pulled_and_put_back(world: &mut World) -> Result<()> {
    let options =
        BoxOptions { site: Some(site_with_root_shell()), pluggable_disk: true, ..BoxOptions::default() };
    let office = Office::boot(world, &options)?;
    office.wait_until_durable(world)?;
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    world.vm(office.gateway).pull_disk()?;
    status_says(world, &office, "the disk is gone")?;
    status_says(world, &office, NOT_DURABLE)?;
    let address = office_goes_on(world, &office)?;
    // What is shown follows what has happened.
    world.eventually(NOTICE_LIMIT, |world| {
        let leases = world.run(office.gateway, "leases --json")?;
        ensure!(leases.contains("\"durable\": false"), "the box still promises durability: {leases}");
        Ok(())
    })?;
    let log = world.run(office.gateway, "logs disk")?;
    ensure!(log.contains("the disk is gone"), "the log says nothing: {log}");

    // QEMU refuses until the guest has powered the slot down.
    world.eventually(NOTICE_LIMIT, |world| world.vm(office.gateway).put_disk_back())?;
    office.is_durable(world)?;
    lease_came_to_the_disk(world, &office, address)
}

pub(crate) fn answers_with_errors(world: &mut World) -> Result<()> {
    fails(world, Mood::Failing)
}

pub(crate) fn is_read_only(world: &mut World) -> Result<()> {
    // The file system turns read-only at the first write that fails; what it holds can still be read.
    fails(world, Mood::Unwritable)
}

fn fails(world: &mut World, mood: Mood) -> Result<()> {
    let (office, server) = office_with_served_disk(world)?;
    server.set_mood(mood);
    let address = office_goes_on(world, &office)?;
    status_says(world, &office, "the disk fails")?;
    status_says(world, &office, NOT_DURABLE)?;
    server.set_mood(Mood::Healthy);
    office.is_durable(world)?;
    lease_came_to_the_disk(world, &office, address)
}

pub(crate) fn hangs(world: &mut World) -> Result<()> {
    let (office, server) = office_with_served_disk(world)?;
    server.set_mood(Mood::Stalled);
    let address = office_goes_on(world, &office)?;
    status_says(world, &office, "the disk does not answer")?;
    // No daemon waits with it.
    office.wait_until_online(world)?;
    let status = world.run(office.gateway, "status")?;
    for daemon in ["netd", "dhcpd", "dnsd"] {
        let well = status.lines().any(|line| line.trim().starts_with(daemon) && line.contains("running"));
        ensure!(well, "{daemon} is not well: {status}");
    }
    server.set_mood(Mood::Healthy);
    office.is_durable(world)?;
    lease_came_to_the_disk(world, &office, address)
}

pub(crate) fn crawls(world: &mut World) -> Result<()> {
    let (office, server) = office_with_served_disk(world)?;
    server.set_mood(Mood::Slow(Duration::from_secs(1)));
    let address = office_goes_on(world, &office)?;
    server.set_mood(Mood::Healthy);
    office.is_durable(world)?;
    lease_came_to_the_disk(world, &office, address)
}
