//! The tunnel to a headquarters on the Internet: up, through everything that happens to a box, and found again when it has moved.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::console::{BOOT_LIMIT, site_with_root_shell};
use qemu_tests::release::Fault;
use qemu_tests::{BoxOptions, Headquarters, World, probe, tunnel};
use serde_json::Value;

use crate::office::Office;
use crate::process_faults::first_of;
use crate::scene::BACK_LIMIT;
use crate::update::{Updated, give_up};

/// How the site file calls it; an address would not lead to one that moves.
const NAME: &str = "vpn.example.net";
/// A name server of the Internet may be asked again this soon.
const TTL_S: u32 = 5;
/// Where it is, and where it moves to.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 51);
const NEW_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 52);
/// What is on headquarters' page, and must not be seen on its way.
const PAGE: &[u8] = b"the-figures-of-the-month";
/// A session is taken for dead after three minutes (WireGuard paper, section 6.1); the rest is room for emulation.
const FOUND_AGAIN_LIMIT: Duration = Duration::from_secs(360);
/// A new session follows one that is two minutes old by itself; what is younger has no reason to be replaced.
const YOUNG: Duration = Duration::from_secs(100);
const NAS: &str = "[[dns.host]]\nname = \"nas\"\naddress = \"192.168.77.5\"\n";

/// This site file with a tunnel to headquarters.
pub(crate) fn site(base: &str) -> String {
    format!(
        "{base}\n[[tunnel]]\nname = \"hq\"\naddress = \"10.255.0.2/32\"\n\n\
         [[tunnel.peer]]\nname = \"headquarters\"\npublic-key = \"{}\"\nendpoint = \"{NAME}:{}\"\n\
         allowed-ips = [\"10.10.0.0/16\"]\npersistent-keepalive-s = 25\n",
        Headquarters::public_key(),
        Headquarters::PORT
    )
}

/// Headquarters is told the key that the box shows, as people do it, and the tunnel comes up. The operator is logged in.
pub(crate) fn connect(world: &mut World, office: &Office) -> Result<()> {
    let key = world.eventually(BOOT_LIMIT, |world| public_key(world, office))?;
    let shown = world.run(office.gateway, "tunnels")?;
    ensure!(shown.contains(&tunnel::to_text(key)), "the key is not shown: {shown}");
    let isp = world.isp(office.isp);
    isp.open_headquarters(ADDRESS, key)?;
    isp.headquarters()?.web.pages.insert("/".to_owned(), PAGE.to_vec());
    isp.names.add(NAME, ADDRESS, TTL_S);
    is_up(world, office, ADDRESS, BACK_LIMIT)
}

/// The page is there for the PC, and the box says that the tunnel is up and where it leads.
pub(crate) fn is_up(world: &mut World, office: &Office, to: Ipv4Addr, limit: Duration) -> Result<()> {
    let page = world.eventually(limit, |world| world.fetch(office.pc, Headquarters::INSIDE, "/"))?;
    ensure!(page.body == PAGE, "{}", String::from_utf8_lossy(&page.body));
    let endpoint = format!("{to}:{}", Headquarters::PORT);
    world.eventually(limit, |world| {
        let peer = peer(world, office)?;
        ensure!(peer["up"] == true && peer["endpoint"] == endpoint.as_str(), "not up to {endpoint}: {peer}");
        Ok(())
    })
}

pub(crate) fn to_headquarters(world: &mut World) -> Result<()> {
    let site = site(&site_with_root_shell());
    let office = Office::boot(world, &BoxOptions { site: Some(site.clone()), ..BoxOptions::default() })?;
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    office.wait_until_online(world)?;
    world.log_in(office.gateway)?;
    let mark = world.wire(office.wan).mark();
    connect(world, &office)?;
    let key = public_key(world, &office)?;
    serves_both_sides(world, &office)?;
    goes_on_with(world, &office, "another site file", |world| {
        world.load_site(office.gateway, &format!("{site}\n{NAS}"))?;
        world.eventually(Office::LEASE_LIMIT, |world| world.resolve(office.pc, "nas.office.internal"))?;
        Ok(())
    })?;
    goes_on_with(world, &office, "another netd", |world| kill_netd(world, &office))?;
    is_up(world, &office, ADDRESS, BACK_LIMIT)?;

    let isp = world.isp(office.isp);
    isp.move_headquarters(NEW_ADDRESS)?;
    isp.names.add(NAME, NEW_ADDRESS, TTL_S);
    let start = std::time::Instant::now();
    is_up(world, &office, NEW_ADDRESS, FOUND_AGAIN_LIMIT)?;
    println!("tunnel: found at its new address after {} s", start.elapsed().as_secs());

    world.vm(office.gateway).serial.send("reboot\r")?;
    world.wait_until_ready(office.gateway)?;
    // The PC does not wait until there is a tunnel again: what it sends before must not take the other way.
    world.eventually(BOOT_LIMIT, |world| world.fetch(office.pc, Headquarters::INSIDE, "/"))?;
    world.log_in(office.gateway)?;
    is_up(world, &office, NEW_ADDRESS, BOOT_LIMIT)?;
    let after = public_key(world, &office)?;
    ensure!(after == key, "after a restart the key is another one");
    serves_both_sides(world, &office)?;
    nothing_is_in_clear(world, &office, mark)
}

