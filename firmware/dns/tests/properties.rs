//! What must hold for every message, however it was made: no panic, bounded answers, nothing believed that
//! another implementation cannot read.

#![allow(clippy::unwrap_used)] // test code: a wrong fixture may panic

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{CNAME, MX, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use kontor_dns::answer::{Asked, TtlLimits, check_answer};
use kontor_dns::wire::{HEADER_LEN, parse_query};
use kontor_dns::{Client, Entropy, ForwardZone, Forwarder, Handled, Limits, Transmit, Transport, ZoneConfig};
use proptest::prelude::*;

fn forwarder(limits: Limits) -> Forwarder {
    let zones = ZoneConfig {
        domain: kontor_dns::Name::from_text("office.internal").unwrap(),
        host: "kontor".into(),
        points_to: None,
        networks: vec!["192.168.77.1/24".parse().unwrap()],
        hosts: vec![],
        forward_private: false,
    };
    let mut seed = 7u64;
    let entropy = Entropy::new(move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed
    });
    let mut forwarder = Forwarder::new(zones, limits, entropy).unwrap();
    forwarder.set_upstreams(Instant::now(), &[SocketAddr::from(([192, 0, 2, 1], 53))]);
    let name = kontor_dns::Name::from_text("ad.office.internal").unwrap();
    forwarder
        .set_forward_zones(&[ForwardZone { name, servers: vec![SocketAddr::from(([10, 0, 0, 1], 53))] }]);
    forwarder
}

fn client(last: u8, transport: Transport) -> Client {
    let ip = |last| IpAddr::from(Ipv4Addr::new(192, 168, 77, last));
    Client { peer: SocketAddr::new(ip(last), 4000), local: ip(1), transport, route: 0 }
}

fn query(qname: &str, id: u16) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(qname).unwrap(), RecordType::A));
    message.set_edns(Edns::new());
    message.to_vec().unwrap()
}

/// An answer with every type whose data holds names.
fn rich_answer(asked: &[u8]) -> Vec<u8> {
    let asked = Message::from_vec(asked).unwrap();
    let mut message = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    let name = asked.queries[0].name().clone();
    message.add_queries(asked.queries);
    let target = Name::from_ascii("mail.example.org.").unwrap();
    for data in [
        RData::CNAME(CNAME(target.clone())),
        RData::MX(MX::new(10, target.clone())),
        RData::SOA(SOA::new(target.clone(), target.clone(), 1, 2, 3, 4, 5)),
    ] {
        message.add_answer(Record::from_rdata(name.clone(), 300, data.clone()));
        message.add_authority(Record::from_rdata(target.clone(), 200, data.clone()));
        message.add_additional(Record::from_rdata(target.clone(), 100, data));
    }
    message.set_edns(Edns::new());
    message.to_vec().unwrap()
}

fn mutate(message: &mut Vec<u8>, changes: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) {
    for (at, value) in changes {
        let at = at.index(message.len());
        message[at] = *value;
    }
    if let Some(cut) = cut {
        message.truncate(cut.index(message.len()));
    }
}

fn echo(asked: &[u8]) -> Vec<u8> {
    let mut answer = asked.to_vec();
    answer[2] |= 0x80;
    answer
}

/// Sends `message` as a query; whatever is asked upstream gets `reply`, what is passed on itself as an answer; then time
/// runs out.
fn exercise(message: &[u8], transport: Transport, reply: impl Fn(&[u8]) -> Vec<u8>) {
    let mut forwarder = forwarder(Limits::default());
    let mut now = Instant::now();
    let mut out = Vec::new();
    let mut answers = usize::from(
        forwarder.handle_query(now, client(9, transport), message, &mut out) == Handled::Answered,
    );
    check_bounds(message, transport, &out);
    for _ in 0..20 {
        while let Some(transmit) = forwarder.poll_transmit() {
            match transmit {
                Transmit::Ask { token, message: relayed, .. } if relayed == message => {
                    forwarder.handle_upstream(now, token, &echo(message));
                }
                Transmit::Ask { token, message, .. } => {
                    assert!(Message::from_vec(&message).is_ok(), "we sent what nobody can read");
                    forwarder.handle_upstream(now, token, &reply(&message));
                }
                Transmit::Answer { message: answer, .. } => {
                    check_bounds(message, transport, &answer);
                    answers += 1;
                }
                Transmit::Close { .. } => {}
            }
        }
        let Some(at) = forwarder.poll_timeout() else { break };
        now = now.max(at);
        forwarder.handle_timeout(now);
    }
    assert!(answers <= 1, "one query, {answers} answers");
    assert_eq!(forwarder.poll_timeout(), None, "something is left over");
}

