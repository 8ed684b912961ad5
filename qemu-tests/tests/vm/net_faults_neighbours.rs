//! Others on the wires who do what they must not, and a line that comes and goes.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::{World, probe};

use crate::office::Office;

const LIMIT: Duration = Duration::from_secs(90);
const BOX_LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const INTRUDER: [u8; 6] = [2, 0, 0, 0, 0, 0x66];
const FLAPS: usize = 50;

pub(crate) fn impostor_and_other_dhcp_server(world: &mut World) -> Result<()> {
    let office = Office::open(world)?;
    let plug = world.add_injector(office.lan);
    let mark = world.wire(office.lan).mark();
    let lan_mac = world.vm(office.gateway).macs[1];
    // Who asks with our address as the sender's says that it is his.
    world.inject(plug, probe::arp_request(INTRUDER, BOX_LAN, Ipv4Addr::new(192, 168, 77, 254)))?;
    world.wait_for("the box to defend its address", LIMIT, |world| {
        let mut seen = world.wire(office.lan).since(mark);
        Ok(seen.any(|seen| probe::announces(&seen.frame, lan_mac, BOX_LAN)).then_some(()))
    })?;
    let said = "02:00:00:00:00:66 also has the address 192.168.77.1 of this gateway";
    world.wait_for_line(office.gateway, said, LIMIT)?;

    world.inject(plug, probe::dhcp_offer(INTRUDER, Ipv4Addr::new(192, 168, 77, 9)))?;
    world.wait_for_line(office.gateway, "another DHCP server, 192.168.77.9, answers there", LIMIT)?;
    office.wait_until_online(world)
}

pub(crate) fn wan_link_flaps(world: &mut World) -> Result<()> {
    let office = Office::open(world)?;
    let web = world.isp(office.isp).options.web_server;
    let connection = world.connect(office.pc, web, 7)?;
    for _ in 0..FLAPS {
        for up in [false, true] {
            world.vm(office.gateway).qmp()?.set_link(0, up)?;
            // The office is served all the while.
            world.ping(office.pc, BOX_LAN)?;
        }
    }
    world.eventually(LIMIT, |world| world.ping(office.pc, web))?;
    world.echo(connection, b"the connection from before")?;
    world.log_in(office.gateway)?;
    let status = world.run(office.gateway, "status")?;
    let netd = status.lines().find(|line| line.starts_with("netd ")).unwrap_or_default();
    let restarts = netd.split_whitespace().nth(3);
    ensure!(restarts == Some("0"), "{status}");
    office.wait_until_online(world)
}
