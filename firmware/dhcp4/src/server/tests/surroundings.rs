//! Cables in the wrong place: the server must not serve the provider's network, nor the box itself.

use super::*;

fn surrounded(own_macs: &[[u8; 6]], exposed: &[&str]) -> Surroundings {
    let exposed = exposed.iter().map(|name| (*name).to_owned()).collect();
    Surroundings { own_macs: own_macs.to_vec(), exposed }
}

#[test]
fn our_own_client_is_never_served() {
    let mut server = server();
    server.set_surroundings(surrounded(&[mac(9)], &[]));
    server.handle_message(now(0), 0, &discover(mac(9)));
    assert!(drain(&mut server).is_empty(), "not even a probe");
    silence(&mut server, &selecting(mac(9), address(100)), 1);
    silence(&mut server, &init_reboot(mac(9), Ipv4Addr::new(10, 0, 0, 1)), 2);
    offered(&mut server, &discover(mac(1)), 3);
}

#[test]
fn an_exposed_network_keeps_its_leases_and_gives_no_new_ones() {
    let mut server = server();
    let kept = leased(&mut server, mac(1), 0);
    server.set_surroundings(surrounded(&[], &["lan"]));
    for stranger in [
        discover(mac(2)),
        selecting(mac(2), address(101)),
        init_reboot(mac(2), Ipv4Addr::new(10, 0, 0, 1)),
        renewing(mac(2), Ipv4Addr::new(10, 0, 0, 1)),
        renewing(mac(2), kept),
        discover(mac(1)),
        discover(PRINTER),
        Message::request(MessageType::Inform, 7, mac(2)),
    ] {
        server.handle_message(now(1000), 0, &stranger);
        assert!(drain(&mut server).is_empty(), "{stranger:?}");
    }
    let renewed = answer(&mut server, &renewing(mac(1), kept), 2000);
    assert_eq!(renewed.message.message_type(), Some(MessageType::Ack));
    server.set_surroundings(Surroundings::default());
    offered(&mut server, &discover(mac(2)), 3000);
}

#[test]
fn a_probe_under_way_ends_in_silence_when_the_network_becomes_exposed() {
    let mut server = server();
    server.handle_message(now(0), 0, &discover(mac(1)));
    drain(&mut server);
    server.set_surroundings(surrounded(&[], &["lan"]));
    server.handle_timeout(now(600));
    assert!(drain(&mut server).is_empty());
}
