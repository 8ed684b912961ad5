//! Site files: the default and the examples are right; one wrong file per rule, with its exact report.

use kontor_config::site::{Address, Endpoint, EndpointHost, UpdatePolicy, Zone};
use kontor_config::{Board, Site, Window};

fn board() -> Board {
    let text = "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n\
                [[port]]\nname = \"port3\"\n";
    Board::parse("board.toml", text).expect("a right board")
}

/// A small right site; every wrong one differs from it in one place.
const RIGHT: &str = r#"schema = 1

[office]
name = "Kanzlei Müller"
host-name = "gate"
domain = "office.example"

[[network]]
name = "wan"
zone = "external"
ports = ["port1"]
address = "203.0.113.2/29"
gateway = "203.0.113.1"

[[network]]
name = "lan"
zone = "internal"
ports = ["port2"]
address = "192.168.77.1/24"

[network.dhcp]
pools = ["192.168.77.100-192.168.77.149", "192.168.77.160-192.168.77.199"]
lease-time-s = 3600
ntp-servers = ["192.168.77.9"]

[[network.dhcp.reservation]]
name = "printer"
mac = "52:54:00:12:34:56"
address = "192.168.77.10"

[[network.dhcp.reservation]]
name = "scanner"
mac = "52:54:00:12:34:57"
address = "192.168.77.11"

[dns]
forwarders = ["9.9.9.9", "2620:fe::fe"]

[[dns.host]]
name = "nas"
address = "192.168.77.5"

[time]
servers = ["ntp.example.net", "192.0.2.1"]

[console]
root-shell = false

[update]
url = "https://updates.example.net/kontor/"
channel = "testing"
centre = "https://centre.example.net:8443/check-in"
policy = "download"
window = "mon,sat 22:30-02:00"
rate-limit-kbit-s = 2000

[[tunnel]]
name = "hq"
address = "10.255.0.2/32"
mtu = 1400

[[tunnel.peer]]
name = "headquarters"
public-key = "ISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISE="
endpoint = "VPN.example.net:51820"
allowed-ips = ["10.10.0.0/16", "10.255.0.1/32"]
persistent-keepalive-s = 25

[[tunnel]]
name = "branches"
address = "10.255.1.1/24"
listen-port = 51820

[[tunnel.peer]]
name = "nord"
public-key = "IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI="
allowed-ips = ["10.11.0.0/16"]

[[tunnel.peer]]
name = "west"
public-key = "IyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyM="
endpoint = "198.51.100.9:41000"
allowed-ips = ["10.12.0.0/16"]
"#;

/// The right site with `old` replaced by `new`, its report kept as a snapshot named after the rule.
#[track_caller]
fn refuse(rule: &str, old: &str, new: &str) {
    assert_eq!(RIGHT.matches(old).count(), 1, "{rule}: {old:?} must stand in the right site exactly once");
    let report = Site::parse("site.toml", &RIGHT.replace(old, new), &board()).expect_err(rule);
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "refused", omit_expression => true }, {
        insta::assert_snapshot!(rule, report.to_string());
    });
}

