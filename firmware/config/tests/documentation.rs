//! What the operators' documentation shows is right.

use kontor_config::{Board, Site};

#[test]
fn example_in_the_reference_is_right() {
    let page = include_str!("../../../docs/site.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let board: String = (1..=3).map(|n| format!("[[port]]\nname = \"port{n}\"\n")).collect();
    let board =
        Board::parse("board.toml", &format!("schema = 1\nname = \"test\"\n{board}")).expect("a board");
    let site = Site::parse("docs/site.md", example.expect("an example"), &board);
    let site = site.unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(site.office.host_name, "gate");
}

#[test]
fn reference_names_every_key() {
    let page = include_str!("../../../docs/site.md");
    let keys = [
        "schema",
        "name",
        "host-name",
        "domain",
        "zone",
        "ports",
        "address",
        "gateway",
        "pools",
        "lease-time-s",
        "ntp-servers",
        "mac",
        "forwarders",
        "servers",
        "operator-password-hash",
        "root-shell",
        "role",
        "realm",
        "site",
        "rodc-group",
        "listen-port",
        "mtu",
        "public-key",
        "endpoint",
        "allowed-ips",
        "persistent-keepalive-s",
        "homes",
        "comment",
        "read",
        "write",
        "recycle-bin",
        "previous-versions",
        "audit",
        "encrypt",
        "networks",
        "url",
        "channel",
        "policy",
        "window",
        "rate-limit-kbit-s",
        "centre",
    ];
    for key in keys {
        assert!(page.contains(&format!("{key} = ")), "{key} is missing in the example");
        let tables = [format!("`{key}`"), format!(".{key}`")];
        assert!(tables.iter().any(|table| page.contains(table)), "{key} is missing in the tables");
    }
}
