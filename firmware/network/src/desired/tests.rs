//! Site and lease in, links and addresses out.

use kontor_config::Board;
use kontor_config::board::BoardPort;
use kontor_config::site::{Console, Dns, Office, Time, TunnelPeer};

use super::*;
use crate::assign;

pub(crate) fn board(ports: &[&str]) -> Board {
    let port = |name: &&str| BoardPort { name: (*name).to_owned(), pci: None };
    Board { name: "test".into(), ports: ports.iter().map(port).collect(), ..Board::default() }
}

pub(crate) fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// `("lan", &["port2"], "192.168.77.1/24")`; a network named `wan` is external, address `dhcp` is DHCP.
pub(crate) fn site(networks: &[(&str, &[&str], &str)]) -> Site {
    let network = |(name, ports, address): &(&str, &[&str], &str)| Network {
        name: (*name).to_owned(),
        zone: if *name == "wan" { Zone::External } else { Zone::Internal },
        ports: ports.iter().map(|port| (*port).to_owned()).collect(),
        address: match *address {
            "dhcp" => Address::Dhcp,
            text => Address::Static {
                address: net(text),
                gateway: (*name == "wan").then(|| net(text).hosts().next().unwrap()),
            },
        },
        dhcp: None,
    };
    Site {
        office: Office { name: "T".into(), host_name: "t".into(), domain: "office.internal".into() },
        networks: networks.iter().map(network).collect(),
        dns: Dns { forwarders: vec![], hosts: vec![] },
        time: Time { servers: vec![] },
        console: Console { operator_password_hash: None, root_shell: false },
        samba: None,
        tunnels: vec![],
        update: None,
    }
}

/// To one peer with these networks behind it.
pub(crate) fn tunnel(name: &str, networks: &[&str]) -> Tunnel {
    let peer = TunnelPeer {
        name: "headquarters".into(),
        public_key: [7; 32],
        endpoint: None,
        allowed_ips: networks.iter().map(|text| net(text)).collect(),
        persistent_keepalive_s: None,
    };
    Tunnel {
        name: name.into(),
        address: net("10.255.0.2/32"),
        listen_port: None,
        mtu: 1420,
        peers: vec![peer],
    }
}

pub(crate) fn cards(count: u8) -> Assignment {
    let names: Vec<String> = (1..=count).map(|i| format!("port{i}")).collect();
    let nic = |i: u8| Nic {
        index: Some(u32::from(i) + 1),
        pci: Some(format!("0000:00:0{i}.0")),
        mac: Some(Mac([2, 0, 0, 0, 0, i])),
    };
    let nics: Vec<Nic> = (1..=count).map(nic).collect();
    assign(&board(&names.iter().map(String::as_str).collect::<Vec<_>>()), &[], &nics)
}

pub(crate) fn lease(address: &str, gateway: &str) -> Uplink {
    Uplink {
        address: net(address),
        gateway: Some(ip(gateway)),
        routes: vec![],
        mtu: None,
        origin: RouteOrigin::Dhcp,
    }
}

const DEFAULT: &[(&str, &[&str], &str)] =
    &[("wan", &["port1"], "dhcp"), ("lan", &["port2"], "192.168.77.1/24")];

fn run(site: &Site, cards: &Assignment, lease: Option<&Uplink>, external_open: bool) -> Desired {
    desired(Inputs { site, assignment: cards, lease, external_open })
}

#[test]
fn default_site_with_a_lease() {
    let lease = lease("10.0.2.15/24", "10.0.2.2");
    let out = run(&site(DEFAULT), &cards(2), Some(&lease), true);
    let lan = ("port2".to_owned(), net("192.168.77.1/24"));
    assert_eq!(out.addresses, [lan, ("port1".into(), net("10.0.2.15/24"))]);
    assert_eq!(out.routes.len(), 1);
    assert_eq!(out.routes[0].gateway, Some(ip("10.0.2.2")));
    assert!(out.problems.is_empty(), "{:?}", out.problems);
}

#[test]
fn without_the_firewall_the_outside_stays_down_and_the_lan_is_served() {
    let lease = lease("10.0.2.15/24", "10.0.2.2");
    let out = run(&site(DEFAULT), &cards(2), Some(&lease), false);
    assert_eq!(out.addresses, [("port2".to_owned(), net("192.168.77.1/24"))]);
    assert!(out.routes.is_empty());
    let up: Vec<_> = out.links.iter().map(|l| (l.name.as_str(), l.up)).collect();
    assert_eq!(up, [("port2", true), ("port1", false)]);
}

#[test]
fn a_lease_that_overlaps_the_lan_is_refused_in_words() {
    for address in ["192.168.77.40/24", "192.168.0.9/16", "192.168.77.200/30"] {
        let out = run(&site(DEFAULT), &cards(2), Some(&lease(address, "192.168.77.254")), true);
        assert_eq!(out.addresses, [("port2".to_owned(), net("192.168.77.1/24"))], "{address}");
        assert!(out.routes.is_empty());
        assert!(out.problems[0].contains("but lan is 192.168.77.0/24: both overlap"), "{:?}", out.problems);
    }
}

