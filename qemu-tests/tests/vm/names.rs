//! Names: of the office, and of the Internet through the box.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use qemu_tests::dns::{Type, reverse_name};
use qemu_tests::{BoxOptions, Transport, World};

use crate::office::Office;

const BOX: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The far host. Its names are not under `.test`: resolvers answer that themselves (RFC 6761).
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);

pub(crate) fn of_a_pc(world: &mut World) -> Result<()> {
    let office = Office::boot(world, &BoxOptions::default())?;
    let lease = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    let address = lease.address.address();
    let name = format!("{}.office.internal", Office::PC_NAME);
    // At once, without another try: the name resolves before the acknowledgement leaves.
    let found = world.resolve(office.pc, &name)?;
    ensure!(found == address, "{name} is {address}, but resolves to {found}");
    let reverse = world.ask(office.pc, BOX, &reverse_name(address), Type::Ptr, Transport::Udp)?;
    ensure!(reverse.name() == Some(name.as_str()), "{address} is {name}, but resolves to {reverse:?}");
    let by_tcp = world.ask(office.pc, BOX, &name, Type::A, Transport::Tcp)?;
    ensure!(by_tcp.address() == Some(address), "by TCP: {by_tcp:?}");
    let gateway = world.resolve(office.pc, "kontor.office.internal")?;
    ensure!(gateway == BOX, "the box resolves to {gateway}");
    let unknown = world.ask(office.pc, BOX, "nobody.office.internal", Type::A, Transport::Udp)?;
    ensure!(unknown.rcode == 3, "an unknown name: {unknown:?}");
    Ok(())
}

pub(crate) fn forwarded_and_cached(world: &mut World) -> Result<()> {
    let office = Office::open(world)?;
    for name in ["udp.example.net", "tcp.example.net", "large.example.net"] {
        world.isp(office.isp).names.add(name, FAR, 300);
    }
    let ask = |world: &mut World, name: &str, transport| -> Result<()> {
        let answer = world.ask(office.pc, BOX, name, Type::A, transport)?;
        ensure!(answer.address() == Some(FAR), "{name} by {transport:?}: {answer:?}");
        ensure!(answer.ttl_s.is_some_and(|ttl| ttl <= 300), "{name} lives too long: {answer:?}");
        Ok(())
    };
    ask(world, "udp.example.net", Transport::Udp)?;
    ask(world, "udp.example.net", Transport::Udp)?;
    ask(world, "udp.example.net", Transport::Tcp)?;
    ask(world, "tcp.example.net", Transport::Tcp)?;
    ask(world, "tcp.example.net", Transport::Udp)?;
    for name in ["udp.example.net", "tcp.example.net"] {
        let count = world.isp(office.isp).names.count(name);
        ensure!(count == 1, "{name} was asked for {count} times outside");
    }
    // An answer that does not fit a datagram upstream is fetched by TCP.
    world.isp(office.isp).names.truncate = true;
    ask(world, "large.example.net", Transport::Udp)?;
    let last = world.isp(office.isp).names.questions.last().context("no question")?.1;
    ensure!(last == Transport::Tcp, "the truncated answer was not fetched by TCP");
    Ok(())
}
