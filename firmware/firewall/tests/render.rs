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
