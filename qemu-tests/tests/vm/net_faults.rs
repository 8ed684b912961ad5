//! Cables that are pulled or in the wrong place, and networks with the same numbers.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::dns::Type;
use qemu_tests::{BoxOptions, IspOptions, PcOptions, Transport, WireId, World, probe};
use smoltcp::wire::Ipv4Cidr;

use crate::office::Office;

/// What the box notices by itself: a carrier at once, a loop within seconds.
const NOTICE_LIMIT: Duration = Duration::from_secs(90);
/// A lease that collides is asked for again every 30 s.
const COLLISION_LIMIT: Duration = Duration::from_secs(120);
const BOX_LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

fn named(last: u8) -> PcOptions {
    PcOptions { mac: [2, 0, 0, 0, 0, last], name: None }
}

/// DHCP answers of `server` on a wire since `mark`.
fn dhcp_answers(world: &World, wire: WireId, mark: usize, server: Ipv4Addr) -> usize {
    let seen = world.wire(wire).since(mark).filter_map(|seen| probe::dhcp_server_of(&seen.frame));
    seen.filter(|answered| *answered == server).count()
}

/// A name of the Internet that is not in the cache cannot be had now; the PC is told so instead of waiting.
fn ensure_refused_at_once(world: &mut World, office: &Office, server: Ipv4Addr, name: &str) -> Result<()> {
    let answer = world.ask(office.pc, server, name, Type::A, Transport::Udp)?;
    ensure!(answer.rcode == 2, "{name}: {answer:?} instead of SERVFAIL");
    Ok(())
}

pub(crate) fn wan_cable_out_and_in(world: &mut World) -> Result<()> {
    let office = Office::open(world)?;
    world.isp(office.isp).names.add("known.example", Ipv4Addr::new(203, 0, 113, 7), 3600);
    world.resolve(office.pc, "known.example")?;
    let web = world.isp(office.isp).options.web_server;
    let connection = world.connect(office.pc, web, 7)?;
    world.echo(connection, b"before")?;

    world.vm(office.gateway).qmp()?.set_link(0, false)?;
    world.wait_for_line(office.gateway, "Internet  no cable in port1", NOTICE_LIMIT)?;
    // The office goes on: names of its own, what is cached, and leases for newcomers.
    world.resolve(office.pc, &format!("{}.office.internal", Office::PC_NAME))?;
    world.resolve(office.pc, "known.example")?;
    ensure_refused_at_once(world, &office, BOX_LAN, "unknown.example")?;
    let newcomer = world.add_pc(office.lan, &named(0xa2));
    world.wait_for_lease(newcomer, Office::LEASE_LIMIT)?;

    world.vm(office.gateway).qmp()?.set_link(0, true)?;
    world.wait_for_line(office.gateway, "Internet  up, 198.51.100.10/24", NOTICE_LIMIT)?;
    world.echo(connection, b"after").context("the connection from before")?;
    office.wait_until_online(world)?;
    moved_to_another_provider(world, &office)
}

/// While the cable is out, the line behind it becomes another one.
fn moved_to_another_provider(world: &mut World, office: &Office) -> Result<()> {
    let web = world.isp(office.isp).options.web_server;
    let connection = world.connect(office.pc, web, 7)?;
    world.vm(office.gateway).qmp()?.set_link(0, false)?;
    world.wait_for_line(office.gateway, "Internet  no cable in port1", NOTICE_LIMIT)?;
    let gateway = Ipv4Cidr::new(Ipv4Addr::new(100, 64, 7, 1), 24);
    world.isp(office.isp).renumber(gateway, Ipv4Addr::new(100, 64, 7, 10))?;
    world.vm(office.gateway).qmp()?.set_link(0, true)?;
    world.wait_for_line(office.gateway, "Internet  up, 100.64.7.10/24", NOTICE_LIMIT)?;

    office.wait_until_online(world)?;
    world.isp(office.isp).names.add("new.example", Ipv4Addr::new(203, 0, 113, 8), 60);
    world.resolve(office.pc, "new.example")?;
    // Nothing leaves with the address of the old line, not even for connections from then.
    let mark = world.wire(office.wan).mark();
    ensure!(
        world.echo(connection, b"with the old address").is_err(),
        "the provider knows no such connection"
    );
    world.ping(office.pc, web)?;
    let old = Ipv4Addr::new(198, 51, 100, 10);
    let senders = world.wire(office.wan).since(mark).filter_map(|seen| probe::ipv4_addresses(&seen.frame));
    ensure!(senders.into_iter().all(|(from, _)| from != old), "packets still leave with {old}");
    Ok(())
}