fn check_bounds(query: &[u8], transport: Transport, answer: &[u8]) {
    if answer.is_empty() {
        return;
    }
    assert_eq!(answer[..2], query[..2], "the id comes back");
    assert!(answer[2] & 0x80 != 0, "an answer is a response");
    if transport == Transport::Udp {
        assert!(answer.len() <= 1232, "{} octets over UDP", answer.len());
        // Amplification: without EDNS nothing is above 512.
        let plain = parse_query(query).is_ok_and(|query| query.edns.is_none());
        assert!(!plain || answer.len() <= 512);
    }
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_queries(message in prop::collection::vec(any::<u8>(), 0..600), transport in transport()) {
        exercise(&message, transport, <[u8]>::to_vec);
    }

    #[test]
    fn mutated_queries(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        transport in transport(),
    ) {
        let mut message = query("www.example.com.", 77);
        mutate(&mut message, &changes, cut);
        exercise(&message, transport, rich_answer);
    }

    #[test]
    fn random_replies(reply in prop::collection::vec(any::<u8>(), 0..600), transport in transport()) {
        exercise(&query("www.example.com.", 77), transport, |asked| {
            // The id is right, so that more than the first check is reached.
            [&asked[..2], &reply].concat()
        });
    }

    #[test]
    fn mutated_replies(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        transport in transport(),
    ) {
        exercise(&query("www.example.com.", 77), transport, |asked| {
            let mut reply = rich_answer(asked);
            mutate(&mut reply, &changes, cut);
            reply
        });
    }

    /// Updates and keys are passed on unread, so whatever is in them.
    #[test]
    fn mutated_updates(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        transport in transport(),
    ) {
        let mut message = query("ad.office.internal.", 77);
        message[2] = 5 << 3;
        mutate(&mut message, &changes, cut);
        exercise(&message, transport, rich_answer);
    }

    /// What is kept can be read by another implementation whenever the original could.
    #[test]
    fn stored_form_stays_readable(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let asked = query("www.example.com.", 77);
        let mut reply = rich_answer(&asked);
        mutate(&mut reply, &changes, None);
        let question = &asked[HEADER_LEN..asked.len() - 11];
        let asked = Asked { id: 77, question, exact_case: false };
        if let Ok(answer) = check_answer(&reply, asked, TtlLimits::default())
            && !answer.truncated
            && Message::from_vec(&reply).is_ok()
        {
            prop_assert!(Message::from_vec(&answer.wire).is_ok());
        }
    }
}

/// A name that reads a TTL would be another one with each second that the answer ages.
#[test]
fn a_name_that_leads_through_a_ttl_is_refused() {
    let asked = query("www.example.com.", 77);
    let question = &asked[HEADER_LEN..asked.len() - 11];
    let mut reply = vec![0, 77, 0x80, 0, 0, 1, 0, 2, 0, 0, 0, 0];
    reply.extend_from_slice(question);
    // The TTL 0x01610000 is the name `a.`, for whoever reads it as one.
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    let ttl_at = u16::try_from(reply.len()).unwrap();
    reply.extend_from_slice(&[1, b'a', 0, 0, 0, 4, 192, 0, 2, 1]);
    let asked = Asked { id: 77, question, exact_case: false };
    let check = |pointer: u16| {
        let mut reply = reply.clone();
        reply.extend_from_slice(&pointer.to_be_bytes());
        reply.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 2]);
        check_answer(&reply, asked, TtlLimits::default())
    };
    assert!(check(0xc000 | 12).is_ok());
    assert!(check(0xc000 | ttl_at).is_err());
}

/// 64 KiB made to be expensive: thousands of records whose names are chains of pointers.
#[test]
fn a_crafted_message_is_given_up_early() {
    let asked = query("www.example.com.", 77);
    let question = &asked[HEADER_LEN..asked.len() - 11];
    let mut reply = vec![0, 77, 0x80, 0, 0, 1, 0x15, 0, 0, 0, 0, 0];
    reply.extend_from_slice(question);
    while reply.len() < 65_000 {
        let target = u16::try_from(reply.len() - 12).unwrap_or(0).min(0x3fff) | 0xc000;
        reply.extend_from_slice(&target.to_be_bytes());
        reply.extend_from_slice(&[0, 16, 0, 1, 0, 0, 0, 60, 0, 0]);
    }
    let asked = Asked { id: 77, question, exact_case: false };
    assert!(check_answer(&reply, asked, TtlLimits::default()).is_err());
    // The same as a query: the counts alone are enough.
    reply[2] = 1;
    assert!(parse_query(&reply).is_err());
}

