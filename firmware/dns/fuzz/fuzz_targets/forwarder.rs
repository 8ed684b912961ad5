//! A whole exchange: any query, any replies, then silence until everything has ended.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use kontor_dns::{Client, Entropy, ForwardZone, Forwarder, Limits, Name, Transmit, Transport, ZoneConfig};
use libfuzzer_sys::fuzz_target;

fn forwarder() -> Forwarder {
    let zones = ZoneConfig {
        domain: Name::from_text("office.internal").unwrap(),
        host: "kontor".into(),
        points_to: None,
        networks: vec!["192.168.77.1/26".parse().unwrap()],
        hosts: vec![],
        forward_private: false,
    };
    let mut forwarder = Forwarder::new(zones, Limits::default(), Entropy::new(|| 1)).unwrap();
    forwarder.expect_upstreams(Some(Instant::now() + Duration::from_secs(60)));
    // With few labels, so that noise finds it.
    let servers = vec![SocketAddr::from(([10, 0, 0, 1], 53)), SocketAddr::from(([10, 0, 0, 2], 53))];
    forwarder.set_forward_zones(&[ForwardZone { name: Name::from_text("ad").unwrap(), servers }]);
    forwarder
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>, bool, bool)| {
    let (query, reply, tcp, early) = input;
    let upstream = [SocketAddr::from(([192, 0, 2, 1], 53))];
    let mut forwarder = forwarder();
    let mut now = Instant::now();
    let ip = IpAddr::from(Ipv4Addr::new(192, 168, 77, 9));
    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
    let client = Client { peer: SocketAddr::new(ip, 4000), local: ip, transport, route: 0 };
    let mut out = Vec::new();
    // Asked before the line is up, it waits for an upstream.
    if !early {
        forwarder.set_upstreams(now, &upstream);
    }
    forwarder.handle_query(now, client, &query, &mut out);
    forwarder.set_upstreams(now, &upstream);
    for _ in 0..20 {
        while let Some(transmit) = forwarder.poll_transmit() {
            if let Transmit::Ask { token, message, .. } = transmit {
                // Id and question as asked: deeper than noise alone would get.
                let end = message.len().min(reply.len() + 12);
                let related =
                    [&message[..2], &[0x80, 0, 0, 1, 0, 1, 0, 1, 0, 1], &message[12..end.max(12)], &reply];
                forwarder.handle_upstream(now, token, &related.concat());
            }
        }
        let Some(at) = forwarder.poll_timeout() else { return };
        now = now.max(at);
        forwarder.handle_timeout(now);
    }
    panic!("an exchange did not end");
});
