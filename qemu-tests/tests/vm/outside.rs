//! What comes from outside without having been asked for.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::probe::{self, Route};
use qemu_tests::stack::Plug;
use qemu_tests::{World, probe::is_marked};

use crate::office::Office;

/// Somebody on the Internet, behind the provider's router.
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// Somebody on the wire between provider and box.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
const NEIGHBOUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x66];
/// Ports where something might listen: of the box's daemons, and of what attackers look for.
const PORTS: [u16; 8] = [22, 23, 53, 67, 80, 123, 443, 8080];
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn unsolicited(world: &mut World) -> Result<()> {
    let office = Office::open(world)?;
    let lan_host = world.pc(office.pc).lease().context("no lease")?.address.address();
    let wan_mac = world.vm(office.gateway).macs[0];
    let wan_address = *world.isp(office.isp).dhcp.bound.get(&wan_mac).context("no WAN lease")?;
    let plug = world.add_injector(office.wan);
    let (wan_mark, lan_mark) = (world.wire(office.wan).mark(), world.wire(office.lan).mark());

    let route = |from, to| Route { from_mac: NEIGHBOUR_MAC, to_mac: wan_mac, from, to };
    let mut routes = Vec::new();
    for from in [STRANGER, NEIGHBOUR] {
        // To the box, to its LAN address, to a PC, and to the whole LAN.
        for to in [wan_address, Ipv4Addr::new(192, 168, 77, 1), lan_host, Ipv4Addr::new(192, 168, 77, 255)] {
            routes.push(route(from, to));
        }
    }
    // Spoofed: a PC's address, the box's own addresses, loopback.
    for from in [lan_host, Ipv4Addr::new(192, 168, 77, 1), wan_address, Ipv4Addr::LOCALHOST] {
        routes.extend([route(from, wan_address), route(from, lan_host)]);
    }
    for route in routes {
        for port in PORTS {
            world.inject(plug, probe::tcp_syn(route, port))?;
            world.inject(plug, probe::udp(route, port))?;
        }
        world.inject(plug, probe::echo_request(route))?;
    }
    wait_until_taken(world, &office, plug, wan_address)?;

    let answers: Vec<_> = world
        .wire(office.wan)
        .since(wan_mark)
        .filter(|seen| seen.from != plug.port)
        .filter_map(|seen| probe::ipv4_addresses(&seen.frame))
        .filter(|(_, to)| [STRANGER, NEIGHBOUR].contains(to))
        .collect();
    ensure!(answers.is_empty(), "the box answered: {answers:?}");
    let inside = world.wire(office.lan).since(lan_mark).filter(|seen| is_marked(&seen.frame)).count();
    ensure!(inside == 0, "{inside} packets from outside reached the LAN");
    // And the office was not disturbed.
    office.wait_until_online(world)
}

/// The box has worked through everything: it answers an ARP request that came last, and then a PC's ping, for
/// which it had to use both wires.
fn wait_until_taken(world: &mut World, office: &Office, plug: Plug, wan_address: Ipv4Addr) -> Result<()> {
    let mark = world.wire(office.wan).mark();
    world.inject(plug, probe::arp_request(NEIGHBOUR_MAC, NEIGHBOUR, wan_address))?;
    world.wait_for("the box's answer to ARP", LIMIT, |world| {
        let mut frames = world.wire(office.wan).since(mark);
        Ok(frames.find_map(|seen| probe::arp_reply_to(&seen.frame, NEIGHBOUR_MAC)))
    })?;
    let web = world.isp(office.isp).options.web_server;
    world.ping(office.pc, web)
}