/// Nothing is translated between the two networks, and either may begin.
fn serves_both_sides(world: &mut World, office: &Office) -> Result<()> {
    let pc = world.pc(office.pc).lease().context("no lease")?.address.address();
    world.fetch(office.pc, Headquarters::INSIDE, "/")?;
    let request = world.isp(office.isp).headquarters()?.web.requests.last().cloned();
    let peer = request.context("no request")?.peer;
    ensure!(peer.addr == pc.into(), "headquarters sees {peer} in the place of {pc}");
    let ping = world.isp(office.isp).headquarters()?.ping(pc)?;
    let answered = world.wait_for("the PC's answer to headquarters", BACK_LIMIT, |world| {
        Ok(world.isp(office.isp).headquarters()?.pinged(ping).then_some(()))
    });
    world.isp(office.isp).headquarters()?.close(ping);
    answered
}

/// What happens to the box does not touch the session: its counters go on, and there is no other one.
fn goes_on_with(
    world: &mut World,
    office: &Office,
    what: &str,
    happens: impl FnOnce(&mut World) -> Result<()>,
) -> Result<()> {
    let before = received_bytes(&peer(world, office)?)?;
    let handshakes = world.isp(office.isp).headquarters()?.tunnel.handshakes;
    happens(world)?;
    world.fetch(office.pc, Headquarters::INSIDE, "/").with_context(|| what.to_owned())?;
    world.eventually(BACK_LIMIT, |world| {
        let after = received_bytes(&peer(world, office)?)?;
        ensure!(after > before, "{what}: {after} octets were received, and {before} before");
        Ok(())
    })?;
    let tunnel = &world.isp(office.isp).headquarters()?.tunnel;
    let (now, age) = (tunnel.handshakes, tunnel.since_handshake());
    ensure!(now == handshakes || age.is_none_or(|age| age > YOUNG), "{what}: another handshake");
    println!("tunnel: goes on with {what}, of {} s", age.unwrap_or_default().as_secs());
    Ok(())
}

fn kill_netd(world: &mut World, office: &Office) -> Result<()> {
    world.open_shell(office.gateway)?;
    world.shell(office.gateway, &format!("kill -9 {}", first_of("netd")))?;
    world.fetch(office.pc, Headquarters::INSIDE, "/").context("while there is no netd")?;
    world.vm(office.gateway).serial.send("exit\r")?;
    world.expect(office.gateway, "kontor> ", BACK_LIMIT)?;
    world.eventually(BACK_LIMIT, |world| {
        let log = world.run(office.gateway, "logs netd -n 100")?;
        ensure!(log.contains("ready again after"), "netd is not back: {log}");
        Ok(())
    })
}

/// Between the box and headquarters there are only datagrams to the tunnel's ports, and no packet from inside.
fn nothing_is_in_clear(world: &mut World, office: &Office, mark: usize) -> Result<()> {
    let pc = world.pc(office.pc).lease().context("no lease")?.address.address();
    let is_inside = |address: &Ipv4Addr| *address == pc || address.octets().starts_with(&[10]);
    let mut datagrams = 0;
    for seen in world.wire(office.wan).since(mark) {
        let Some((from, to)) = probe::ipv4_addresses(&seen.frame) else { continue };
        let clear =
            [from, to].iter().any(is_inside) || seen.frame.windows(PAGE.len()).any(|window| window == PAGE);
        ensure!(!clear, "in clear from {from} to {to}: {:02x?}", seen.frame);
        if [from, to].contains(&ADDRESS) {
            let ports =
                probe::udp_ports(&seen.frame).with_context(|| format!("{from} to {to}: no datagram"))?;
            let at_headquarters = if from == ADDRESS { ports.0 } else { ports.1 };
            ensure!(at_headquarters == Headquarters::PORT, "{from} to {to}, ports {ports:?}");
            datagrams += 1;
        }
    }
    ensure!(datagrams > 0, "there was no tunnel on the wire");
    Ok(())
}

/// A release with which the tunnel stays down, though everything else works.
pub(crate) fn stays_down(world: &mut World) -> Result<()> {
    let updated = Updated::open_with_tunnel(world)?;
    let script = format!(
        "until nft 'table ip sabotage {{ chain sent {{ type filter hook output priority -300; \
         udp dport {} drop; }}; }}'; do sleep 1; done",
        Headquarters::PORT
    );
    let updated = give_up(world, updated, Fault::Script(&script), "tunnel hq/headquarters")?;
    is_up(world, &updated.office, ADDRESS, BACK_LIMIT)
}

fn tunnel_status(world: &mut World, office: &Office) -> Result<Value> {
    let text = world.run(office.gateway, "status --json")?;
    let status: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
    let tunnel = &status["net"]["tunnels"][0];
    ensure!(tunnel["name"] == "hq", "no tunnel: {}", status["net"]);
    Ok(tunnel.clone())
}

fn peer(world: &mut World, office: &Office) -> Result<Value> {
    let tunnel = tunnel_status(world, office)?;
    let peer = &tunnel["peers"][0];
    ensure!(peer["name"] == "headquarters", "no peer: {tunnel}");
    Ok(peer.clone())
}

fn public_key(world: &mut World, office: &Office) -> Result<[u8; 32]> {
    let tunnel = tunnel_status(world, office)?;
    let key = tunnel["public_key"].as_str().and_then(tunnel::from_text);
    key.with_context(|| format!("no public key: {tunnel}"))
}

fn received_bytes(peer: &Value) -> Result<u64> {
    peer["received_bytes"].as_u64().with_context(|| format!("no octets counted: {peer}"))
}
