//! Thousands of malformed frames on both ports.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::noise::{Noise, Target};
use qemu_tests::stack::Plug;
use qemu_tests::{PcOptions, WireId, World, probe};

use crate::office::Office;

/// Frames on each port.
const FRAMES: usize = 10_000;
/// After so many the box must show that it has taken them: more would only fill QEMU's queues.
const BATCH: usize = 250;
const LIMIT: Duration = Duration::from_secs(120);
/// What the kernel says when it has hurt itself.
const KERNEL_FAULTS: [&str; 8] = [
    "Oops",
    "BUG:",
    "WARNING:",
    "Call Trace",
    "general protection",
    "Kernel panic",
    "soft lockup",
    "Out of memory",
];
/// The console's own lines and a few complaints; a line for each frame would be hundreds of kilobytes.
const CONSOLE_MAX: usize = 64 * 1024;
/// A PC of the test that answers nothing, to be answered by the box.
const ASKER: [u8; 6] = [2, 0, 0, 0, 0xee, 0xfe];

pub(crate) fn malformed_frames(world: &mut World) -> Result<()> {
    let office = Office::open(world)?;
    let wan_address = {
        let mac = world.vm(office.gateway).macs[0];
        *world.isp(office.isp).dhcp.bound.get(&mac).context("no WAN lease")?
    };
    world.log_in(office.gateway)?;
    let before = world.eventually(LIMIT, |world| settled(world, &office))?;
    let console = world.vm(office.gateway).serial.text().len();
    let sides = [
        (office.wan, 0, wan_address, Ipv4Addr::new(198, 51, 100, 224)),
        (office.lan, 1, Ipv4Addr::new(192, 168, 77, 1), Ipv4Addr::new(192, 168, 77, 224)),
    ];
    for (wire, port, address, senders) in sides {
        let mac = world.vm(office.gateway).macs[port];
        let samples = world.wire(wire).since(0).take(500).map(|seen| seen.frame.clone()).collect();
        let noise = Noise::new(0x6b6f_6e74_6f72, Target { mac, address, senders }, samples);
        flood(world, wire, noise, (address, senders))?;
    }

    // A daemon that died has another process id for good.
    world.eventually(LIMIT, |world| {
        let after = settled(world, &office)?;
        ensure!(before == after, "daemons changed from {before:?} to {after:?}");
        Ok(())
    })?;
    let said = &world.vm(office.gateway).serial.text()[console..];
    let fault = KERNEL_FAULTS.iter().find(|fault| said.contains(**fault));
    ensure!(fault.is_none(), "the kernel says {fault:?}");
    ensure!(said.len() < CONSOLE_MAX, "{} bytes on the console", said.len());
    ensure_all_works(world, &office)
}

fn flood(
    world: &mut World,
    wire: WireId,
    mut noise: Noise,
    (own, senders): (Ipv4Addr, Ipv4Addr),
) -> Result<()> {
    let plug = world.add_injector(wire);
    let asker = Ipv4Addr::from(u32::from(senders) + 16);
    for _ in 0..FRAMES / BATCH {
        for _ in 0..BATCH {
            world.inject_to_boxes(plug, noise.frame())?;
        }
        wait_until_taken(world, wire, plug, asker, own)?;
    }
    Ok(())
}

/// The box answers ARP, which it got after everything else; the question is repeated, as a full queue drops it.
fn wait_until_taken(
    world: &mut World,
    wire: WireId,
    plug: Plug,
    asker: Ipv4Addr,
    own: Ipv4Addr,
) -> Result<()> {
    world.eventually(LIMIT, |world| {
        let mark = world.wire(wire).mark();
        world.inject_to_boxes(plug, probe::arp_request(ASKER, asker, own))?;
        world.wait_for("the box's answer to ARP", Duration::from_secs(20), |world| {
            Ok(world.wire(wire).since(mark).find_map(|seen| probe::arp_reply_to(&seen.frame, ASKER)))
        })
    })?;
    Ok(())
}

/// What runs, once nothing is just being started: components are looked at soon after the box is ready.
fn settled(world: &mut World, office: &Office) -> Result<Vec<String>> {
    let rows = daemons(&world.run(office.gateway, "status")?)?;
    ensure!(!rows.iter().any(|row| row.contains(" starting")), "not everything has started: {rows:?}");
    Ok(rows)
}

/// Name, state, process id and restarts of each service, but for `mark-good`, which runs once the box has proved
/// itself, whenever that is, and has not failed.
fn daemons(status: &str) -> Result<Vec<String>> {
    let table = status.lines().skip_while(|line| !line.starts_with("SERVICE")).skip(1);
    let rows = table.map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
    let proved = |row: &str| row.starts_with("mark-good done") || row.starts_with("mark-good starting");
    let rows: Vec<String> = rows.filter(|row| !row.is_empty() && !proved(row)).collect();
    ensure!(rows.iter().any(|row| row.starts_with("netd running")), "no table of services in {status}");
    Ok(rows)
}

fn ensure_all_works(world: &mut World, office: &Office) -> Result<()> {
    world.pc(office.pc).restart_dhcp();
    world.wait_for_lease(office.pc, LIMIT)?;
    let newcomer = world.add_pc(office.lan, &PcOptions { mac: [2, 0, 0, 0, 0, 0xa2], name: Some("berta") });
    world.wait_for_lease(newcomer, LIMIT)?;
    let name = format!("{}.office.internal", Office::PC_NAME);
    world.eventually(LIMIT, |world| world.resolve(newcomer, &name))?;
    office.wait_until_online(world)?;
    world.isp(office.isp).names.add("fresh.example", Ipv4Addr::new(203, 0, 113, 9), 60);
    world.eventually(LIMIT, |world| world.resolve(office.pc, "fresh.example"))?;
    Ok(())
}