pub(crate) fn both_cables_in_one_switch(world: &mut World) -> Result<()> {
    let office = Office::open(world)?;
    let (start, patch) = (world.wire(office.wan).mark(), world.join(office.wan, office.lan));
    world.wait_for_line(
        office.gateway,
        "port2 (lan) and port1 (wan) are plugged into the same switch",
        NOTICE_LIMIT,
    )?;

    // A newcomer gets what the provider offers and nothing of ours; those who are there already stay online.
    let mark = world.wire(office.wan).mark();
    let newcomer = world.add_pc(office.lan, &named(0xa2));
    let lease = world.wait_for_lease(newcomer, Office::LEASE_LIMIT)?;
    ensure!(lease.server == world.isp(office.isp).options.gateway.address(), "{lease:?}");
    office.wait_until_online(world)?;

    // The box itself asks anew: the provider is silent, so only its own server could answer.
    world.isp(office.isp).dhcp.enabled = false;
    world.vm(office.gateway).qmp()?.set_link(0, false)?;
    world.wait_for_line(office.gateway, "no longer: Problem", NOTICE_LIMIT)?;
    world.vm(office.gateway).qmp()?.set_link(0, true)?;
    world.wait_for_line(office.gateway, "are plugged into the same switch", NOTICE_LIMIT)?;
    let mark_alone = world.wire(office.wan).mark();
    let wan_mac = world.vm(office.gateway).macs[0];
    let orphan = world.add_pc(office.lan, &named(0xa3));
    wait_for_discovers(world, office.lan, mark_alone, wan_mac, 1)?;
    // Its second question comes 10 s after the first: time enough for an offer.
    wait_for_discovers(world, office.lan, mark_alone, [2, 0, 0, 0, 0, 0xa3], 2)?;
    for (wire, mark) in [(office.wan, mark), (office.lan, mark_alone)] {
        let offers = dhcp_answers(world, wire, mark, BOX_LAN);
        ensure!(offers == 0, "{offers} answers of the box on {}", world.wire(wire).name());
    }
    let carried = world.wire(office.wan).mark() - start;
    ensure!(carried < 10_000, "{carried} frames: something goes round");

    world.separate(patch);
    world.isp(office.isp).dhcp.enabled = true;
    world.wait_for_line(office.gateway, "no longer: Problem", NOTICE_LIMIT)?;
    let lease = world.wait_for_lease(orphan, NOTICE_LIMIT)?;
    ensure!(lease.server == BOX_LAN, "{lease:?}");
    office.wait_until_online(world)
}

fn wait_for_discovers(
    world: &mut World,
    wire: WireId,
    mark: usize,
    mac: [u8; 6],
    count: usize,
) -> Result<()> {
    let what = format!("{count} DHCPDISCOVERs of {mac:02x?}");
    world.wait_for(&what, NOTICE_LIMIT, |world| {
        let asked = world.wire(wire).since(mark).filter(|seen| probe::is_dhcp_discover_of(&seen.frame, mac));
        Ok((asked.count() >= count).then_some(()))
    })
}

pub(crate) fn the_same_network_on_both_sides(world: &mut World) -> Result<()> {
    let colliding = (Ipv4Cidr::new(Ipv4Addr::new(192, 168, 178, 1), 24), Ipv4Addr::new(192, 168, 178, 20));
    let free = (Ipv4Cidr::new(Ipv4Addr::new(198, 51, 100, 1), 24), Ipv4Addr::new(198, 51, 100, 10));
    let own = Ipv4Addr::new(192, 168, 178, 1);
    let site = qemu_tests::console::site_with_operator("").replace("192.168.77.", "192.168.178.");
    let isp = IspOptions { gateway: colliding.0, first_lease: colliding.1, ..IspOptions::default() };
    let office = Office::boot_with(world, &BoxOptions { site: Some(site), ..BoxOptions::default() }, isp)?;
    let said = "the external network is 192.168.178.0/24 but lan is 192.168.178.0/24";
    world.wait_for_line(office.gateway, said, NOTICE_LIMIT)?;
    ensure_office_goes_on(world, &office, own)?;
    world.log_in(office.gateway)?;
    let status = world.run(office.gateway, "status")?;
    ensure!(status.contains("Internet  off: 192.168.178.0/24 outside collides with lan"), "{status}");
    ensure!(status.contains("for example to 192.168.179.1/24"), "{status}");
    world.vm(office.gateway).serial.send("exit\r")?;

    // Somebody gives the provider's router another network; no cable is touched.
    world.isp(office.isp).renumber(free.0, free.1)?;
    world.wait_for_line(office.gateway, "Internet  up, 198.51.100.10/24", COLLISION_LIMIT)?;
    office.wait_until_online(world)?;

    // And back, while everything runs.
    world.isp(office.isp).renumber(colliding.0, colliding.1)?;
    world.vm(office.gateway).qmp()?.set_link(0, false)?;
    world.wait_for_line(office.gateway, "Internet  no cable in port1", NOTICE_LIMIT)?;
    world.vm(office.gateway).qmp()?.set_link(0, true)?;
    world.wait_for_line(office.gateway, "Internet  off: 192.168.178.0/24", NOTICE_LIMIT)?;
    ensure_office_goes_on(world, &office, own)
}

fn ensure_office_goes_on(world: &mut World, office: &Office, own: Ipv4Addr) -> Result<()> {
    world.pc(office.pc).restart_dhcp();
    let lease = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    ensure!(lease.server == own, "{lease:?}");
    world.resolve(office.pc, &format!("{}.office.internal", Office::PC_NAME))?;
    ensure_refused_at_once(world, office, own, "anything.example")?;
    world.ping(office.pc, own)
}
