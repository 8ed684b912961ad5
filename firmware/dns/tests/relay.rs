//! Messages that are passed on as they are: which ones, to whom, and what ends them.

#![allow(clippy::unwrap_used)] // test code: a wrong fixture may panic

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use kontor_dns::{
    Client, Entropy, ForwardZone, Forwarder, Handled, Limits, Name, Transmit, Transport, ZoneConfig,
};

const REALM: &str = "ad.office.internal";
const A: u16 = 1;
const SOA: u16 = 6;
const TKEY: u16 = 249;
const AXFR: u16 = 252;
const QUERY: u8 = 0x01;
const UPDATE: u8 = 5 << 3;

fn server(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 53))
}

fn forwarder(zones: &[(&str, &[SocketAddr])]) -> Forwarder {
    let config = ZoneConfig {
        domain: Name::from_text("office.internal").unwrap(),
        host: "kontor".into(),
        points_to: None,
        networks: vec!["192.168.77.1/24".parse().unwrap()],
        hosts: vec![],
        forward_private: false,
    };
    let mut forwarder = Forwarder::new(config, Limits::default(), Entropy::new(|| 1)).unwrap();
    forwarder.set_upstreams(Instant::now(), &[SocketAddr::from(([192, 0, 2, 1], 53))]);
    set_zones(&mut forwarder, zones);
    forwarder
}

fn set_zones(forwarder: &mut Forwarder, zones: &[(&str, &[SocketAddr])]) {
    let zone = |&(name, servers): &(&str, &[SocketAddr])| ForwardZone {
        name: Name::from_text(name).unwrap(),
        servers: servers.to_vec(),
    };
    forwarder.set_forward_zones(&zones.iter().map(zone).collect::<Vec<_>>());
}

fn client(last: u8, transport: Transport) -> Client {
    let ip = |last| IpAddr::from(Ipv4Addr::new(192, 168, 77, last));
    Client { peer: SocketAddr::new(ip(last), 4000), local: ip(1), transport, route: 0 }
}

/// Header with one question (or zone) and one additional record, which is a signature when `signed`.
fn message(flags: u8, name: &str, rtype: u16, signed: bool) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, flags, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(signed)];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, u8::try_from(rtype).unwrap(), 0, 1]);
    if signed {
        // Key name, TSIG, ANY, TTL 0, and data that only the server can read.
        message.extend_from_slice(b"\x011\0\0\xfa\0\xff\0\0\0\0\0\x03abc");
    }
    message
}

/// An answer as the server would give it, with a tail of its own.
fn answer(asked: &[u8]) -> Vec<u8> {
    let mut answer = [asked, b"tail"].concat();
    answer[2] |= 0x80;
    answer
}

/// What the forwarder sends next: token, whom to, how, what.
fn sent(forwarder: &mut Forwarder) -> Option<(u64, SocketAddr, Transport, Vec<u8>)> {
    loop {
        match forwarder.poll_transmit()? {
            Transmit::Ask { token, upstream, transport, message } => {
                return Some((token, upstream, transport, message));
            }
            Transmit::Close { .. } => {}
            Transmit::Answer { .. } => panic!("an answer"),
        }
    }
}

/// What a client gets next; nothing may be asked before.
fn answered(forwarder: &mut Forwarder) -> Option<Vec<u8>> {
    loop {
        match forwarder.poll_transmit()? {
            Transmit::Answer { message, .. } => return Some(message),
            Transmit::Close { .. } => {}
            Transmit::Ask { upstream, .. } => panic!("asked {upstream}"),
        }
    }
}

fn rcode(message: &[u8]) -> u8 {
    message[3] & 0x0f
}

/// The message must go to the realm's server as it is, and the answer back as it is.
#[track_caller]
fn passes(asked: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut forwarder = forwarder(&[(REALM, &[server(1), server(2)])]);
        let (now, mut out) = (Instant::now(), Vec::new());
        assert_eq!(forwarder.handle_query(now, client(9, transport), asked, &mut out), Handled::Pending);
        let (token, upstream, how, relayed) = sent(&mut forwarder).unwrap();
        assert_eq!((upstream, how, relayed.as_slice()), (server(1), transport, asked));
        forwarder.handle_upstream(now, token, &answer(asked));
        assert_eq!(answered(&mut forwarder), Some(answer(asked)));
        assert_eq!((forwarder.cache_entries(), forwarder.poll_timeout()), (0, None));
    }
}

