//! Scripts against the client machine: silence before each deadline, action at it.

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

fn at(seconds: u64) -> Instant {
    Instant::from_secs(seconds)
}

fn client() -> Client {
    Client::new(ClientConfig::for_mac(MAC), 42)
}

/// The only message sent since the last look.
#[track_caller]
fn sent(client: &mut Client) -> Transmit {
    let transmit = client.poll_transmit().expect("a message should have been sent");
    assert_eq!(client.poll_transmit(), None, "only one message should have been sent");
    transmit
}

#[track_caller]
fn silent(client: &mut Client) {
    assert_eq!(client.poll_transmit(), None);
    assert_eq!(client.poll_event(), None);
}

/// Proves silence just before the machine's own deadline, then lets it happen; returns when that was.
#[track_caller]
fn pass(client: &mut Client) -> Instant {
    let deadline = client.poll_timeout().expect("a deadline should be set");
    client.handle_timeout(deadline - Duration::from_millis(1));
    silent(client);
    client.handle_timeout(deadline);
    deadline
}

fn answer(request: &Message, message_type: MessageType) -> Message {
    let mut reply = request.reply(message_type);
    reply.options.set_address(code::SERVER_ID, SERVER);
    if message_type != MessageType::Nak {
        reply.yiaddr = ADDRESS;
        reply.options.set_u32(code::LEASE_TIME, 3600);
        reply.options.set_address(code::SUBNET_MASK, Ipv4Addr::new(255, 255, 255, 0));
        reply.options.set_address(code::ROUTER, SERVER);
    }
    reply
}

/// A client that got its lease at second 0.
fn bound() -> Client {
    let mut client = client();
    client.link_up(at(0));
    let discover = sent(&mut client).message;
    client.handle_message(at(0), &answer(&discover, MessageType::Offer));
    let request = sent(&mut client).message;
    client.handle_message(at(0), &answer(&request, MessageType::Ack));
    assert!(matches!(client.poll_event(), Some(Event::Configured(_))));
    client
}

#[track_caller]
fn about(instant: Instant, seconds: u64) {
    let off = instant.0.as_millis().abs_diff(u128::from(seconds) * 1000);
    assert!(off <= 1000, "{instant:?} is not {seconds} s ± 1 s");
}

