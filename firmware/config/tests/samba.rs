//! `[samba]`: the examples as they are read, and one wrong file per rule, with its exact report.

use kontor_config::site::{Samba, SambaRole, Share};
use kontor_config::{Board, Site};

fn board() -> Board {
    let ports: String = (1..=3).map(|n| format!("[[port]]\nname = \"port{n}\"\n")).collect();
    Board::parse("board.toml", &format!("schema = 1\nname = \"test\"\n{ports}")).expect("a right board")
}

/// A small right site; every wrong one differs from it in one place.
const RIGHT: &str = r#"schema = 1

[office]
name = "Branch"
host-name = "gate"
domain = "branch.example"

[[network]]
name = "wan"
zone = "external"
ports = ["port1"]
address = "dhcp"

[[network]]
name = "lan"
zone = "internal"
ports = ["port2"]
address = "192.168.77.1/24"

[[dns.host]]
name = "nas"
address = "192.168.77.5"

[samba]
role = "rodc"
realm = "ad.example.internal"
domain = "OFFICE"
servers = ["10.1.0.10", "10.1.0.11"]
site = "North"
rodc-group = "Branch North"
homes = false

[[samba.share]]
name = "common"
comment = "All our files"
read = ["Trainees"]
write = ["Sales", "anna.weiß"]
recycle-bin = true

[[samba.share]]
name = "archive"
read = ["Auditors"]
"#;

fn samba(text: &str) -> Samba {
    let site = Site::parse("site.toml", text, &board()).unwrap_or_else(|report| panic!("{report}"));
    site.samba.expect("a [samba] table")
}

#[track_caller]
fn replaced(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(RIGHT.to_owned(), |text, (old, new)| {
        assert_eq!(text.matches(old).count(), 1, "{old:?} must stand in the right site exactly once");
        text.replace(old, new)
    })
}

/// The right site with the changes, its report kept as a snapshot named after the rule.
#[track_caller]
fn refuse(rule: &str, changes: &[(&str, &str)]) {
    let report = Site::parse("site.toml", &replaced(changes), &board()).expect_err(rule);
    let rule = format!("samba-{rule}");
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "refused", omit_expression => true }, {
        insta::assert_snapshot!(rule, report.to_string());
    });
}

/// The same site as a domain controller of its own.
const DC: [(&str, &str); 3] = [
    ("\"rodc\"", "\"dc\""),
    ("servers = [\"10.1.0.10\", \"10.1.0.11\"]\n", ""),
    ("rodc-group = \"Branch North\"\n", ""),
];

fn as_dc<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    DC.iter().chain(changes).copied().collect()
}

#[test]
fn right_table_is_read() {
    let samba = samba(RIGHT);
    assert_eq!(samba.role, SambaRole::Rodc);
    assert_eq!(samba.realm, "ad.example.internal");
    assert_eq!(samba.domain, "OFFICE");
    assert_eq!(samba.servers, [[10, 1, 0, 10], [10, 1, 0, 11]].map(std::net::Ipv4Addr::from));
    assert_eq!(samba.first_site(), "North");
    assert_eq!(samba.rodc_group.as_deref(), Some("Branch North"));
    let archive = Share {
        name: "archive".into(),
        comment: None,
        read: vec!["Auditors".into()],
        write: vec![],
        recycle_bin: false,
        previous_versions: false,
        audit: false,
        quota: None,
        encrypt: false,
    };
    assert_eq!(samba.shares[1], archive);
    assert_eq!(samba.shares[0].write, ["Sales", "anna.weiß"]);
    assert!(samba.shares[0].recycle_bin && !samba.homes);
}

#[test]
fn a_share_may_have_an_amount_of_space() {
    let quota = |text: &str| {
        samba(&replaced(&[("recycle-bin = true", &format!("quota = \"{text}\""))])).shares[0].quota
    };
    assert_eq!(quota("20 GiB"), Some(20 << 30));
    assert_eq!(quota("16MiB"), Some(16 << 20));
    assert_eq!(quota("1024 TiB"), Some(1 << 50));
}

#[test]
fn a_site_without_the_table_has_no_part_in_a_domain() {
    assert_eq!(Site::default_site(&board()).expect("the default").samba, None);
}

