//! The rulesets and kernel settings of whole sites, as snapshots.

use kontor_config::{Board, Site};
use kontor_firewall::Openings;

fn site(text: &str) -> Site {
    let ports: String = (1..=20).map(|n| format!("[[port]]\nname = \"port{n}\"\n")).collect();
    let board =
        Board::parse("board.toml", &format!("schema = 1\nname = \"test\"\n{ports}")).expect("a right board");
    Site::parse("site.toml", text, &board).unwrap_or_else(|report| panic!("{report}"))
}

fn without_components(text: &str) -> String {
    kontor_firewall::render(&site(text), &Openings::default())
}

#[test]
fn default_site() {
    insta::assert_snapshot!(without_components(Site::default_text()));
}

#[test]
fn bridge_behind_the_providers_router() {
    let text = include_str!("../../../docs/examples/router-mode.toml");
    insta::assert_snapshot!(without_components(text));
}

#[test]
fn two_internal_networks_with_a_fixed_address_outside() {
    let text = include_str!("../../../docs/examples/direct-mode.toml");
    insta::assert_snapshot!(without_components(text));
}

#[test]
fn components_on_both_transports() {
    let openings = Openings { tcp: [445, 88, 389].into(), udp: [88].into() };
    insta::assert_snapshot!(kontor_firewall::render(&site(Site::default_text()), &openings));
}

#[test]
fn a_protocol_without_ports_has_neither_set_nor_rule() {
    let openings = Openings { tcp: [445].into(), udp: [].into() };
    let text = kontor_firewall::render(&site(Site::default_text()), &openings);
    assert!(text.contains("tcp dport @component_tcp accept") && !text.contains("component_udp"), "{text}");
    assert!(!without_components(Site::default_text()).contains("component"));
}

/// Two tunnels, of which one is called, and both ends have networks side by side.
#[test]
fn tunnels_to_other_offices() {
    let key = |first: char| format!("{first}{}=", "A".repeat(42));
    let text = format!(
        "{}\n[[tunnel]]\nname = \"hq\"\naddress = \"10.255.0.2/32\"\n\
         [[tunnel.peer]]\nname = \"headquarters\"\npublic-key = \"{}\"\nendpoint = \"vpn.example.net:51820\"\n\
         allowed-ips = [\"10.10.0.0/17\", \"10.10.128.0/17\"]\n\
         [[tunnel]]\nname = \"branches\"\naddress = \"10.255.1.1/24\"\nlisten-port = 51820\n\
         [[tunnel.peer]]\nname = \"nord\"\npublic-key = \"{}\"\nallowed-ips = [\"10.11.0.0/16\", \"10.255.1.2/32\"]\n",
        Site::default_text(),
        key('B'),
        key('C'),
    );
    insta::assert_snapshot!(without_components(&text));
    let settings = kontor_firewall::sysctls(&site(&text));
    assert!(settings.contains(&("net/ipv4/conf/wg-hq/rp_filter".to_owned(), "1".to_owned())), "{settings:?}");
}

#[test]
fn kernel_settings() {
    let list = kontor_firewall::sysctls(&site(Site::default_text()));
    let lines: Vec<_> = list.iter().map(|(path, value)| format!("{path} = {value}")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// firewalld needs tens of thousands of rules for dozens of interfaces: here networks are elements.
#[test]
fn networks_add_elements_not_rules() {
    let networks = (3..=18).map(|n| {
        format!(
            "[[network]]\nname = \"n{n}\"\nzone = \"internal\"\nports = [\"port{n}\"]\naddress = \"10.{n}.0.1/24\"\n"
        )
    });
    let many: String = std::iter::once(Site::default_text().to_owned()).chain(networks).collect();
    let lines = |text: &str| without_components(text).lines().count();
    assert_eq!(lines(&many), lines(Site::default_text()));
}
