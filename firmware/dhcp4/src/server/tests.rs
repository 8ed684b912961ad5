//! Scripts against the server machine, and what must hold for any sequence of messages.

use super::*;
use crate::wire::DEFAULT_MESSAGE_SIZE;

mod invariants;
mod names;
mod pools;
mod surroundings;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const PRINTER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x10];

fn now(milliseconds: u64) -> Now {
    // Some years after the origin, as in the daemon, so that the past can be told.
    let origin = Duration::from_secs(100_000_000);
    Now { at: Instant::from_millis(milliseconds) + origin, wall_s: 1_800_000_000 + milliseconds / 1000 }
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, last)
}

fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

fn lan() -> NetworkConfig {
    NetworkConfig {
        name: "lan".into(),
        address: "192.168.77.1/24".parse().unwrap(),
        pools: vec![(address(100), address(103))],
        lease_time_s: 3600,
        dns_servers: vec![SERVER],
        ntp_servers: vec![SERVER],
        reservations: vec![Reservation { name: "printer".into(), mac: PRINTER, address: address(10) }],
    }
}

fn config(networks: Vec<NetworkConfig>) -> ServerConfig {
    ServerConfig {
        domain: "office.internal".into(),
        fixed_names: vec!["kontor".into(), "nas".into()],
        networks,
    }
}

fn server() -> Server {
    Server::new(config(vec![lan()]))
}

fn drain(server: &mut Server) -> Vec<Action> {
    std::iter::from_fn(|| server.poll_action()).collect()
}

/// The one message among the actions, or none.
#[track_caller]
fn sent(server: &mut Server) -> Option<Reply> {
    let actions = drain(server);
    let mut replies = actions.into_iter().filter_map(|action| match action {
        Action::Send(reply) => Some(reply),
        _ => None,
    });
    let reply = replies.next();
    assert_eq!(replies.next(), None);
    reply
}

#[track_caller]
fn answer(server: &mut Server, message: &Message, at_ms: u64) -> Reply {
    server.handle_message(now(at_ms), 0, message);
    sent(server).expect("an answer")
}

#[track_caller]
fn silence(server: &mut Server, message: &Message, at_ms: u64) {
    server.handle_message(now(at_ms), 0, message);
    assert_eq!(sent(server), None);
}

fn discover(mac: [u8; 6]) -> Message {
    Message::request(MessageType::Discover, 7, mac)
}

fn selecting(mac: [u8; 6], address: Ipv4Addr) -> Message {
    let mut message = init_reboot(mac, address);
    message.options.set_address(code::SERVER_ID, SERVER);
    message
}

fn init_reboot(mac: [u8; 6], address: Ipv4Addr) -> Message {
    let mut message = Message::request(MessageType::Request, 7, mac);
    message.options.set_address(code::REQUESTED_ADDRESS, address);
    message
}

fn renewing(mac: [u8; 6], address: Ipv4Addr) -> Message {
    let mut message = Message::request(MessageType::Request, 7, mac);
    message.ciaddr = address;
    message
}

/// DISCOVER with its probe unanswered: the OFFER.
#[track_caller]
fn offered(server: &mut Server, message: &Message, at_ms: u64) -> Ipv4Addr {
    server.handle_message(now(at_ms), 0, message);
    server.handle_timeout(now(at_ms + 500));
    let reply = sent(server).expect("an offer");
    assert_eq!(reply.message.message_type(), Some(MessageType::Offer));
    reply.message.yiaddr
}

/// A whole exchange: the address leased.
#[track_caller]
fn leased(server: &mut Server, mac: [u8; 6], at_ms: u64) -> Ipv4Addr {
    let address = offered(server, &discover(mac), at_ms);
    let ack = answer(server, &selecting(mac, address), at_ms + 600);
    assert_eq!(ack.message.message_type(), Some(MessageType::Ack));
    address
}

#[track_caller]
fn is_nak(reply: &Reply) {
    assert_eq!(reply.message.message_type(), Some(MessageType::Nak));
    assert_eq!(reply.destination, Destination::Broadcast);
    assert_eq!(reply.message.yiaddr, Ipv4Addr::UNSPECIFIED);
    assert_eq!(reply.message.options.get(code::LEASE_TIME), None);
}