#[test]
fn what_is_left_out_has_a_default() {
    let text = replaced(&[
        ("domain = \"OFFICE\"\n", ""),
        ("site = \"North\"\n", ""),
        ("rodc-group = \"Branch North\"\n", ""),
        ("ad.example.internal", "A-Very-Long-First-Label.Example.Internal"),
    ]);
    let samba = samba(&text);
    assert_eq!(samba.realm, "a-very-long-first-label.example.internal");
    assert_eq!(samba.domain, "A-VERY-LONG-FIR");
    assert_eq!((samba.site.as_deref(), samba.first_site()), (None, "Default-First-Site-Name"));
    assert_eq!(samba.rodc_group.as_deref(), Some("Allowed RODC Password Replication Group"));
}

#[test]
fn a_realm_may_lie_in_the_offices_domain() {
    assert_eq!(samba(&replaced(&[("ad.example.internal", "ad.branch.example")])).domain, "OFFICE");
}

#[test]
fn an_existing_domain_may_be_under_local() {
    assert_eq!(samba(&replaced(&[("ad.example.internal", "firma.local")])).realm, "firma.local");
}

#[test]
fn role_of_a_domain_controller() {
    let samba = samba(&replaced(&as_dc(&[])));
    assert_eq!((samba.role, samba.servers.len(), samba.rodc_group), (SambaRole::Dc, 0, None));
}

/// Branches, before the shares.
const BRANCHES: &str = "homes = false\n\n[[samba.branch]]\nsite = \"East\"\nnetworks = [\"10.2.0.0/16\", \
                        \"10.99.0.2/32\"]\n\n[[samba.branch]]\nsite = \"West\"\nnetworks = [\"10.2.3.0/24\", \
                        \"192.168.77.0/24\"]\n";

#[test]
fn branches_and_their_networks() {
    let samba = samba(&replaced(&as_dc(&[("homes = false\n", BRANCHES)])));
    let sites: Vec<_> = samba.branches.iter().map(|branch| branch.site.as_str()).collect();
    assert_eq!((sites, samba.branches[0].networks.len()), (vec!["East", "West"], 2));
    let refuse_branches = |rule: &str, old: &str, new: &str| {
        assert_eq!(BRANCHES.matches(old).count(), 1, "{old:?}");
        refuse(rule, &as_dc(&[("homes = false\n", &BRANCHES.replace(old, new))]));
    };
    refuse("branch-with-rodc", &[("homes = false\n", BRANCHES)]);
    refuse_branches("branch-is-own-site", "West", "north");
    refuse_branches("branch-twice", "West", "EAST");
    refuse_branches("branch-site-format", "West", "West, far");
    refuse_branches("branch-without-network", "\"10.2.0.0/16\", \"10.99.0.2/32\"", "");
    refuse_branches("branch-network-format", "10.99.0.2/32", "10.99.0.2");
    refuse_branches("branch-network-of-a-host", "10.99.0.2/32", "10.99.0.2/30");
    refuse_branches("branch-network-too-large", "10.99.0.2/32", "0.0.0.0/0");
    refuse_branches("branch-network-twice", "192.168.77.0/24", "10.2.0.0/16");
}

#[test]
fn role_and_its_keys() {
    refuse("role-unknown", &[("\"rodc\"", "\"pdc\"")]);
    refuse("role-missing", &[("role = \"rodc\"\n", "")]);
    refuse("key-unknown", &[("homes = false", "home = false")]);
    refuse("servers-missing", &[("servers = [\"10.1.0.10\", \"10.1.0.11\"]\n", "")]);
    refuse("servers-empty", &[("\"10.1.0.10\", \"10.1.0.11\"", "")]);
    refuse("servers-with-dc", &[DC[0], DC[2]]);
    refuse("rodc-group-with-dc", &[DC[0], DC[1]]);
    refuse("rodc-group-with-member", &[("\"rodc\"", "\"member\"")]);
    refuse("rodc-group-format", &[("\"Branch North\"", "\"Branch, North\"")]);
    refuse("server-format", &[("10.1.0.11", "dc1.example.internal")]);
    refuse("server-is-box", &[("10.1.0.11", "192.168.77.1")]);
    refuse("server-multicast", &[("10.1.0.11", "224.0.0.1")]);
    refuse("server-twice", &[("10.1.0.11", "10.1.0.10")]);
    refuse("quota-format", &[("recycle-bin = true", "quota = \"20 GB\"")]);
    refuse("quota-too-small", &[("recycle-bin = true", "quota = \"15 MiB\"")]);
    refuse("quota-too-large", &[("recycle-bin = true", "quota = \"99999999999999 TiB\"")]);
    refuse("site-format", &[("\"North\"", "\"North/East\"")]);
}