#[test]
fn four_messages_make_a_lease() {
    let mut client = client();
    client.handle_timeout(at(100));
    silent(&mut client);
    client.link_up(at(100));
    assert_eq!(client.state(), State::Selecting);
    let discover = sent(&mut client);
    assert_eq!(discover.destination, Destination::Broadcast { source: Ipv4Addr::UNSPECIFIED });
    assert_eq!(discover.message.message_type(), Some(MessageType::Discover));
    client.handle_message(at(101), &answer(&discover.message, MessageType::Offer));
    let request = sent(&mut client).message;
    assert_eq!(request.options.address(code::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.options.address(code::SERVER_ID), Some(SERVER));
    assert_eq!(request.secs, 1);
    client.handle_message(at(102), &answer(&request, MessageType::Ack));
    let Some(Event::Configured(lease)) = client.poll_event() else { panic!("not configured") };
    assert_eq!(lease.address.to_string(), "10.0.0.50/24");
    assert_eq!(lease.gateway(), Some(SERVER));
    assert_eq!((lease.t1_s, lease.t2_s), (1800, 3150));
    assert_eq!(client.remaining(at(102)), Some(Duration::from_secs(3599)));
}

#[test]
fn discover_backs_off_to_64_seconds() {
    let mut client = client();
    client.link_up(at(0));
    let mut last = at(0);
    for interval in [4, 8, 16, 32, 64, 64] {
        sent(&mut client);
        let now = pass(&mut client);
        about(now - last.0, interval);
        last = now;
    }
}

#[test]
fn foreign_and_incomplete_messages_are_ignored() {
    let mut client = client();
    client.link_up(at(0));
    let discover = sent(&mut client).message;
    let offer = answer(&discover, MessageType::Offer);
    let mut spoiled = vec![offer.clone(); 5];
    spoiled[0].xid ^= 1;
    spoiled[1].chaddr[5] = 9;
    spoiled[2].options.remove(code::SERVER_ID);
    spoiled[3].yiaddr = Ipv4Addr::BROADCAST;
    spoiled[4].op = Op::Request;
    for message in &spoiled {
        client.handle_message(at(1), message);
        silent(&mut client);
    }
    client.handle_message(at(1), &offer);
    let request = sent(&mut client).message;
    let mut other = answer(&request, MessageType::Ack);
    other.options.set_address(code::SERVER_ID, Ipv4Addr::new(10, 0, 0, 2));
    client.handle_message(at(1), &other);
    silent(&mut client);
}

#[test]
fn unanswered_request_starts_over() {
    let mut client = client();
    client.link_up(at(0));
    let discover = sent(&mut client).message;
    client.handle_message(at(0), &answer(&discover, MessageType::Offer));
    for _ in 0..REQUEST_TRIES {
        assert_eq!(sent(&mut client).message.message_type(), Some(MessageType::Request));
        pass(&mut client);
    }
    assert_eq!(sent(&mut client).message.message_type(), Some(MessageType::Discover));
}

#[test]
fn renews_rebinds_and_expires() {
    let mut client = bound();
    assert_eq!(pass(&mut client), at(1800));
    assert_eq!(client.state(), State::Renewing);
    let renew = sent(&mut client);
    assert_eq!(renew.destination, Destination::Unicast { source: ADDRESS, server: SERVER });
    assert_eq!(renew.message.ciaddr, ADDRESS);
    assert_eq!(renew.message.options.address(code::SERVER_ID), None);
    assert_eq!(renew.message.options.address(code::REQUESTED_ADDRESS), None);
    assert_eq!(pass(&mut client), at(1800 + 675));
    sent(&mut client);
    while client.state() == State::Renewing {
        pass(&mut client);
        sent(&mut client);
    }
    assert_eq!(client.state(), State::Rebinding);
    let rebound = pass(&mut client);
    assert_eq!(rebound, at(3150 + 225));
    assert_eq!(sent(&mut client).destination, Destination::Broadcast { source: ADDRESS });
    while client.state() == State::Rebinding {
        assert!(client.poll_event().is_none());
        let _ = client.poll_transmit();
        pass(&mut client);
    }
    assert_eq!(client.poll_event(), Some(Event::Deconfigured));
    assert_eq!(sent(&mut client).message.message_type(), Some(MessageType::Discover));
}

#[test]
fn renewal_moves_the_deadlines() {
    let mut client = bound();
    pass(&mut client);
    let renew = sent(&mut client).message;
    client.handle_message(at(1801), &answer(&renew, MessageType::Ack));
    assert!(matches!(client.poll_event(), Some(Event::Configured(_))));
    assert_eq!(client.state(), State::Bound);
    assert_eq!(client.poll_timeout(), Some(at(3600)));
}

#[test]
fn nak_takes_the_lease_and_repeated_naks_slow_down() {
    let mut client = bound();
    pass(&mut client);
    let renew = sent(&mut client).message;
    client.handle_message(at(1800), &answer(&renew, MessageType::Nak));
    assert_eq!(client.poll_event(), Some(Event::Deconfigured));
    let discover = sent(&mut client).message;
    client.handle_message(at(1800), &answer(&discover, MessageType::Offer));
    let request = sent(&mut client).message;
    client.handle_message(at(1800), &answer(&request, MessageType::Nak));
    silent(&mut client);
    assert_eq!(pass(&mut client), at(1804));
    sent(&mut client);
}

#[test]
fn stored_lease_is_confirmed_by_init_reboot() {
    let mut before = bound();
    let lease = before.lease().cloned().unwrap();
    before.link_down();
    let mut client = client();
    client.restore(at(5), lease, Duration::from_secs(1000));
    client.link_up(at(5));
    assert_eq!(client.state(), State::Rebooting);
    let request = sent(&mut client).message;
    assert_eq!(request.options.address(code::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.options.address(code::SERVER_ID), None);
    assert_eq!(request.ciaddr, Ipv4Addr::UNSPECIFIED);
    client.handle_message(at(6), &answer(&request, MessageType::Ack));
    assert!(matches!(client.poll_event(), Some(Event::Configured(_))));
}

#[test]
fn silent_server_at_reboot_leads_to_discover_for_the_same_address() {
    let lease = bound().lease().cloned().unwrap();
    let mut client = client();
    client.restore(at(0), lease, Duration::from_secs(1000));
    client.link_up(at(0));
    for _ in 0..REBOOT_TRIES {
        sent(&mut client);
        pass(&mut client);
    }
    let discover = sent(&mut client).message;
    assert_eq!(discover.message_type(), Some(MessageType::Discover));
    assert_eq!(discover.options.address(code::REQUESTED_ADDRESS), Some(ADDRESS));
}

#[test]
fn expired_stored_lease_is_not_asked_for() {
    let lease = bound().lease().cloned().unwrap();
    let mut client = client();
    client.restore(at(0), lease, Duration::ZERO);
    client.link_up(at(0));
    assert_eq!(client.state(), State::Selecting);
}

#[test]
fn pulled_cable_keeps_the_lease_until_it_expires() {
    let mut client = bound();
    client.link_down();
    silent(&mut client);
    assert!(client.lease().is_some());
    client.link_up(at(60));
    assert_eq!(client.state(), State::Rebooting);
    sent(&mut client);
    client.link_down();
    assert_eq!(pass(&mut client), at(3600));
    assert_eq!(client.poll_event(), Some(Event::Deconfigured));
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn conflict_is_declined_and_waited_out() {
    let mut client = bound();
    client.handle_conflict(at(1));
    assert_eq!(client.poll_event(), Some(Event::Deconfigured));
    let decline = sent(&mut client).message;
    assert_eq!(decline.message_type(), Some(MessageType::Decline));
    assert_eq!(decline.options.address(code::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(decline.ciaddr, Ipv4Addr::UNSPECIFIED);
    assert_eq!(pass(&mut client), at(11));
    assert_eq!(sent(&mut client).message.message_type(), Some(MessageType::Discover));
}

#[test]
fn release_is_unicast_and_final() {
    let mut client = bound();
    client.release(at(9));
    let release = sent(&mut client);
    assert_eq!(release.message.message_type(), Some(MessageType::Release));
    assert_eq!(release.destination, Destination::Unicast { source: ADDRESS, server: SERVER });
    assert_eq!(client.poll_event(), Some(Event::Deconfigured));
    assert_eq!(client.poll_timeout(), None);
}

#[track_caller]
fn lease_of(change: impl FnOnce(&mut Message)) -> Lease {
    let mut client = client();
    client.link_up(at(0));
    let discover = sent(&mut client).message;
    client.handle_message(at(0), &answer(&discover, MessageType::Offer));
    let mut ack = answer(&sent(&mut client).message, MessageType::Ack);
    change(&mut ack);
    client.handle_message(at(0), &ack);
    client.lease().cloned().expect("the ACK should be accepted")
}

#[test]
fn classless_routes_override_the_router() {
    let lease = lease_of(|ack| {
        ack.options.set(code::CLASSLESS_ROUTES, vec![0, 10, 0, 0, 9, 8, 172, 0, 0, 0, 0, 33, 1]);
    });
    let routes: Vec<String> =
        lease.routes.iter().map(|route| format!("{} {}", route.destination, route.gateway)).collect();
    assert_eq!(routes, ["0.0.0.0/0 10.0.0.9", "172.0.0.0/8 0.0.0.0"]);
    assert_eq!(lease.gateway(), Some(Ipv4Addr::new(10, 0, 0, 9)));
}

#[test]
fn careless_servers_are_put_right() {
    let lease = lease_of(|ack| {
        ack.options.remove(code::LEASE_TIME);
        ack.options.remove(code::SUBNET_MASK);
        ack.options.remove(code::SERVER_ID);
        ack.options.set(code::INTERFACE_MTU, vec![0, 40]);
        ack.options.set_u32(code::RENEWAL_TIME, 0);
        ack.options.set_u32(code::REBINDING_TIME, 99_999);
    });
    assert_eq!((lease.lease_time_s, lease.t1_s, lease.t2_s), (3600, 1800, 3150));
    assert_eq!(lease.address.prefix_len(), 8);
    assert_eq!(lease.server_id, SERVER);
    assert_eq!(lease.mtu, None);
}

#[test]
fn endless_lease_has_no_timers() {
    let mut client = client();
    client.link_up(at(0));
    let discover = sent(&mut client).message;
    client.handle_message(at(0), &answer(&discover, MessageType::Offer));
    let mut ack = answer(&sent(&mut client).message, MessageType::Ack);
    ack.options.set_u32(code::LEASE_TIME, u32::MAX);
    client.handle_message(at(0), &ack);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn lease_survives_storage() {
    let lease = bound().lease().cloned().unwrap();
    let stored = serde_json::to_string(&lease).unwrap();
    assert_eq!(serde_json::from_str::<Lease>(&stored).unwrap(), lease);
}

proptest::proptest! {
    /// Whatever arrives in whatever order, the machine neither panics nor stalls with its link up.
    #[test]
    fn random_replies_never_stall(steps in proptest::collection::vec((0u8..6, 0u32..5000, 0u32..4000), 1..60)) {
        let mut client = client();
        client.link_up(at(0));
        let mut now = at(0);
        let mut last = Message::request(MessageType::Discover, 0, MAC);
        for (kind, lease_s, pause_s) in steps {
            while let Some(transmit) = client.poll_transmit() {
                last = transmit.message;
            }
            let kinds = [MessageType::Offer, MessageType::Ack, MessageType::Nak];
            match kinds.get(usize::from(kind)) {
                Some(message_type) => {
                    let mut reply = answer(&last, *message_type);
                    reply.options.set_u32(code::LEASE_TIME, lease_s);
                    client.handle_message(now, &reply);
                }
                None if kind == 3 => client.handle_conflict(now),
                None => {
                    now = now + Duration::from_secs(u64::from(pause_s));
                    client.handle_timeout(now);
                }
            }
            proptest::prop_assert!(client.poll_timeout().is_some(), "stalled in {:?}", client.state());
        }
    }
}
