//! A factory reset: the box is what it was when it was flashed, with what is on `data` or without it, and what it remembers of
//! releases is never among what goes.

use anyhow::{Result, ensure};
use qemu_tests::console::{BOOT_LIMIT, site_with_root_shell};
use qemu_tests::{BoxOptions, World};

use crate::disk_faults::{in_root_shell, status_says};
use crate::office::Office;

/// Not the default site's network: only the flashed site file knows it.
const LAN: &str = "LAN 192.168.99.1/24";
/// What the operator changes afterwards.
const NAS: &str = "[[dns.host]]\nname = \"nas\"\naddress = \"192.168.99.5\"\n";
const QUESTION: &str = "anything else changes nothing: ";

pub(crate) fn keeps_or_wipes_data(world: &mut World) -> Result<()> {
    let flashed = site_with_root_shell().replace("192.168.77.", "192.168.99.");
    let options = BoxOptions { site: Some(flashed.clone()), ..BoxOptions::default() };
    let office = Office::boot(world, &options)?;
    office.wait_until_durable(world)?;
    use_it(world, &office, &flashed)?;
    in_root_shell(world, &office, "echo of-releases > /state/updated/remembered; sync")?;

    ask(world, &office, "--keep-data", "no")?;
    let said = world.expect(office.gateway, "kontor> ", Office::LEASE_LIMIT)?;
    ensure!(said.contains("nothing is changed"), "{said}");
    ask(world, &office, "--keep-data", "reset")?;
    is_as_flashed(world, &office, "data kept")?;
    world.eventually(BOOT_LIMIT, |world| {
        let kept = in_root_shell(world, &office, "cat /data/file /state/updated/remembered")?;
        ensure!(kept.contains("of-the-office") && kept.contains("of-releases"), "what stays is gone: {kept}");
        Ok(())
    })?;

    world.vm(office.gateway).serial.send("factory-reset --wipe-data --yes\r")?;
    is_as_flashed(world, &office, "data wiped")?;
    world.eventually(BOOT_LIMIT, |world| {
        let storage = world.run(office.gateway, "status --json")?;
        ensure!(storage.contains("\"data_mounted\": true"), "data is not there: {storage}");
        Ok(())
    })?;
    let left = in_root_shell(world, &office, "ls /data; cat /state/updated/remembered")?;
    ensure!(!left.contains("file") && left.contains("of-releases"), "not what is to be left: {left}");
    let log = world.run(office.gateway, "logs storage")?;
    ensure!(log.contains("factory reset: done, data is wiped"), "{log}");
    println!("the disk was told to forget its data: {}", log.contains("told to forget"));
    Ok(())
}

/// A lease, a changed site file, a file on `data`; the operator is logged in.
fn use_it(world: &mut World, office: &Office, flashed: &str) -> Result<()> {
    world.pc(office.pc).restart_dhcp();
    let lease = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    ensure!(lease.router.is_some_and(|router| router.octets() == [192, 168, 99, 1]), "{lease:?}");
    office.wait_until_online(world)?;
    world.load_site(office.gateway, &format!("{flashed}\n{NAS}"))?;
    world.eventually(Office::LEASE_LIMIT, |world| world.resolve(office.pc, "nas.office.internal"))?;
    world.eventually(BOOT_LIMIT, |world| {
        let line =
            "echo of-the-office > /data/file && sync && grep -q ' /data ' /proc/mounts && echo wri\"\"tten";
        let said = in_root_shell(world, office, line)?;
        ensure!(said.contains("\nwritten"), "data is not there: {said}");
        Ok(())
    })
}

/// The question is asked, and answered.
fn ask(world: &mut World, office: &Office, option: &str, answer: &str) -> Result<()> {
    world.vm(office.gateway).serial.skip();
    world.vm(office.gateway).serial.send(&format!("factory-reset {option}\r"))?;
    let said = world.expect(office.gateway, QUESTION, Office::LEASE_LIMIT)?;
    ensure!(said.contains("192.168.99.1/24") && !said.contains("WARNING"), "{said}");
    world.vm(office.gateway).serial.send(&format!("{answer}\r"))
}

/// The box has restarted with the site file it was flashed with, knows no leases, and serves; its operator is logged in.
fn is_as_flashed(world: &mut World, office: &Office, data: &str) -> Result<()> {
    let ready = world.wait_until_ready(office.gateway)?;
    ensure!(ready.contains(LAN), "not the flashed site file: {ready}");
    world.log_in(office.gateway)?;
    status_says(world, office, "operator's site file")?;
    status_says(world, office, data)?;
    let leases = world.run(office.gateway, "leases")?;
    ensure!(leases.contains("no leases"), "leases are left: {leases}");
    let site = world.run(office.gateway, "site show")?;
    ensure!(site.contains("192.168.99.1/24") && !site.contains("nas"), "not the flashed site file: {site}");
    let history = world.run(office.gateway, "site history")?;
    ensure!(history.contains("0001") && !history.contains("0002"), "{history}");
    world.pc(office.pc).restart_dhcp();
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    office.wait_until_online(world)
}