#[test]
fn lease_routes_never_touch_the_lan_and_odd_mtus_are_ignored() {
    let mut lease = lease("10.0.2.15/24", "10.0.2.2");
    lease.gateway = None;
    lease.mtu = Some(68);
    lease.routes = vec![
        (net("192.168.77.128/25"), Some(ip("10.0.2.9"))),
        (net("0.0.0.0/0"), Some(ip("10.0.2.3"))),
        (net("172.16.0.0/12"), None),
    ];
    let out = run(&site(DEFAULT), &cards(2), Some(&lease), true);
    let routes: Vec<_> = out.routes.iter().map(|r| (r.destination, r.gateway)).collect();
    assert_eq!(routes, [(net("0.0.0.0/0"), Some(ip("10.0.2.3"))), (net("172.16.0.0/12"), None)]);
    assert_eq!(out.problems.len(), 2, "{:?}", out.problems);
    assert!(out.links.iter().all(|link| link.mtu.is_none()));
}

#[test]
fn several_ports_become_a_bridge_that_carries_the_mtu_and_address() {
    let site = site(&[("wan", &["port1"], "203.0.113.2/29"), ("lan", &["port2", "port3"], "10.1.0.1/16")]);
    let out = run(&site, &cards(4), None, true);
    let names: Vec<_> = out.links.iter().map(|l| (l.name.as_str(), l.controller.as_deref(), l.up)).collect();
    let expect = [
        ("br-lan", None, true),
        ("port2", Some("br-lan"), true),
        ("port3", Some("br-lan"), true),
        ("port1", None, true),
        ("port4", None, false),
    ];
    assert_eq!(names, expect);
    assert_eq!(out.links[0].mac, Some(Mac([2, 0, 0, 0, 0, 2])));
    assert_eq!(out.routes[0].gateway, Some(ip("203.0.113.1")));
}

#[test]
fn missing_hardware_is_named_and_does_not_hide_the_rest() {
    let out = run(&site(DEFAULT), &cards(1), None, true);
    assert_eq!(out.problems, ["port2 (network lan) has no hardware"]);
    assert_eq!(out.addresses, []);
    assert_eq!(out.links.len(), 1);
}

#[test]
fn a_tunnel_needs_no_port_and_waits_for_the_firewall() {
    let mut site = site(DEFAULT);
    site.tunnels.push(tunnel("hq", &["10.8.0.0/16", "10.9.0.0/16"]));
    let closed = run(&site, &cards(2), None, false);
    let link = |out: &Desired| out.links.iter().find(|link| link.name == "wg-hq").cloned().unwrap();
    let of_tunnel = |route: &&Route| route.interface.as_deref() == Some("wg-hq");
    assert_eq!((link(&closed).kind, link(&closed).up), (LinkKind::WireGuard, false));
    assert_eq!(closed.routes.iter().filter(of_tunnel).count(), 0);
    assert!(closed.routes.iter().all(|route| route.interface.is_none()), "refused until then");
    assert_eq!(closed.routes.len(), 2);
    // Before there is a lease, too: its peers are called as soon as there is one.
    let open = run(&site, &cards(2), None, true);
    assert_eq!((link(&open).up, link(&open).mtu), (true, Some(1420)));
    assert!(open.addresses.contains(&("wg-hq".into(), net("10.255.0.2/32"))));
    let destinations: Vec<Ipv4Net> = open.routes.iter().filter(of_tunnel).map(|r| r.destination).collect();
    assert_eq!(destinations, [net("10.8.0.0/16"), net("10.9.0.0/16")]);
    assert_eq!(open.problems, Vec::<String>::new());
}

#[test]
fn the_provider_s_own_network_is_on_the_link_and_not_behind_a_tunnel() {
    let lease = lease("10.0.2.15/24", "10.0.2.2");
    let check = |behind: &str, reached: &[&str], lost: &str| {
        let mut site = site(DEFAULT);
        site.tunnels.push(tunnel("hq", &[behind, "10.99.0.0/16"]));
        let out = run(&site, &cards(2), Some(&lease), true);
        let into = out.routes.iter().filter(|route| route.metric == TUNNEL_METRIC);
        assert_eq!(into.map(|route| route.destination.to_string()).collect::<Vec<_>>(), reached);
        let problem = format!(
            "{lost} behind headquarters of the tunnel hq cannot be reached: the box itself is in 10.0.2.0/24; one of both \
             networks needs another address"
        );
        assert_eq!(out.problems, [problem]);
    };
    check("10.0.2.0/24", &["10.99.0.0/16"], "10.0.2.0/24");
    check("10.0.2.128/25", &["10.99.0.0/16"], "10.0.2.128/25");
    // What is on the link is the longer prefix: the rest is reached.
    check("10.0.0.0/16", &["10.0.0.0/16", "10.99.0.0/16"], "10.0.2.0/24");
}