/// No client and no question can take more than its share; what is refused costs no memory.
#[test]
fn bounds_hold_under_a_flood() {
    let limits = Limits { in_flight: 8, per_client: 3, ..Limits::default() };
    let mut forwarder = forwarder(limits);
    let now = Instant::now();
    let mut pending = 0;
    let mut out = Vec::new();
    for number in 0..100u16 {
        let message = query(&format!("n{number}.example."), number);
        let greedy = client(9, Transport::Udp);
        pending += usize::from(forwarder.handle_query(now, greedy, &message, &mut out) == Handled::Pending);
    }
    assert_eq!(pending, 3);
    for number in 0..100u16 {
        let message = query(&format!("m{number}.example."), number);
        let modest = client(u8::try_from(number + 10).unwrap(), Transport::Udp);
        pending += usize::from(forwarder.handle_query(now, modest, &message, &mut out) == Handled::Pending);
    }
    assert_eq!(pending, 8);
    let mut asked = 0;
    while let Some(transmit) = forwarder.poll_transmit() {
        asked += usize::from(matches!(transmit, Transmit::Ask { .. }));
    }
    assert_eq!(asked, 8);
    // Everything ends by the deadline, and the room is free again.
    forwarder.handle_timeout(now + Duration::from_secs(2));
    forwarder.handle_timeout(now + Duration::from_secs(5));
    assert_eq!(forwarder.poll_timeout(), None);
    let message = query("later.example.", 1);
    assert_eq!(forwarder.handle_query(now, client(9, Transport::Udp), &message, &mut out), Handled::Pending);
}

/// While the line comes up, names that can be asked at once are, however many wait for others.
#[test]
fn what_waits_for_the_line_leaves_room() {
    let mut forwarder = forwarder(Limits::default());
    let now = Instant::now();
    forwarder.set_upstreams(now, &[]);
    forwarder.expect_upstreams(Some(now + Duration::from_secs(60)));
    let mut ask = |last, name: &str, id| {
        forwarder.handle_query(now, client(last, Transport::Udp), &query(name, id), &mut Vec::new())
    };
    for last in 10..30 {
        let pending =
            (0..200).filter(|id| ask(last, &format!("n{id}.n{last}.example."), *id) == Handled::Pending);
        assert_eq!(pending.count(), if last < 18 { 32 } else { 0 }, "of client {last}");
    }
    for last in 10..30 {
        assert_eq!(ask(last, "dc.ad.office.internal.", 500), Handled::Pending);
    }
    let mut asked = 0;
    while let Some(transmit) = forwarder.poll_transmit() {
        asked += usize::from(matches!(transmit, Transmit::Ask { .. }));
    }
    assert_eq!(asked, 1, "the realm's name alone, once");
}

/// A client that repeats itself gets one answer; many clients get one each.
#[test]
fn repeated_queries_are_answered_once() {
    let mut forwarder = forwarder(Limits::default());
    let now = Instant::now();
    let message = query("www.example.", 5);
    let mut out = Vec::new();
    let first = client(9, Transport::Udp);
    assert_eq!(forwarder.handle_query(now, first, &message, &mut out), Handled::Pending);
    assert_eq!(forwarder.handle_query(now, first, &message, &mut out), Handled::Dropped);
    assert_eq!(forwarder.handle_query(now, client(10, Transport::Udp), &message, &mut out), Handled::Pending);
    let Some(Transmit::Ask { token, message, .. }) = forwarder.poll_transmit() else { panic!("not asked") };
    forwarder.handle_upstream(now, token, &rich_answer(&message));
    let mut answered = Vec::new();
    while let Some(transmit) = forwarder.poll_transmit() {
        if let Transmit::Answer { client, .. } = transmit {
            answered.push(client.peer.ip());
        }
    }
    assert_eq!(answered, [9, 10].map(|last| client(last, Transport::Udp).peer.ip()));
}

/// A signature is between the upstream and us; nothing of it, and nothing behind it, reaches a client.
#[test]
fn what_follows_a_signature_is_not_kept() {
    let question = b"\x03www\x07example\0\0\x01\0\x01";
    let asked = Asked { id: 5, question, exact_case: false };
    let address = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
    let signature = b"\0\0\xfa\0\xff\0\0\0\0\0\0";
    let header = b"\0\x05\x81\x80\0\x01\0\x01\0\0\0\x02";
    let message = [&header[..], question, address, signature, address].concat();
    let answer = check_answer(&message, asked, TtlLimits::default()).unwrap();
    assert_eq!(answer.wire.len(), HEADER_LEN + question.len() + address.len());
    assert_eq!(answer.ttl_at.len(), 1);
    let read = Message::from_vec(&answer.wire).unwrap();
    assert_eq!((read.answers.len(), read.additionals.len()), (1, 0));
}

/// With 0x20, an answer whose name is spelt differently is not ours.
#[test]
fn mixed_case_must_come_back() {
    let limits = Limits { mixed_case: true, ..Limits::default() };
    let mut forwarder = forwarder(limits);
    let now = Instant::now();
    let mut out = Vec::new();
    forwarder.handle_query(now, client(9, Transport::Udp), &query("www.example-name.com.", 5), &mut out);
    let Some(Transmit::Ask { token, message, .. }) = forwarder.poll_transmit() else { panic!("not asked") };
    let honest = rich_answer(&message);
    let mut guessed = honest.clone();
    guessed[HEADER_LEN..HEADER_LEN + 20].make_ascii_lowercase();
    assert_ne!(honest, guessed, "the name has capitals");
    forwarder.handle_upstream(now, token, &guessed);
    assert_eq!(forwarder.poll_transmit(), None);
    forwarder.handle_upstream(now, token, &honest);
    assert!(forwarder.poll_transmit().is_some());
}
