//! Pools under pressure: liars, and many addresses.

use super::*;

fn probed(server: &mut Server) -> Ipv4Addr {
    let actions = drain(server);
    let probe = actions.iter().find_map(|action| match action {
        Action::Probe { address, .. } => Some(*address),
        _ => None,
    });
    probe.expect("a probe")
}

#[test]
fn a_host_that_claims_every_address_does_not_take_the_pool() {
    let mut server = server();
    server.handle_message(now(0), 0, &discover(mac(1)));
    for _ in 0..4 {
        let address = probed(&mut server);
        server.probe_answered(now(100), 0, address, mac(99));
    }
    // The fourth claim was one too many: nothing is quarantined any more, and the probe goes on.
    assert!(server.leases(now(100).at).is_empty());
    assert!(server.problems().iter().any(|p| p.contains("02:00:00:00:00:63 answers ARP for every")));
    let address = probed(&mut server);
    server.probe_answered(now(200), 0, address, mac(99));
    server.handle_timeout(now(600));
    let offer = sent(&mut server).expect("an offer");
    assert_eq!(offer.message.yiaddr, address);
    // Others are believed all the same.
    server.handle_message(now(1000), 0, &discover(mac(2)));
    let address = probed(&mut server);
    server.probe_answered(now(1001), 0, address, mac(98));
    assert_eq!(server.leases(now(1001).at).len(), 1);
    // Ten minutes later it is heard again.
    server.handle_timeout(now(600_099));
    assert_eq!(server.problems().len(), 1);
    server.handle_timeout(now(600_100));
    assert_eq!(server.problems(), [""; 0]);
}

#[test]
fn several_hosts_in_the_pool_are_believed() {
    let mut server = server();
    server.handle_message(now(0), 0, &discover(mac(1)));
    for host in 90..93 {
        let address = probed(&mut server);
        server.probe_answered(now(100), 0, address, mac(host));
    }
    let free = probed(&mut server);
    server.handle_timeout(now(600));
    assert_eq!(sent(&mut server).unwrap().message.yiaddr, free);
    assert_eq!((server.leases(now(600).at).len(), server.problems().len()), (3, 0));
}

#[test]
fn the_last_free_address_of_a_large_network_is_found() {
    let network = NetworkConfig {
        address: "10.0.0.1/16".parse().unwrap(),
        pools: vec![
            ([10, 0, 0, 2].into(), [10, 0, 99, 255].into()),
            ([10, 0, 100, 0].into(), [10, 0, 255, 254].into()),
        ],
        reservations: Vec::new(),
        ..lan()
    };
    let mut server = Server::new(config(vec![network]));
    let free = Ipv4Addr::new(10, 0, 17, 4);
    let first = u32::from(Ipv4Addr::new(10, 0, 0, 2));
    let taken =
        (first..=u32::from(Ipv4Addr::new(10, 0, 255, 254))).map(Ipv4Addr::from).filter(|a| *a != free);
    let record = |address: Ipv4Addr| {
        let [_, _, c, d] = address.octets();
        Record {
            network: "lan".into(),
            address,
            state: RecordState::Leased,
            mac: [2, 0, 1, 0, c, d],
            client_id: Vec::new(),
            name: None,
            written_at: now(0).wall_s,
            remaining_s: 3600,
        }
    };
    server.adopt(now(0), taken.map(record).collect());
    for client in 1..=200 {
        server.handle_message(now(1), 0, &discover(mac(client)));
    }
    assert_eq!(probed(&mut server), free);
    assert_eq!(drain(&mut server), []);
    assert!(server.problems()[0].contains("no free address"));
}

#[test]
fn memories_that_no_pool_needs_are_dropped() {
    let mut server = server();
    let old = leased(&mut server, mac(1), 0);
    let mut release = Message::request(MessageType::Release, 7, mac(1));
    release.ciaddr = old;
    server.handle_message(now(2000), 0, &release);
    assert_eq!(server.records(now(2000)).len(), 1);
    let network = NetworkConfig { pools: vec![(address(200), address(201))], ..lan() };
    server.configure(now(3000), config(vec![network]));
    assert_eq!(server.records(now(3000)), []);
}

fn declining(mac: [u8; 6], address: Ipv4Addr) -> Message {
    let mut decline = selecting(mac, address);
    decline.options.set(code::MESSAGE_TYPE, vec![MessageType::Decline as u8]);
    decline
}

#[test]
fn a_client_that_declines_everything_does_not_take_the_pool() {
    let mut server = server();
    for round in 0..4 {
        let address = leased(&mut server, mac(1), 20_000 * round);
        silence(&mut server, &declining(mac(1), address), 20_000 * round + 5_000);
    }
    // The fourth was one too many: all are free again, and what it says of addresses does not count.
    assert!(server.leases(now(70_000).at).is_empty());
    assert!(server.problems().iter().any(|p| p.contains("02:00:00:00:00:01 declines every address")));
    let address = leased(&mut server, mac(1), 80_000);
    silence(&mut server, &declining(mac(1), address), 81_000);
    assert!(server.leases(now(81_000).at).is_empty());
    // Others are believed.
    let other = leased(&mut server, mac(2), 90_000);
    silence(&mut server, &declining(mac(2), other), 91_000);
    assert!(server.leases(now(91_000).at)[0].declined);
}

#[test]
fn a_flood_of_new_clients_takes_nothing_from_those_who_are_here() {
    let mut server = server();
    let kept = leased(&mut server, mac(1), 0);
    for flood in 0..5000_u32 {
        let [a, b, c, d] = flood.to_be_bytes();
        let at = 1000 + u64::from(flood);
        server.handle_message(now(at), 0, &discover([6, 0, a, b, c, d]));
        server.handle_timeout(now(at));
        drain(&mut server);
    }
    assert!(server.known() <= 4, "no more than the pool is remembered: {}", server.known());
    assert!(server.problems().iter().any(|p| p.contains("no free address")), "{:?}", server.problems());
    let renewed = answer(&mut server, &renewing(mac(1), kept), 7000);
    assert_eq!(renewed.message.yiaddr, kept);
    assert_eq!(offered(&mut server, &discover(PRINTER), 8000), address(10));
    // A minute after the flood the offers nobody took are free.
    server.handle_timeout(now(68_000));
    offered(&mut server, &discover(mac(7)), 70_000);
}