/// The message must be answered here, with this response code.
#[track_caller]
fn stays(zones: &[(&str, &[SocketAddr])], asked: &[u8], expect: u8) {
    let mut forwarder = forwarder(zones);
    let mut out = Vec::new();
    let handled = forwarder.handle_query(Instant::now(), client(9, Transport::Tcp), asked, &mut out);
    assert_eq!((handled, rcode(&out)), (Handled::Answered, expect));
    assert_eq!(forwarder.poll_transmit(), None);
}

#[test]
fn updates_keys_and_signed_queries_of_the_realm_pass() {
    passes(&message(UPDATE, REALM, SOA, false));
    passes(&message(UPDATE, "_msdcs.ad.office.internal", SOA, true));
    passes(&message(QUERY, "1234.sig-hq.AD.office.internal", TKEY, false));
    passes(&message(QUERY, "1412-ms-7.1-2d3f.6b1c", TKEY, false));
    passes(&message(QUERY, "dc1.ad.office.internal", A, true));
    // Windows 2000 puts the key where answers are.
    let mut old = message(QUERY, "key", TKEY, false);
    old[7] = 1;
    old.extend_from_slice(b"\x01k\0\0\xf9\0\xff\0\0\0\0\0\0");
    passes(&old);
    // An update has prerequisites and changes; they are the server's business.
    let mut long = message(UPDATE, REALM, SOA, false);
    long[7] = 200;
    long[9] = 200;
    long.resize(60_000, 7);
    passes(&long);
}

#[test]
fn everything_else_stays() {
    const NOTIMP: u8 = 4;
    const REFUSED: u8 = 5;
    let realm: &[(&str, &[SocketAddr])] = &[(REALM, &[server(1)])];
    stays(realm, &message(UPDATE, "office.internal", SOA, false), NOTIMP);
    stays(realm, &message(UPDATE, "example", SOA, true), NOTIMP);
    stays(realm, &message(4 << 3, REALM, SOA, false), NOTIMP);
    stays(&[], &message(UPDATE, REALM, SOA, false), NOTIMP);
    stays(&[], &message(QUERY, "key", TKEY, false), NOTIMP);
    stays(realm, &message(QUERY, REALM, AXFR, true), REFUSED);
    // The office's own domain, though the zone that others know begins further up.
    stays(&[("internal", &[server(1)])], &message(UPDATE, "office.internal", SOA, false), NOTIMP);
    // Two zones at once are no update.
    let mut two = message(UPDATE, REALM, SOA, false);
    two[5] = 2;
    stays(realm, &two, NOTIMP);
    // A query that only bears a signature is one like any other outside of the realm.
    stays(realm, &message(QUERY, "nas.office.internal", A, true), 3);
}

#[test]
fn a_refusal_leads_to_the_next_server_and_the_last_one_to_an_error() {
    let asked = message(UPDATE, REALM, SOA, true);
    let mut forwarder = forwarder(&[(REALM, &[server(1), server(2)])]);
    let (now, mut out) = (Instant::now(), Vec::new());
    forwarder.handle_query(now, client(9, Transport::Tcp), &asked, &mut out);
    for last in [1, 2] {
        let (token, upstream, _, relayed) = sent(&mut forwarder).unwrap();
        assert_eq!((upstream, &relayed), (server(last), &asked));
        forwarder.handle_upstream_error(now, token);
    }
    let failure = answered(&mut forwarder).unwrap();
    assert_eq!((&failure[..2], failure[2], rcode(&failure)), (&asked[..2], 0x80 | UPDATE, 2));
    assert_eq!(forwarder.poll_timeout(), None);
}

