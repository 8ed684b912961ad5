//! The simulation against itself: a PC directly on the provider's wire, without a box between.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
use qemu_tests::dns::Type;
use qemu_tests::line::{Cuts, LineOptions};
use qemu_tests::{IspId, IspOptions, PcId, PcOptions, Transport, World};

const LIMIT: Duration = Duration::from_secs(10);
const WEB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);

fn pc_at_the_provider(name: &str) -> Result<(World, PcId, IspId)> {
    let mut world = World::new(name, None)?;
    let wire = world.add_wire("wire")?;
    let isp = world.add_isp(wire, IspOptions::default())?;
    let pc = world.add_pc(wire, &PcOptions { mac: [2, 0, 0, 0, 0, 1], name: Some("anna") });
    let lease = world.wait_for_lease(pc, LIMIT)?;
    assert_eq!(lease.address.address(), Ipv4Addr::new(198, 51, 100, 10));
    assert_eq!(lease.router, Some(Ipv4Addr::new(198, 51, 100, 1)));
    assert_eq!(lease.name_servers, [RESOLVER]);
    Ok((world, pc, isp))
}

#[test]
fn every_customer_keeps_its_address() -> Result<()> {
    let (mut world, pc, isp) = pc_at_the_provider("harness-dhcp")?;
    world.pc(pc).restart_dhcp();
    let lease = world.wait_for_lease(pc, LIMIT)?;
    assert_eq!(lease.address.address(), Ipv4Addr::new(198, 51, 100, 10));
    assert_eq!(world.isp(isp).dhcp.acks, 2);
    world.finish()
}

#[test]
fn names_resolve_by_udp_and_tcp() -> Result<()> {
    let (mut world, pc, isp) = pc_at_the_provider("harness-dns")?;
    world.isp(isp).names.add("www.example.test", WEB, 300);
    assert_eq!(world.resolve(pc, "www.example.test")?, WEB);
    let by_tcp = world.ask(pc, RESOLVER, "www.example.test", Type::A, Transport::Tcp)?;
    assert_eq!(by_tcp.address(), Some(WEB));
    let unknown = world.ask(pc, RESOLVER, "no.example.test", Type::A, Transport::Udp)?;
    assert_eq!(unknown.rcode, 3);
    assert_eq!(world.isp(isp).names.count("www.example.test"), 2);
    world.finish()
}

#[test]
fn pages_are_served_and_counted() -> Result<()> {
    let (mut world, pc, isp) = pc_at_the_provider("harness-web")?;
    let large = vec![b'x'; 300_000];
    world.isp(isp).web.pages.insert("/large".into(), large.clone());
    assert_eq!(world.fetch(pc, WEB, "/")?.status, 200);
    assert_eq!(world.fetch(pc, WEB, "/none")?.status, 404);
    assert!(world.fetch(pc, WEB, "/large")?.body == large);
    assert_eq!(world.isp(isp).web.requests.len(), 3);
    world.finish()
}

/// More fetches than the server has sockets: none stays behind with half a connection.
#[test]
fn a_page_is_served_any_number_of_times() -> Result<()> {
    let (mut world, pc, _) = pc_at_the_provider("harness-web-often")?;
    for _ in 0..20 {
        assert_eq!(world.fetch(pc, WEB, "/")?.status, 200);
    }
    world.finish()
}

#[test]
fn connections_echo_and_hosts_answer_pings() -> Result<()> {
    let (mut world, pc, _) = pc_at_the_provider("harness-echo")?;
    let connection = world.connect(pc, WEB, 7)?;
    world.echo(connection, b"still there?")?;
    world.ping(pc, WEB)?;
    assert!(world.connect(pc, WEB, 9).is_err());
    world.finish()
}

/// Frames that are lost are sent again, connections that are cut are not; whoever asks again gets an answer.
#[test]
fn a_line_is_as_slow_and_as_bad_as_it_is_said_to_be() -> Result<()> {
    let (mut world, pc, isp) = pc_at_the_provider("harness-line")?;
    let page = vec![b'x'; 100_000];
    world.isp(isp).web.pages.insert("/page".into(), page.clone());
    world.isp(isp).set_line(LineOptions { kbit_s: 1000, cuts: Cuts::Never });
    let start = Instant::now();
    assert!(world.fetch(pc, WEB, "/page")?.body == page);
    assert!(start.elapsed() >= Duration::from_millis(800), "{:?}", start.elapsed());
    let delivered = world.isp(isp).line().map_or(0, |line| line.delivered());
    assert!((100_000..120_000).contains(&delivered), "{delivered}");

    let cuts = Cuts::Every { period: Duration::from_millis(500), silence: Duration::from_millis(100) };
    world.isp(isp).set_line(LineOptions { kbit_s: 1000, cuts });
    let cut = world.fetch(pc, WEB, "/page");
    assert!(!cut.is_ok_and(|answer| answer.body == page), "it was cut in the middle");
    assert_eq!(world.eventually(LIMIT, |world| world.fetch(pc, WEB, "/"))?.status, 200);
    assert!(world.isp(isp).line().is_some_and(|line| line.cuts() > 0));
    world.finish()
}
