//! A sequence of messages and ARP claims into a server; no address may be leased twice.
//!
//! Each step is a kind, a client and an address, then the octets of its options. So the fuzzer gets to the
//! leases at once, instead of having to guess fixed header and cookie first (target `wire` does that).
#![no_main]

use std::collections::HashSet;
use std::net::Ipv4Addr;

use kontor_dhcp4::server::{Action, NetworkConfig, Now, Reservation, Server, ServerConfig};
use kontor_dhcp4::wire::{MessageType, code};
use kontor_dhcp4::{Instant, Message};
use kontor_dhcp4_fuzz::with_options;
use libfuzzer_sys::fuzz_target;

/// Enough for eight clients to take, give back and take again four addresses; more only make each run slower.
const MOST_STEPS: usize = 32;

fn now(milliseconds: u64) -> Now {
    Now { at: Instant::from_millis(milliseconds), wall_s: milliseconds / 1000 }
}

fn server() -> Server {
    let network = NetworkConfig {
        name: "lan".into(),
        address: "192.168.77.1/24".parse().expect("an address"),
        pools: vec![([192, 168, 77, 100].into(), [192, 168, 77, 103].into())],
        lease_time_s: 600,
        dns_servers: Vec::new(),
        ntp_servers: Vec::new(),
        reservations: vec![Reservation {
            name: "printer".into(),
            mac: [2, 0, 0, 0, 0, 7],
            address: [192, 168, 77, 101].into(),
        }],
    };
    Server::new(ServerConfig {
        domain: "office.internal".into(),
        networks: vec![network],
        ..ServerConfig::default()
    })
}

/// A message of client 0 to 7 about an address around the pool, with these options in the wire's form.
fn message(kind: u8, client: u8, address: u8, options: &[u8]) -> Option<Message> {
    let kinds = [
        MessageType::Discover,
        MessageType::Request,
        MessageType::Decline,
        MessageType::Release,
        MessageType::Inform,
    ];
    let address = Ipv4Addr::new(192, 168, 77, 98 + address % 8);
    let mut message = Message::request(kinds[usize::from(kind % 5)], 7, [2, 0, 0, 0, 0, client & 7]);
    message.broadcast = client & 8 != 0;
    let mut own = Vec::with_capacity(12 + options.len());
    if client & 16 != 0 {
        own.extend([code::SERVER_ID, 4, 192, 168, 77, 1]);
    }
    if client & 32 != 0 {
        message.ciaddr = address;
    } else {
        own.extend([code::REQUESTED_ADDRESS, 4]);
        own.extend(address.octets());
    }
    if client & 64 != 0 {
        message.giaddr = [192, 168, 77, 9].into();
    }
    own.extend_from_slice(options);
    with_options(&message, &own)
}

fuzz_target!(|bytes: &[u8]| {
    let (mut server, mut rest, mut milliseconds) = (server(), bytes, 1_000_000_000);
    for _ in 0..MOST_STEPS {
        let Some(([kind, client, address, length], after)) = rest.split_first_chunk::<4>() else { break };
        let (options, next) = after.split_at(usize::from(*length).min(after.len()));
        milliseconds += u64::from(*kind >> 3) * 40_000 + 300;
        let now = now(milliseconds);
        if kind & 7 == 7 {
            let claimed = Ipv4Addr::new(192, 168, 77, 98 + address % 8);
            server.probe_answered(now, 0, claimed, [2, 0, 0, 0, 1, client & 3]);
        } else if let Some(message) = message(kind & 7, *client, *address, options) {
            server.handle_message(now, 0, &message);
        }
        server.handle_timeout(now);
        while let Some(action) = server.poll_action() {
            if let Action::Send(reply) = action {
                let wire = reply.message.encode(reply.limit).expect("an answer");
                Message::decode(&wire).expect("an answer decodes");
            }
        }
        rest = next;
        let leases = server.leases(now.at);
        let addresses: HashSet<_> = leases.iter().map(|lease| lease.address).collect();
        assert_eq!(addresses.len(), leases.len());
        let names: Vec<_> = leases.iter().filter_map(|lease| lease.name.as_ref()).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{leases:?}");
    }
    // As after a restart. Once is enough: a sequence that ends earlier is an input of its own.
    let now = now(milliseconds);
    let mut again = self::server();
    again.adopt(now, server.records(now));
    assert_eq!(again.leases(now.at).len(), server.leases(now.at).len());
});