#[test]
fn right_site_is_read() {
    let site = Site::parse("site.toml", RIGHT, &board()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(site.office.name, "Kanzlei Müller");
    let wan = site.networks_in(Zone::External).next().unwrap();
    let gateway = Some("203.0.113.1".parse().unwrap());
    assert_eq!(wan.address, Address::Static { address: "203.0.113.2/29".parse().unwrap(), gateway });
    let dhcp = site.networks[1].dhcp.as_ref().unwrap();
    assert_eq!(dhcp.reservations[0].mac, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    assert_eq!(dhcp.pools.len(), 2);
    assert_eq!(site.time.servers, ["ntp.example.net", "192.0.2.1"]);
    let update = site.update.as_ref().unwrap();
    assert_eq!(update.url, "https://updates.example.net/kontor");
    assert_eq!((update.channel.as_str(), update.policy), ("testing", UpdatePolicy::Download));
    assert_eq!(update.centre.as_deref(), Some("https://centre.example.net:8443/check-in"));
    assert_eq!(
        (update.window.to_string().as_str(), update.rate_limit_kbit_s),
        ("mon,sat 22:30-02:00", Some(2000))
    );
}

#[test]
fn updates() {
    refuse("update-url", "https://updates.example.net/kontor/", "updates.example.net");
    refuse("update-url-path", "https://updates.example.net/kontor/", "http://updates.example.net/../kontor");
    refuse("update-channel", "\"testing\"", "\"Testing\"");
    refuse("update-centre", "https://centre.example.net:8443/check-in", "ftp://centre.example.net");
    refuse("update-policy", "\"download\"", "\"always\"");
    refuse("update-window", "22:30-02:00", "22:30");
    refuse("update-rate-limit", "2000", "8");
    let text = RIGHT.split("channel = ").next().unwrap();
    let site = Site::parse("site.toml", text, &board()).unwrap_or_else(|report| panic!("{report}"));
    let update = site.update.unwrap();
    assert_eq!((update.channel.as_str(), update.policy), ("stable", UpdatePolicy::Automatic));
    assert_eq!(update.window, Window::default());
}

#[test]
fn right_tunnels_are_read() {
    let site = Site::parse("site.toml", RIGHT, &board()).unwrap_or_else(|report| panic!("{report}"));
    let [hq, branches] = site.tunnels.as_slice() else { panic!("{:?}", site.tunnels) };
    assert_eq!((hq.interface().as_str(), hq.mtu, hq.listen_port), ("wg-hq", 1400, None));
    let peer = &hq.peers[0];
    assert_eq!((peer.public_key, peer.persistent_keepalive_s), ([0x21; 32], Some(25)));
    assert_eq!(peer.endpoint.as_ref().map(ToString::to_string).as_deref(), Some("vpn.example.net:51820"));
    assert_eq!((branches.mtu, branches.listen_port, branches.peers.len()), (1420, Some(51_820), 2));
    let host = EndpointHost::Address("198.51.100.9".parse().unwrap());
    assert_eq!(branches.peers[1].endpoint, Some(Endpoint { host, port: 41_000 }));
    let networks: Vec<String> = hq.networks().map(|network| network.to_string()).collect();
    assert_eq!(networks, ["10.10.0.0/16", "10.255.0.1/32"]);
}

#[test]
fn tunnels() {
    refuse("tunnel-name", "\"branches\"", "\"all-our-branches\"");
    refuse("tunnel-name-twice", "\"branches\"", "\"hq\"");
    refuse("tunnel-address", "10.255.0.2/32", "10.255.0.2");
    refuse("tunnel-address-multicast", "10.255.0.2/32", "224.0.0.1/32");
    refuse("tunnel-address-in-network", "10.255.0.2/32", "192.168.77.2/32");
    refuse("tunnel-address-twice", "10.255.0.2/32", "10.255.1.2/32");
    refuse("tunnel-listen-port", "listen-port = 51820", "listen-port = 53");
    refuse("tunnel-listen-port-twice", "mtu = 1400", "listen-port = 51820");
    refuse("tunnel-mtu", "mtu = 1400", "mtu = 9000");
    refuse("tunnel-without-port", "listen-port = 51820", "");
    let peers = RIGHT.split_once("[[tunnel]]\nname = \"branches\"").unwrap().1.split_once("\n\n").unwrap().1;
    refuse("tunnel-without-peer", peers, "");
    refuse("tunnel-peer-empty", peers, "peer = []");
}

#[test]
fn peers_of_tunnels() {
    let key = "IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI=";
    refuse("peer-name-twice", "\"west\"", "\"nord\"");
    refuse("peer-key-short", key, "IiIi");
    refuse("peer-key-not-canonical", key, "IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiJ=");
    refuse("peer-key-zero", key, &format!("{}=", "A".repeat(43)));
    refuse("peer-key-twice", key, "IyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyM=");
    refuse("peer-endpoint-without-port", "VPN.example.net:51820", "vpn.example.net");
    refuse("peer-endpoint-port", "VPN.example.net:51820", "vpn.example.net:0");
    refuse("peer-endpoint-host", "VPN.example.net:51820", "10.1.2:51820");
    refuse("peer-endpoint-ipv6", "VPN.example.net:51820", "[2001:db8::1]:51820");
    refuse("peer-endpoint-multicast", "198.51.100.9:", "224.0.0.1:");
    refuse("peer-endpoint-is-box", "198.51.100.9:", "203.0.113.2:");
    refuse("peer-endpoint-in-tunnel", "198.51.100.9:", "10.10.0.9:");
    refuse("peer-networks-empty", "[\"10.12.0.0/16\"]", "[]");
    refuse("peer-network-format", "\"10.12.0.0/16\"", "\"10.12.0.0\"");
    refuse("peer-network-of-a-host", "\"10.12.0.0/16\"", "\"10.12.3.4/16\"");
    refuse("peer-network-everything", "\"10.12.0.0/16\"", "\"0.0.0.0/0\"");
    refuse("peer-network-too-large", "\"10.12.0.0/16\"", "\"10.0.0.0/7\"");
    refuse("peer-network-is-the-office-s", "\"10.12.0.0/16\"", "\"192.168.0.0/16\"");
    refuse("peer-network-of-another", "\"10.12.0.0/16\"", "\"10.10.9.0/24\"");
    refuse("peer-network-of-another-tunnel", "\"10.12.0.0/16\"", "\"10.255.0.0/28\"");
    refuse("peer-endpoint-is-box-in-tunnel", "198.51.100.9:", "10.255.0.2:");
    refuse("peer-endpoint-name-behind-tunnel", "[\"9.9.9.9\", \"2620:fe::fe\"]", "[\"10.10.0.53\"]");
    refuse("peer-network-is-box", "\"10.255.0.1/32\"", "\"10.255.0.2/32\"");
    refuse("peer-keepalive", "persistent-keepalive-s = 25", "persistent-keepalive-s = 0");
}

#[test]
fn default_site_is_right() {
    let site = Site::default_site(&board()).unwrap();
    assert_eq!(site, Site::parse("default", Site::default_text(), &board()).unwrap());
    assert_eq!(site.networks[0].address, Address::Dhcp);
    assert_eq!(site.networks[1].static_address(), Some("192.168.77.1/24".parse().unwrap()));
}

#[test]
fn examples_of_the_documentation_are_right() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        Site::parse(&path.display().to_string(), &text, &board()).unwrap_or_else(|report| panic!("{report}"));
        seen += 1;
    }
    assert!(seen >= 2, "the examples are gone");
}

