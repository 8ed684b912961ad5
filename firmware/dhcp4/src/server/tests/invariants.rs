//! Random messages, probes, pauses and restarts; what must hold after each.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::lease::replay;

#[derive(Debug, Clone)]
enum Step {
    Discover(u8, u8),
    Selecting(u8, u8),
    Reboot(u8, u8),
    Renew(u8, u8),
    Decline(u8, u8),
    Release(u8, u8),
    ProbeAnswered(u8, u8),
    Pause(u32),
    Reload(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let client = 1u8..8;
    let last = prop_oneof![Just(10u8), 99u8..106];
    prop_oneof![
        4 => (client.clone(), last.clone()).prop_map(|(c, a)| Step::Discover(c, a)),
        4 => (client.clone(), last.clone()).prop_map(|(c, a)| Step::Selecting(c, a)),
        1 => (client.clone(), last.clone()).prop_map(|(c, a)| Step::Reboot(c, a)),
        2 => (client.clone(), last.clone()).prop_map(|(c, a)| Step::Renew(c, a)),
        1 => (client.clone(), last.clone()).prop_map(|(c, a)| Step::Decline(c, a)),
        1 => (client.clone(), last.clone()).prop_map(|(c, a)| Step::Release(c, a)),
        1 => (client, last).prop_map(|(c, a)| Step::ProbeAnswered(c, a)),
        3 => (0u32..2_000_000).prop_map(Step::Pause),
        1 => any::<bool>().prop_map(Step::Reload),
    ]
}

/// Client 7 is the printer; odd clients have identifiers, 3 and 5 the same one.
fn peer(client: u8) -> [u8; 6] {
    if client == 7 { PRINTER } else { mac(client) }
}

fn with_identity(mut message: Message, client: u8, message_type: MessageType) -> Message {
    message.options.set(code::MESSAGE_TYPE, vec![message_type as u8]);
    message.options.set(code::HOST_NAME, format!("pc{}", client % 3).into_bytes());
    if client % 2 == 1 {
        message.options.set(code::CLIENT_ID, vec![0, if client == 5 { 3 } else { client }]);
    }
    message
}

#[derive(Default)]
struct World {
    journal: Vec<u8>,
    names: HashMap<String, Ipv4Addr>,
}

fn play(server: &mut Server, world: &mut World, at: &mut u64, step: Step) {
    let mut message = |client: u8, message: Message, message_type| {
        server.handle_message(now(*at), 0, &with_identity(message, client, message_type));
    };
    match step {
        Step::Discover(c, a) => message(c, init_reboot(peer(c), address(a)), MessageType::Discover),
        Step::Selecting(c, a) => message(c, selecting(peer(c), address(a)), MessageType::Request),
        Step::Reboot(c, a) => message(c, init_reboot(peer(c), address(a)), MessageType::Request),
        Step::Renew(c, a) => message(c, renewing(peer(c), address(a)), MessageType::Request),
        Step::Decline(c, a) => message(c, selecting(peer(c), address(a)), MessageType::Decline),
        Step::Release(c, a) => message(c, renewing(peer(c), address(a)), MessageType::Release),
        Step::ProbeAnswered(c, a) => server.probe_answered(now(*at), 0, address(a), peer(c)),
        Step::Pause(ms) => *at += u64::from(ms),
        Step::Reload(wide) => {
            let mut changed = lan();
            changed.pools = if wide { vec![(address(100), address(105))] } else { changed.pools };
            server.configure(now(*at), config(vec![changed]));
        }
    }
    server.handle_timeout(now(*at));
    let mut durable: HashSet<(Ipv4Addr, [u8; 6])> = HashSet::new();
    for action in drain(server) {
        match action {
            Action::Persist(record) => {
                if record.state == RecordState::Leased {
                    durable.insert((record.address, record.mac));
                }
                world.journal.extend(record.to_line().into_bytes());
            }
            Action::Name(change) if change.set => drop(world.names.insert(change.name, change.address)),
            Action::Name(change) => {
                assert_eq!(world.names.remove(&change.name), Some(change.address), "a name removed twice");
            }
            Action::Send(reply) if reply.message.message_type() == Some(MessageType::Ack) => {
                let mac = reply.message.mac().unwrap();
                assert!(
                    durable.contains(&(reply.message.yiaddr, mac)),
                    "an ACK without its record before it"
                );
            }
            Action::Send(_) | Action::Probe { .. } => {}
        }
    }
}

fn check(server: &Server, world: &World, at: u64) {
    let leases = server.leases(now(at).at);
    let leased: Vec<&LeaseView> = leases.iter().filter(|lease| !lease.declined).collect();
    let addresses: HashSet<Ipv4Addr> = leased.iter().map(|lease| lease.address).collect();
    assert_eq!(addresses.len(), leased.len(), "an address leased twice");
    let names: HashSet<&String> = leased.iter().filter_map(|lease| lease.name.as_ref()).collect();
    assert_eq!(names.len(), leased.iter().filter(|lease| lease.name.is_some()).count(), "a name held twice");
    let holders: HashSet<[u8; 6]> = leased.iter().map(|lease| lease.mac).collect();
    assert_eq!(holders.len(), leased.len(), "a client with two leases");
    for lease in &leased {
        assert!(lease.address != address(10) || lease.mac == PRINTER, "the reservation leased to another");
        assert_ne!(lease.address, SERVER);
    }
    let told: HashMap<String, Ipv4Addr> = server.names().into_iter().map(|n| (n.name, n.address)).collect();
    assert_eq!(told, world.names, "names announced one by one differ from the snapshot");
    let replayed = replay(&world.journal).records.into_iter().filter(|r| r.state == RecordState::Leased);
    let on_disk: HashSet<(Ipv4Addr, [u8; 6])> = replayed.map(|record| (record.address, record.mac)).collect();
    let in_ram: HashSet<(Ipv4Addr, [u8; 6])> =
        leased.iter().map(|lease| (lease.address, lease.mac)).collect();
    assert_eq!(on_disk, in_ram, "the journal differs from the state");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn hold_for_any_sequence(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut server, mut world, mut at) = (server(), World::default(), 0);
        for step in steps {
            play(&mut server, &mut world, &mut at, step);
            check(&server, &world, at);
        }
        let mut restarted = self::server();
        restarted.adopt(now(at), replay(&world.journal).records);
        let (before, after) = (server.leases(now(at).at), restarted.leases(now(at).at));
        let key = |l: &LeaseView| (l.address, l.mac, l.declined);
        prop_assert_eq!(before.iter().map(key).collect::<Vec<_>>(), after.iter().map(key).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), options in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut server = server();
        let mut framed = discover(mac(1)).encode(DEFAULT_MESSAGE_SIZE).unwrap();
        framed.truncate(240);
        framed.extend_from_slice(&options);
        for datagram in [&bytes, &framed] {
            if let Ok(message) = Message::decode(datagram) {
                server.handle_message(now(0), 0, &message);
                server.handle_timeout(now(1000));
                for action in drain(&mut server) {
                    if let Action::Send(reply) = action {
                        prop_assert!(reply.message.encode(reply.limit).is_ok_and(|b| b.len() <= 1472 + 600));
                    }
                }
            }
        }
    }
}
