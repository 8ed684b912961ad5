//! Names of clients.

use super::*;

#[track_caller]
fn check(raw: &[u8], expect: Option<&str>) {
    assert_eq!(sanitise(raw).as_deref(), expect);
}

#[test]
fn names_become_labels() {
    check(b"Laptop", Some("laptop"));
    check(b"pc.example.com", Some("pc"));
    check("Büro PC".as_bytes(), Some("b-ro-pc"));
    check(b"--a__b--", Some("a-b"));
    check(b"Bob's iPhone\0\0", Some("bob-s-iphone"));
    check(b"", None);
    check(b"...", None);
    check(b"\xff\xfe", None);
    check(&[b'x'; 200], Some(&"x".repeat(63)));
}

fn name_of(server: &mut Server, last: u8, option: u8, value: &[u8]) -> Option<String> {
    let address = leased(server, mac(last), u64::from(last) * 10_000);
    let mut renew = renewing(mac(last), address);
    renew.options.set(option, value.to_vec());
    server.handle_message(now(u64::from(last) * 10_000 + 1000), 0, &renew);
    drain(server);
    server.leases(now(0).at).into_iter().find(|lease| lease.address == address)?.name
}

#[test]
fn first_holder_keeps_the_name_and_fixed_names_win() {
    let mut server = server();
    assert_eq!(name_of(&mut server, 1, code::HOST_NAME, b"pc").as_deref(), Some("pc"));
    assert_eq!(name_of(&mut server, 2, code::HOST_NAME, b"PC").as_deref(), Some("pc-2"));
    assert_eq!(name_of(&mut server, 3, code::HOST_NAME, b"kontor").as_deref(), Some("kontor-2"));
    assert_eq!(name_of(&mut server, 4, code::HOST_NAME, b"wpad"), None);
}

#[test]
fn fqdn_counts_before_host_name_and_is_answered() {
    let mut server = server();
    assert_eq!(name_of(&mut server, 1, code::CLIENT_FQDN, b"\x00\x00\x00tom.corp").as_deref(), Some("tom"));
    assert_eq!(
        name_of(&mut server, 2, code::CLIENT_FQDN, b"\x04\x00\x00\x03tim\x04corp\x00").as_deref(),
        Some("tim")
    );
    assert_eq!(name_of(&mut server, 3, code::CLIENT_FQDN, b"\x04\x00\x00\x3ft").as_deref(), None);
    let address = leased(&mut server, mac(4), 90_000);
    let mut renew = renewing(mac(4), address);
    renew.options.set(code::CLIENT_FQDN, b"\x04\x00\x00\x02pc\x00".to_vec());
    let ack = answer(&mut server, &renew, 91_000);
    assert_eq!(
        ack.message.options.get(code::CLIENT_FQDN),
        Some(&b"\x07\xff\xff\x02pc\x06office\x08internal\x00"[..])
    );
}

#[test]
fn renewal_keeps_and_changes_names() {
    let mut server = server();
    let address = offered(&mut server, &discover(mac(1)), 0);
    let mut request = selecting(mac(1), address);
    request.options.set(code::HOST_NAME, b"old".to_vec());
    answer(&mut server, &request, 600);
    server.handle_message(now(1000), 0, &renewing(mac(1), address));
    assert!(!drain(&mut server).iter().any(|action| matches!(action, Action::Name(_))), "nothing changed");
    let mut renew = renewing(mac(1), address);
    renew.options.set(code::HOST_NAME, b"new".to_vec());
    server.handle_message(now(2000), 0, &renew);
    let names: Vec<_> = drain(&mut server)
        .into_iter()
        .filter_map(|action| if let Action::Name(n) = action { Some((n.name, n.set)) } else { None })
        .collect();
    assert_eq!(names, [("old".to_owned(), false), ("new".to_owned(), true)]);
    assert_eq!(server.names().len(), 1);
}

#[test]
fn reserved_names_are_left_to_the_site_file() {
    let mut server = server();
    leased(&mut server, PRINTER, 0);
    assert_eq!(server.leases(now(0).at)[0].name.as_deref(), Some("printer"));
    assert_eq!(server.names(), []);
    assert_eq!(name_of(&mut server, 1, code::HOST_NAME, b"printer").as_deref(), Some("printer-2"));
}