/// What editors on other systems make of a right file.
#[test]
fn byte_order_mark_line_ends_and_underscores_are_accepted() {
    let text = format!("\u{feff}{}", RIGHT.replace("3600", "3_600").replace('\n', "\r\n"));
    let site = Site::parse("site.toml", &text, &board()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(site.networks[1].dhcp.as_ref().map(|dhcp| dhcp.lease_time_s), Some(3_600));
}

#[test]
fn syntax() {
    refuse("syntax", "zone = \"external\"", "zone = external");
    refuse("syntax-duplicate-key", "gateway = \"203.0.113.1\"", "zone = \"external\"");
}

#[test]
fn schema_keys_and_types() {
    refuse("schema-unknown", "schema = 1", "schema = 2");
    refuse("schema-missing", "schema = 1\n", "");
    refuse("unknown-key", "gateway = ", "gatway = ");
    refuse("unknown-key-quoted", "gateway = \"203.0.113.1\"", "\"gate\\u001bway\" = \"203.0.113.1\"");
    refuse("unknown-table", "[console]", "[consoles]");
    refuse("missing-key", "host-name = \"gate\"\n", "");
    refuse(
        "missing-table",
        "[office]\nname = \"Kanzlei Müller\"\nhost-name = \"gate\"\ndomain = \"office.example\"",
        "",
    );
    refuse("wrong-type-string", "\"gate\"", "7");
    refuse("wrong-type-integer", "3600", "\"1h\"");
    refuse("wrong-type-boolean", "root-shell = false", "root-shell = \"no\"");
    refuse("wrong-type-list", "ports = [\"port1\"]", "ports = \"port1\"");
    refuse("wrong-type-item", "\"9.9.9.9\", ", "\"9.9.9.9\", 8, ");
    refuse("wrong-type-table", "[time]\nservers = [\"ntp.example.net\", \"192.0.2.1\"]", "[[time]]");
    refuse("number-too-big", "3600", "36000000000000000000");
}

#[test]
fn formats() {
    refuse("office-name-empty", "Kanzlei Müller", " ");
    refuse("host-name", "\"gate\"", "\"-gate_1\"");
    refuse("domain", "office.example", "office.example.");
    refuse("domain-local", "office.example", "office.local");
    refuse("domain-special", "office.example", "10.in-addr.arpa");
    // With any label in front of it, a name must still fit into 255 octets on the wire.
    refuse("domain-too-long", "office.example", &["longlabel"; 20].join("."));
    refuse("network-name", "name = \"lan\"", "name = \"Office-network\"");
    refuse("zone-unknown", "zone = \"internal\"", "zone = \"trusted\"");
    refuse("address-without-prefix", "192.168.77.1/24", "192.168.77.1");
    refuse("address-not-ipv4", "\"192.168.77.10\"", "\"192.168.77.256\"");
    refuse("pool-format", "192.168.77.160-192.168.77.199", "192.168.77.160/28");
    refuse("mac-format", "52:54:00:12:34:56", "52:54:00:12:34");
    refuse("reservation-name", "\"printer\"", "\"printer.office\"");
    refuse("forwarder-format", "9.9.9.9", "dns.quad9.net");
    refuse("time-server", "192.0.2.1\"]", "192.0.2\"]");
}

#[test]
fn networks() {
    refuse("network-name-twice", "name = \"lan\"", "name = \"wan\"");
    refuse("external-missing", "zone = \"external\"", "zone = \"internal\"");
    refuse("external-twice", "zone = \"internal\"", "zone = \"external\"");
    refuse("internal-by-dhcp", "\"192.168.77.1/24\"", "\"dhcp\"");
    refuse("overlap", "192.168.77.1/24", "203.0.113.9/16");
    refuse("overlap-inside", "203.0.113.2/29", "192.168.77.250/30");
    refuse("address-is-network", "192.168.77.1/24", "192.168.77.0/24");
    refuse("address-is-broadcast", "192.168.77.1/24", "192.168.77.255/24");
    refuse("address-not-unicast", "203.0.113.2/29", "224.0.0.1/29");
    refuse("address-prefix", "192.168.77.1/24", "192.168.77.1/31");
    refuse("gateway-outside", "\"203.0.113.1\"", "\"203.0.113.9\"");
    refuse("gateway-is-box", "\"203.0.113.1\"", "\"203.0.113.2\"");
    refuse("gateway-missing", "gateway = \"203.0.113.1\"\n", "");
    refuse("gateway-with-dhcp", "\"203.0.113.2/29\"", "\"dhcp\"");
    refuse(
        "gateway-internal",
        "address = \"192.168.77.1/24\"",
        "address = \"192.168.77.1/24\"\ngateway = \"192.168.77.2\"",
    );
    refuse("port-unknown", "\"port2\"", "\"port9\"");
    refuse("port-twice", "\"port2\"", "\"port1\"");
    refuse("port-twice-in-network", "\"port2\"", "\"port2\", \"port3\", \"port2\"");
    refuse("port-none", "[\"port2\"]", "[]");
}

#[test]
fn dhcp() {
    let pool = "192.168.77.100-192.168.77.149";
    refuse("pool-outside", pool, "192.168.78.100-192.168.78.149");
    refuse("pool-beyond-end", pool, "192.168.77.200-192.168.78.20");
    refuse("pool-with-broadcast", pool, "192.168.77.200-192.168.77.255");
    refuse("pool-reversed", pool, "192.168.77.149-192.168.77.100");
    refuse("pool-overlap", pool, "192.168.77.120-192.168.77.160");
    refuse("pool-contains-box", pool, "192.168.77.1-192.168.77.99");
    refuse("lease-time-short", "3600", "119");
    refuse("lease-time-long", "3600", "2592001");
    refuse("ntp-server-multicast", "192.168.77.9", "224.0.1.1");
    refuse("reservation-outside", "\"192.168.77.10\"", "\"192.168.78.10\"");
    refuse("reservation-is-box", "\"192.168.77.10\"", "\"192.168.77.1\"");
    refuse("reservation-is-broadcast", "\"192.168.77.10\"", "\"192.168.77.255\"");
    refuse("reservation-is-network", "\"192.168.77.10\"", "\"192.168.77.0\"");
    refuse("reservation-address-twice", "192.168.77.11", "192.168.77.10");
    refuse("reservation-mac-twice", "52:54:00:12:34:57", "52-54-00-12-34-56");
    refuse("reservation-name-twice", "\"scanner\"", "\"Printer\"");
    refuse("reservation-name-is-box", "\"scanner\"", "\"gate\"");
    refuse("mac-multicast", "52:54:00:12:34:57", "53:54:00:12:34:57");
    refuse("mac-zero", "52:54:00:12:34:57", "00:00:00:00:00:00");
}

#[test]
fn dhcp_where_it_cannot_be() {
    refuse("dhcp-external", "zone = \"internal\"\nports", "zone = \"external\"\nports");
    let start = RIGHT.find("pools = ").unwrap();
    let end = RIGHT.find("[dns]").unwrap();
    refuse("dhcp-empty", &RIGHT[start..end], "pools = []\n\n");
}

#[test]
fn names_resolvers_and_console() {
    refuse("host-name-twice", "\"nas\"", "\"printer\"");
    refuse("host-address", "192.168.77.5\"", "0.0.0.0\"");
    refuse("forwarder-is-box", "9.9.9.9", "192.168.77.1");
    refuse("forwarder-loopback", "2620:fe::fe", "::1");
    refuse("forwarder-multicast", "9.9.9.9", "224.0.0.251");
    refuse("forwarder-twice", "2620:fe::fe", "9.9.9.9");
    let console = "root-shell = false";
    refuse("password-in-clear", console, "operator-password-hash = \"secret\"");
    let bcrypt = "operator-password-hash = \"$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW\"";
    refuse("password-bcrypt", console, bcrypt);
    let huge = "operator-password-hash = \"$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHRzYWx0$\
                aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo\"";
    refuse("password-needs-too-much-memory", console, huge);
}

#[test]
fn argon2id_hash_is_accepted() {
    let hash = "operator-password-hash = \"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$\
                aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g\"";
    let text = RIGHT.replace("root-shell = false", hash);
    let site = Site::parse("site.toml", &text, &board()).unwrap_or_else(|report| panic!("{report}"));
    assert!(site.console.operator_password_hash.is_some());
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = RIGHT
        .replace("192.168.77.1/24", "203.0.113.9/16")
        .replace("\"port2\"", "\"port7\"")
        .replace("3600", "1")
        .replace("\"nas\"", "\"scanner\"");
    let report = Site::parse("site.toml", &text, &board()).unwrap_err();
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "refused", omit_expression => true }, {
        insta::assert_snapshot!("several-mistakes", report.to_string());
    });
}