#[test]
fn names_of_domain_and_box() {
    let realm = "ad.example.internal";
    refuse("realm-missing", &[("realm = \"ad.example.internal\"\n", "")]);
    refuse("realm-format", &[(realm, "ad..internal")]);
    refuse("realm-one-label", &[(realm, "office")]);
    refuse("realm-too-long", &[(realm, &["longlabel"; 7].join("."))]);
    refuse("realm-special", &[(realm, "ad.localhost")]);
    refuse("realm-is-office", &[(realm, "Branch.Example")]);
    refuse(
        "realm-above-office",
        &[(realm, "example.internal"), ("branch.example", "branch.example.internal")],
    );
    refuse("realm-local-new", &as_dc(&[(realm, "firma.local")]));
    refuse("realm-is-host", &[(realm, "nas.branch.example")]);
    refuse("domain-too-long", &[("\"OFFICE\"", "\"HEADQUARTERS-ABC\"")]);
    refuse("domain-dot", &[("\"OFFICE\"", "\"OFFICE.AD\"")]);
    refuse("domain-digits", &[("\"OFFICE\"", "\"4711\"")]);
    refuse("domain-is-box", &[("\"OFFICE\"", "\"Gate\"")]);
    refuse("domain-default-is-box", &[("domain = \"OFFICE\"\n", ""), (realm, "gate.internal")]);
    refuse("domain-default-digits", &[("domain = \"OFFICE\"\n", ""), (realm, "4711.internal")]);
    refuse("host-name-too-long", &[("\"gate\"", "\"branch-north-gate\"")]);
    refuse("host-name-digits", &[("\"gate\"", "\"4711\"")]);
}

#[test]
fn shares() {
    refuse("share-name-format", &[("\"common\"", "\"../common\"")]);
    refuse("share-name-dot", &[("\"common\"", "\".snapshots\"")]);
    refuse("share-name-dot-at-end", &[("\"common\"", "\"common.\"")]);
    refuse("share-name-too-long", &[("\"common\"", "\"a-name-of-thirty-three-characters\"")]);
    refuse("share-name-reserved", &[("\"common\"", "\"SysVol\"")]);
    refuse("share-name-twice", &[("\"archive\"", "\"Common\"")]);
    refuse("share-comment-lines", &[("All our files", "All\\nour files")]);
    refuse("share-comment-percent", &[("All our files", "All %U files")]);
    refuse("share-for-nobody", &[("\nread = [\"Auditors\"]", "")]);
    refuse("share-name-of-nobody", &[("\"Auditors\"", "\"\"")]);
    refuse("share-account-quote", &[("\"Auditors\"", "'Audi\"tors'")]);
    refuse("share-account-domain", &[("\"Auditors\"", "'OFFICE\\Auditors'")]);
    refuse("share-account-control", &[("\"Auditors\"", "\"Audi\\ntors\"")]);
    refuse("share-account-percent", &[("\"Auditors\"", "\"%U\"")]);
    refuse("share-account-too-long", &[("\"Auditors\"", &format!("\"{}\"", "a".repeat(65)))]);
    refuse("share-account-twice", &[("\"anna.weiß\"", "\"SALES\"")]);
    refuse("share-account-in-both", &[("\"Trainees\"", "\"Sales\"")]);
    refuse("share-flag-type", &[("recycle-bin = true", "recycle-bin = \"yes\"")]);
}

mod any_input {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Damage anywhere in the table: the rules are reached, not only the parser.
        #[test]
        fn never_panics_on_damage(at in RIGHT.find("[samba]").expect("the table")..RIGHT.len(), cut in 0usize..40, put in "[\\PC\n]{0,20}") {
            let mut bytes = RIGHT.as_bytes().to_vec();
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, put.bytes());
            let _ = Site::parse_bytes("site.toml", &bytes, &board()).map_err(|report| report.to_string());
        }

        /// Whatever is taken for a name of the domain can stand in quotation marks in `smb.conf`.
        #[test]
        fn accounts_need_no_escapes(name in "\\PC{1,12}") {
            let quoted = toml::Value::String(name).to_string();
            let text = RIGHT.replace("\"Auditors\"", &quoted);
            if let Ok(site) = Site::parse("site.toml", &text, &board()) {
                let name = &site.samba.expect("a [samba] table").shares[1].read[0];
                prop_assert!(!name.contains(['"', '\\', '%', '@', ',', '\n', '\r', '\0']), "{name:?}");
            }
        }
    }
}
