//! A sequence of datagrams (each after a 16-bit length) into a server; no address may be leased twice.
#![no_main]

use std::collections::HashSet;

use kontor_dhcp4::server::{NetworkConfig, Now, Server, ServerConfig};
use kontor_dhcp4::{Instant, Message};
use libfuzzer_sys::fuzz_target;

fn server() -> Server {
    let network = NetworkConfig {
        name: "lan".into(),
        address: "192.168.77.1/24".parse().expect("an address"),
        pools: vec![([192, 168, 77, 100].into(), [192, 168, 77, 103].into())],
        lease_time_s: 600,
        dns_servers: Vec::new(),
        ntp_servers: Vec::new(),
        reservations: Vec::new(),
    };
    Server::new(ServerConfig { networks: vec![network], ..ServerConfig::default() })
}

fuzz_target!(|bytes: &[u8]| {
    let (mut server, mut rest, mut seconds) = (server(), bytes, 1_000_000);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (datagram, next) = after.split_at(length);
        let now = Now { at: Instant::from_secs(seconds), wall_s: seconds };
        if let Ok(message) = Message::decode(datagram) {
            server.handle_message(now, 0, &message);
        }
        server.handle_timeout(now);
        while server.poll_action().is_some() {}
        seconds += 1;
        rest = next;
        let leases = server.leases(now.at);
        let addresses: HashSet<_> = leases.iter().map(|lease| lease.address).collect();
        assert_eq!(addresses.len(), leases.len());
    }
});