#[test]
fn reports_stay_small() {
    let mut text = RIGHT.to_owned();
    for index in 0..5000 {
        text.push_str(&format!("unknown-{index} = 1\n"));
    }
    let report = Site::parse("site.toml", &text, &board()).unwrap_err();
    assert_eq!(report.diagnostics.len(), 20);
    assert_eq!(report.omitted, 4980);
    assert!(report.to_string().ends_with("… and 4980 more\n"));
}

#[test]
fn files_that_are_no_site_at_all() {
    let big = "#".repeat(kontor_config::MAX_SITE_SIZE + 1);
    let report = Site::parse("site.toml", &big, &board()).unwrap_err().to_string();
    assert!(report.starts_with("error: the file is too big: 262145 bytes\n --> site.toml:1:1\n"), "{report}");
    let report = Site::parse_bytes("site.toml", b"schema = 1\n\xff", &board()).unwrap_err().to_string();
    assert!(report.starts_with("error: the file is not UTF-8 text (line 2)\n"), "{report}");
    assert!(Site::parse("site.toml", "", &board()).is_err());
}

/// What a stack or a quadratic algorithm would not survive, each as big as a site file may be.
#[test]
fn hostile_shapes_are_refused() {
    let full = |unit: &str| unit.repeat(kontor_config::MAX_SITE_SIZE / unit.len() - 1);
    for text in [
        format!("x = {}", full("[")),
        format!("x = {}", full("{a=")),
        format!("{} = 1", full("a.").trim_end_matches('.')),
        format!("[{}]", full("a.").trim_end_matches('.')),
        full("[[network]]\n"),
        full("[[dns.host]]\nname = \"a\"\naddress = \"10.0.0.1\"\n"),
        full("\u{1f600}"),
        full("\n"),
        full("\r"),
        format!("x = \"{}", full("\\u")),
    ] {
        let report = Site::parse("site.toml", &text, &board()).expect_err("no site");
        assert!(report.to_string().len() < 32 * 1024, "a report fits a status file");
    }
}