#[test]
fn silence_ends_after_five_seconds() {
    let mut forwarder = forwarder(&[(REALM, &[server(1), server(2)])]);
    let (now, mut out) = (Instant::now(), Vec::new());
    forwarder.handle_query(now, client(9, Transport::Udp), &message(UPDATE, REALM, SOA, false), &mut out);
    let (token, ..) = sent(&mut forwarder).unwrap();
    let end = now + Duration::from_secs(5);
    assert_eq!(forwarder.poll_timeout(), Some(end));
    forwarder.handle_timeout(end - Duration::from_millis(1));
    assert_eq!(forwarder.poll_transmit(), None);
    forwarder.handle_timeout(end);
    assert_eq!(forwarder.poll_transmit(), Some(Transmit::Close { token }));
    assert_eq!(answered(&mut forwarder).map(|message| rcode(&message)), Some(2));
    // What comes later is nobody's.
    forwarder.handle_upstream(end, token, &answer(&message(UPDATE, REALM, SOA, false)));
    assert_eq!(forwarder.poll_transmit(), None);
}

#[test]
fn what_is_no_answer_does_not_reach_the_client() {
    let asked = message(UPDATE, REALM, SOA, false);
    let mut forwarder = forwarder(&[(REALM, &[server(1)])]);
    let (now, mut out) = (Instant::now(), Vec::new());
    forwarder.handle_query(now, client(9, Transport::Udp), &asked, &mut out);
    let (token, ..) = sent(&mut forwarder).unwrap();
    let mut other_id = answer(&asked);
    other_id[0] ^= 1;
    let other_opcode = answer(&message(QUERY, REALM, SOA, false));
    for stray in [&asked, &other_id, &other_opcode, &asked[..2].to_vec()] {
        forwarder.handle_upstream(now, token, stray);
        assert_eq!(forwarder.poll_transmit(), None);
    }
    forwarder.handle_upstream(now, token, &answer(&asked));
    assert_eq!(answered(&mut forwarder), Some(answer(&asked)));
}

#[test]
fn messages_on_their_way_are_bounded() {
    let asked = message(UPDATE, REALM, SOA, false);
    let mut forwarder = forwarder(&[(REALM, &[server(1)])]);
    let (now, mut out) = (Instant::now(), Vec::new());
    let mut pending = [0; 20];
    for (last, pending) in (10..).zip(&mut pending) {
        for _ in 0..10 {
            let handled = forwarder.handle_query(now, client(last, Transport::Udp), &asked, &mut out);
            *pending += usize::from(handled == Handled::Pending);
        }
    }
    assert_eq!((pending[0], pending[19], pending.iter().sum::<usize>()), (8, 0, 64));
    assert_eq!((rcode(&out), forwarder.counters().shed), (2, 200 - 64));
    forwarder.handle_timeout(now + Duration::from_secs(5));
    assert_eq!(forwarder.poll_timeout(), None);
    assert_eq!(forwarder.handle_query(now, client(9, Transport::Udp), &asked, &mut out), Handled::Pending);
}

#[test]
fn the_general_upstreams_never_get_one_whose_zone_has_gone() {
    let mut forwarder = forwarder(&[(REALM, &[server(1), server(2)])]);
    let (now, mut out) = (Instant::now(), Vec::new());
    forwarder.handle_query(now, client(9, Transport::Udp), &message(UPDATE, REALM, SOA, false), &mut out);
    let (token, ..) = sent(&mut forwarder).unwrap();
    set_zones(&mut forwarder, &[]);
    forwarder.handle_upstream_error(now, token);
    assert_eq!(answered(&mut forwarder).map(|message| rcode(&message)), Some(2));
}

/// Queries find out who is silent; messages passed on do not run into that.
#[test]
fn a_silent_server_is_passed_over() {
    let mut forwarder = forwarder(&[(REALM, &[server(1), server(2)])]);
    let (now, mut out) = (Instant::now(), Vec::new());
    for name in ["a", "b", "c"] {
        let asked = message(QUERY, &format!("{name}.{REALM}"), A, false);
        forwarder.handle_query(now, client(9, Transport::Udp), &asked, &mut out);
        let (token, upstream, ..) = sent(&mut forwarder).unwrap();
        assert_eq!(upstream, server(1));
        forwarder.handle_upstream_error(now, token);
        assert_eq!(sent(&mut forwarder).unwrap().1, server(2));
    }
    forwarder.handle_query(now, client(9, Transport::Udp), &message(UPDATE, REALM, SOA, false), &mut out);
    assert_eq!(sent(&mut forwarder).unwrap().1, server(2));
}