#[test]
fn offer_waits_for_the_probe() {
    let mut server = server();
    server.handle_message(now(0), 0, &discover(mac(1)));
    let [Action::Probe { network: 0, address: probed }] = drain(&mut server)[..] else { panic!("no probe") };
    assert_eq!(server.poll_timeout(), Some(now(500).at));
    server.handle_timeout(now(499));
    assert_eq!(drain(&mut server), []);
    server.handle_timeout(now(500));
    let offer = sent(&mut server).unwrap();
    assert_eq!(offer.message.yiaddr, probed);
    assert_eq!(offer.destination, Destination::Hardware { mac: mac(1), address: probed });
}

#[test]
fn ack_comes_after_record_and_name() {
    let mut server = server();
    let address = offered(&mut server, &discover(mac(1)), 0);
    let mut request = selecting(mac(1), address);
    request.options.set(code::HOST_NAME, b"Laptop".to_vec());
    server.handle_message(now(600), 0, &request);
    let actions = drain(&mut server);
    let [Action::Persist(record), Action::Name(name), Action::Send(ack)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((record.address, record.mac, record.remaining_s), (address, mac(1), 3600));
    assert_eq!((name.name.as_str(), name.address, name.set), ("laptop", address, true));
    assert_eq!(ack.message.options.u32(code::LEASE_TIME), Some(3600));
    assert_eq!(ack.message.options.u32(code::RENEWAL_TIME), Some(1800));
    assert_eq!(ack.message.options.address(code::ROUTER), Some(SERVER));
    assert_eq!(ack.message.options.text(code::DOMAIN_NAME).as_deref(), Some("office.internal"));
}

#[test]
fn answered_probe_quarantines_and_tries_the_next() {
    let mut server = server();
    server.handle_message(now(0), 0, &discover(mac(1)));
    let [Action::Probe { address: first, .. }] = drain(&mut server)[..] else { panic!("no probe") };
    server.probe_answered(now(100), 0, first, mac(99));
    let actions = drain(&mut server);
    let [Action::Persist(record), Action::Probe { address: second, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((record.address, record.state), (first, RecordState::Declined));
    assert_ne!(first, *second);
    server.handle_timeout(now(599));
    assert_eq!(drain(&mut server), []);
    server.handle_timeout(now(600));
    assert_eq!(sent(&mut server).unwrap().message.yiaddr, *second);
}

#[test]
fn the_client_itself_may_answer_the_probe() {
    let mut server = server();
    server.handle_message(now(0), 0, &discover(mac(1)));
    let [Action::Probe { address, .. }] = drain(&mut server)[..] else { panic!("no probe") };
    server.probe_answered(now(1), 0, address, mac(1));
    server.handle_timeout(now(500));
    assert_eq!(sent(&mut server).unwrap().message.yiaddr, address);
}

#[test]
fn retransmitted_discover_is_answered_once() {
    let mut server = server();
    server.handle_message(now(0), 0, &discover(mac(1)));
    drain(&mut server);
    let mut again = discover(mac(1));
    again.xid = 8;
    server.handle_message(now(300), 0, &again);
    assert_eq!(drain(&mut server), []);
    server.handle_timeout(now(500));
    assert_eq!(sent(&mut server).unwrap().message.xid, 8);
}

#[test]
fn renewal_and_return_are_not_probed() {
    let mut server = server();
    let address = leased(&mut server, mac(1), 0);
    let ack = answer(&mut server, &renewing(mac(1), address), 1_000_000);
    assert_eq!((ack.message.yiaddr, ack.destination), (address, Destination::Address(address)));
    let offer = answer(&mut server, &discover(mac(1)), 1_001_000);
    assert_eq!(offer.message.yiaddr, address);
}

#[test]
fn reservation_is_by_mac_and_nobody_elses() {
    let mut server = server();
    assert_eq!(leased(&mut server, PRINTER, 0), address(10));
    let mut other_id = discover(PRINTER);
    other_id.options.set(code::CLIENT_ID, b"pxe".to_vec());
    assert_eq!(answer(&mut server, &other_id, 2000).message.yiaddr, address(10));
    is_nak(&answer(&mut server, &selecting(mac(1), address(10)), 3000));
    is_nak(&answer(&mut server, &init_reboot(mac(1), address(10)), 3000));
    is_nak(&answer(&mut server, &selecting(PRINTER, address(100)), 3000));
    assert!(server.leases(now(3000).at)[0].reserved);
}

#[test]
fn one_machine_with_several_client_ids_keeps_one_address() {
    let mut server = server();
    let address = leased(&mut server, mac(1), 0);
    for id in [&b"pxe"[..], b"installer", b"system"] {
        let mut message = discover(mac(1));
        message.options.set(code::CLIENT_ID, id.to_vec());
        assert_eq!(answer(&mut server, &message, 2000).message.yiaddr, address);
        let mut request = selecting(mac(1), address);
        request.options.set(code::CLIENT_ID, id.to_vec());
        let ack = answer(&mut server, &request, 2100);
        assert_eq!(ack.message.options.get(code::CLIENT_ID), Some(id));
    }
    assert_eq!(server.leases(now(3000).at).len(), 1);
}

#[test]
fn cloned_client_ids_get_two_addresses() {
    let mut server = server();
    let clone = |last| {
        let mut message = discover(mac(last));
        message.options.set(code::CLIENT_ID, b"same-machine-id".to_vec());
        message
    };
    let first = offered(&mut server, &clone(1), 0);
    let mut request = selecting(mac(1), first);
    request.options.set(code::CLIENT_ID, b"same-machine-id".to_vec());
    answer(&mut server, &request, 600);
    server.handle_message(now(1000), 0, &clone(2));
    assert_eq!(drain(&mut server), [Action::Probe { network: 0, address: first }]);
    server.probe_answered(now(1001), 0, first, mac(1));
    let [Action::Probe { address: second, .. }] = drain(&mut server)[..] else { panic!("no second probe") };
    assert_ne!(first, second);
    assert_eq!(server.leases(now(2000).at)[0].address, first, "the first clone keeps its lease");
}

#[test]
fn new_network_card_keeps_the_address_when_the_old_one_is_silent() {
    let mut server = server();
    let with_id = |mut message: Message| {
        message.options.set(code::CLIENT_ID, b"stable".to_vec());
        message
    };
    let first = offered(&mut server, &with_id(discover(mac(1))), 0);
    answer(&mut server, &with_id(selecting(mac(1), first)), 600);
    assert_eq!(offered(&mut server, &with_id(discover(mac(2))), 1000), first);
    answer(&mut server, &with_id(selecting(mac(2), first)), 1600);
    assert_eq!(server.leases(now(2000).at).len(), 1);
}

#[test]
fn init_reboot_is_confirmed_refused_or_passed_over() {
    let mut server = server();
    let address = leased(&mut server, mac(1), 0);
    let ack = answer(&mut server, &init_reboot(mac(1), address), 2000);
    assert_eq!(ack.message.message_type(), Some(MessageType::Ack));
    is_nak(&answer(&mut server, &init_reboot(mac(1), Ipv4Addr::new(10, 0, 0, 5)), 2000));
    is_nak(&answer(&mut server, &init_reboot(mac(2), address), 2000));
    silence(
        &mut server,
        &init_reboot(mac(3), (100..104).map(self::address).find(|a| *a != address).unwrap()),
        2000,
    );
}

#[test]
fn forgotten_lease_is_taken_up_at_renewal() {
    let mut server = server();
    let ack = answer(&mut server, &renewing(mac(1), address(101)), 0);
    assert_eq!((ack.message.message_type(), ack.message.yiaddr), (Some(MessageType::Ack), address(101)));
    is_nak(&answer(&mut server, &renewing(mac(2), address(101)), 0));
    is_nak(&answer(&mut server, &renewing(mac(2), address(55)), 0));
}

#[test]
fn choice_of_another_server_frees_the_offer() {
    let mut server = server();
    let address = offered(&mut server, &discover(mac(1)), 0);
    let mut request = selecting(mac(1), address);
    request.options.set_address(code::SERVER_ID, self::address(2));
    silence(&mut server, &request, 600);
    assert_eq!(server.networks[0].table.len(), 0);
}

#[test]
fn unused_offer_is_forgotten_after_a_minute() {
    let mut server = server();
    offered(&mut server, &discover(mac(1)), 0);
    server.handle_timeout(now(60_499));
    assert_eq!(server.networks[0].table.len(), 1);
    server.handle_timeout(now(60_500));
    assert_eq!(server.networks[0].table.len(), 0);
}

#[test]
fn lease_ends_with_its_name_exactly_on_time() {
    let mut server = server();
    let address = offered(&mut server, &discover(mac(1)), 0);
    let mut request = selecting(mac(1), address);
    request.options.set(code::HOST_NAME, b"pc".to_vec());
    answer(&mut server, &request, 600);
    server.handle_timeout(now(3_600_599));
    assert_eq!(drain(&mut server), []);
    server.handle_timeout(now(3_600_600));
    let actions = drain(&mut server);
    let [Action::Name(name), Action::Persist(record)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((name.set, record.state), (false, RecordState::Free));
    assert_eq!(offered(&mut server, &discover(mac(1)), 5_000_000), address, "it comes back to its address");
}

#[test]
fn declined_address_rests_ten_minutes() {
    let mut server = server();
    let address = leased(&mut server, mac(1), 0);
    let mut decline = selecting(mac(1), address);
    decline.options.set(code::MESSAGE_TYPE, vec![MessageType::Decline as u8]);
    silence(&mut server, &decline, 1000);
    assert!(server.leases(now(1000).at)[0].declined);
    assert_ne!(offered(&mut server, &discover(mac(1)), 2000), address);
    is_nak(&answer(&mut server, &init_reboot(mac(2), address), 3000));
    server.handle_timeout(now(600_999));
    assert!(server.leases(now(0).at)[0].declined);
    server.handle_timeout(now(601_000));
    assert_eq!(server.leases(now(0).at).len(), 0);
}

#[test]
fn only_the_holder_can_decline_or_release() {
    let mut server = server();
    let address = leased(&mut server, mac(1), 0);
    for message_type in [MessageType::Decline, MessageType::Release] {
        let mut message = selecting(mac(2), address);
        message.ciaddr = address;
        message.options.set(code::MESSAGE_TYPE, vec![message_type as u8]);
        silence(&mut server, &message, 1000);
        assert_eq!(server.leases(now(1000).at).len(), 1);
    }
    let mut release = renewing(mac(1), address);
    release.options.set(code::MESSAGE_TYPE, vec![MessageType::Release as u8]);
    silence(&mut server, &release, 1000);
    assert_eq!(server.leases(now(1000).at).len(), 0);
    assert_eq!(answer(&mut server, &discover(mac(1)), 2000).message.yiaddr, address, "given back just now");
}

#[test]
fn full_pool_is_silent_then_reuses_the_oldest() {
    let mut server = server();
    let all: Vec<Ipv4Addr> =
        (1..=4).map(|last| leased(&mut server, mac(last), u64::from(last) * 1000)).collect();
    silence(&mut server, &discover(mac(5)), 10_000);
    let problem = server.problems();
    answer(&mut server, &discover(mac(1)), 10_100);
    silence(&mut server, &discover(mac(5)), 14_000);
    assert_eq!(problem.len(), 1);
    assert_eq!(server.problems(), problem, "the same words all the time");
    for last in [2, 1, 3] {
        let mut release = renewing(mac(last), all[usize::from(last) - 1]);
        release.options.set(code::MESSAGE_TYPE, vec![MessageType::Release as u8]);
        server.handle_message(now(20_000 + 100 * u64::from(4 - last)), 0, &release);
    }
    drain(&mut server);
    assert_eq!(offered(&mut server, &discover(mac(5)), 30_000), all[2]);
    assert_eq!(server.problems().len(), 0);
}

#[test]
fn inform_gets_configuration_only() {
    let mut server = server();
    let mut inform = renewing(mac(1), address(50));
    inform.options.set(code::MESSAGE_TYPE, vec![MessageType::Inform as u8]);
    let ack = answer(&mut server, &inform, 0);
    assert_eq!(ack.destination, Destination::Address(address(50)));
    assert_eq!((ack.message.yiaddr, ack.message.ciaddr), (Ipv4Addr::UNSPECIFIED, address(50)));
    assert_eq!(ack.message.options.get(code::LEASE_TIME), None);
    assert_eq!(ack.message.options.address(code::DOMAIN_NAME_SERVER), Some(SERVER));
    inform.ciaddr = Ipv4Addr::new(10, 0, 0, 1);
    silence(&mut server, &inform, 0);
}

#[test]
fn relays_of_our_networks_are_answered_at_port_67() {
    let mut server = server();
    let mut message = discover(mac(1));
    message.giaddr = address(250);
    message.options.set(code::RELAY_AGENT_INFORMATION, vec![1, 2, 0, 7]);
    server.handle_message(now(0), 0, &message);
    server.handle_timeout(now(500));
    let offer = sent(&mut server).unwrap();
    assert_eq!(offer.destination, Destination::Relay(address(250)));
    assert_eq!(offer.message.options.get(code::RELAY_AGENT_INFORMATION), Some(&[1, 2, 0, 7][..]));
    let mut nak = init_reboot(mac(1), Ipv4Addr::new(10, 0, 0, 5));
    nak.giaddr = address(250);
    let nak = answer(&mut server, &nak, 1000);
    assert!(nak.message.broadcast && nak.destination == Destination::Relay(address(250)));
    message.giaddr = Ipv4Addr::new(10, 0, 0, 1);
    silence(&mut server, &message, 2000);
}

#[test]
fn broadcast_flag_is_obeyed() {
    let mut server = server();
    let mut message = discover(mac(1));
    message.broadcast = true;
    server.handle_message(now(0), 0, &message);
    server.handle_timeout(now(500));
    let offer = sent(&mut server).unwrap();
    assert_eq!(offer.destination, Destination::Broadcast);
    assert!(offer.message.broadcast);
}

#[test]
fn what_is_no_client_is_ignored() {
    let mut server = server();
    let mut bootp = discover(mac(1));
    bootp.options.remove(code::MESSAGE_TYPE);
    let mut reply = discover(mac(1));
    reply.op = Op::Reply;
    let mut long = discover(mac(1));
    long.hlen = 16;
    for message in [bootp, reply, long, discover([0; 6]), discover([0xff; 6])] {
        silence(&mut server, &message, 0);
    }
    server.handle_message(now(0), 9, &discover(mac(1)));
    assert_eq!(drain(&mut server), []);
}

#[test]
fn journal_brings_leases_back_and_ram_wins() {
    let mut before = server();
    let first = leased(&mut before, mac(1), 0);
    let second = leased(&mut before, mac(2), 1000);
    let records = before.records(now(2000));
    let mut after = server();
    let taken = answer(&mut after, &renewing(mac(3), second), 3000).message.yiaddr;
    after.adopt(now(4000), records);
    assert_eq!(taken, second);
    let leases = after.leases(now(4000).at);
    let holders: Vec<_> = leases.iter().map(|l| (l.address, l.mac)).collect();
    let mut expect = vec![(first, mac(1)), (second, mac(3))];
    expect.sort();
    assert_eq!(holders, expect);
    assert_eq!(answer(&mut after, &init_reboot(mac(1), first), 5000).message.yiaddr, first);
}

#[test]
fn reload_keeps_leases_and_closes_lost_networks() {
    let mut server = server();
    let address = leased(&mut server, mac(1), 0);
    let mut changed = lan();
    changed.pools = vec![(self::address(150), self::address(160))];
    server.configure(now(1000), config(vec![changed]));
    assert_eq!(server.leases(now(1000).at).len(), 1);
    is_nak(&answer(&mut server, &renewing(mac(1), address), 2000));
    assert!(offered(&mut server, &discover(mac(1)), 3000) >= self::address(150));
    server.configure(now(4000), config(Vec::new()));
    let closed = drain(&mut server);
    assert!(
        closed.iter().all(|a| matches!(a, Action::Persist(r) if r.state == RecordState::Free)),
        "{closed:?}"
    );
}

#[test]
fn address_of_an_unknown_client_depends_on_the_client_only() {
    let mut first = server();
    let mut second = server();
    assert_eq!(offered(&mut first, &discover(mac(42)), 0), offered(&mut second, &discover(mac(42)), 9000));
    let mut wish = discover(mac(43));
    wish.options.set_address(code::REQUESTED_ADDRESS, address(102));
    assert_eq!(offered(&mut first, &wish, 1000), address(102));
}

#[test]
fn storm_of_clients_stays_bounded() {
    let mut big = lan();
    big.address = "10.0.0.1/16".parse().unwrap();
    big.pools = vec![(Ipv4Addr::new(10, 0, 1, 0), Ipv4Addr::new(10, 0, 200, 255))];
    big.reservations.clear();
    let mut server = Server::new(config(vec![big]));
    for number in 0..10_000u32 {
        let [_, b, c, d] = number.to_be_bytes();
        server.handle_message(now(0), 0, &discover([2, 0, 0, b, c, d]));
    }
    assert_eq!(server.networks[0].pending.len(), MAX_PROBES);
    drain(&mut server);
    server.handle_timeout(now(500));
    let offers = drain(&mut server);
    assert_eq!(offers.len(), MAX_PROBES);
    server.handle_timeout(now(60_500));
    assert_eq!((server.networks[0].table.len(), server.networks[0].pending.len()), (0, 0));
}

#[test]
fn answers_fit_what_the_client_takes() {
    let mut server = server();
    let address = offered(&mut server, &discover(mac(1)), 0);
    let mut request = selecting(mac(1), address);
    request.options.set(code::MAXIMUM_MESSAGE_SIZE, vec![0xff, 0xff]);
    assert_eq!(answer(&mut server, &request, 600).limit, 1472);
    request.options.set(code::MAXIMUM_MESSAGE_SIZE, vec![0, 1]);
    assert_eq!(answer(&mut server, &request, 600).limit, DEFAULT_MESSAGE_SIZE);
}