mod any_input {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_panics_on_text(text in "\\PC{0,400}") {
            let _ = Site::parse("site.toml", &text, &board()).map_err(|report| report.to_string());
        }

        #[test]
        fn never_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Site::parse_bytes("site.toml", &bytes, &board()).map_err(|report| report.to_string());
        }

        /// Damage anywhere in a right file: the parser is reached, not only the first line.
        #[test]
        fn never_panics_on_damage(at in 0..RIGHT.len(), cut in 0usize..40, put in "[\\PC\n]{0,20}") {
            let mut bytes = RIGHT.as_bytes().to_vec();
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, put.bytes());
            let _ = Site::parse_bytes("site.toml", &bytes, &board()).map_err(|report| report.to_string());
        }

        /// Values that have the right shape and no sense.
        #[test]
        fn never_panics_on_values(address: u32, prefix in 0u8..=32, first: u32, last: u32, lease: i64) {
            let ip = std::net::Ipv4Addr::from_bits;
            let text = RIGHT
                .replace("192.168.77.1/24", &format!("{}/{prefix}", ip(address)))
                .replace("192.168.77.100-192.168.77.149", &format!("{}-{}", ip(first), ip(last)))
                .replace("3600", &lease.to_string());
            let _ = Site::parse("site.toml", &text, &board()).map_err(|report| report.to_string());
        }
    }
}
