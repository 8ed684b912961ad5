//! What a directory is told about sites and subnets, and what it keeps of its own.

use kontor_config::{Board, Site};
use kontor_samba::ldif::entries;
use kontor_samba::{Changes, Sites, changes};

const BASE: &str = "CN=Sites,CN=Configuration,DC=ad,DC=weiss,DC=example";

fn wanted(text: &str) -> Sites {
    let ports: String = (1..=3).map(|n| format!("[[port]]\nname = \"port{n}\"\n")).collect();
    let board =
        Board::parse("board.toml", &format!("schema = 1\nname = \"test\"\n{ports}")).expect("a right board");
    let site = Site::parse("site.toml", text, &board).unwrap_or_else(|report| panic!("{report}"));
    Sites::of(&site, site.samba.as_ref().expect("a [samba] table"))
}

fn headquarters() -> Sites {
    wanted(include_str!("../../../docs/examples/headquarters.toml"))
}

fn told(wanted: &Sites, directory: &str) -> Changes {
    changes(wanted, &entries(&directory.replace("BASE", BASE)))
}

/// As `samba-tool domain provision` leaves it.
const NEW: &str = "dn: CN=DEFAULTIPSITELINK,CN=IP,CN=Inter-Site Transports,BASE\nobjectClass: top\nobjectClass: siteLink\n\
                   siteList: CN=Zentrale,BASE\n\ndn: CN=HQ1,CN=Servers,CN=Zentrale,BASE\nobjectClass: server\n\n\
                   dn: CN=Zentrale,BASE\nobjectClass: site\ncn: Zentrale\n\n";
/// The rest of what the example asks for.
const MADE: &str = "dn: CN=nord,BASE\nobjectClass: site\ncn: nord\n\ndn: CN=L,BASE\nobjectClass: siteLink\n\
                    siteList: CN=Nord,BASE\n\ndn: CN=10.10.0.0/24,CN=Subnets,BASE\nobjectClass: subnet\n\
                    siteObject: CN=Zentrale,BASE\ndescription: From the site file of Kontor\n\n\
                    dn: CN=10.20.0.0/24,CN=Subnets,BASE\nobjectClass: subnet\nsiteObject: CN=Nord,BASE\n\n";

#[test]
fn a_new_domain_gets_everything() {
    let changes = told(&headquarters(), NEW);
    let text = format!("{}# {}\n", changes.ldif, changes.lines.join("\n# "));
    insta::assert_snapshot!(text);
}

#[test]
fn nothing_is_done_twice() {
    assert_eq!(told(&headquarters(), &[NEW, MADE].concat()), Changes::default());
}

#[test]
fn what_nobody_has_asked_for_goes_only_if_it_is_ours() {
    let others = "dn: CN=10.30.0.0/24,CN=Subnets,BASE\nobjectClass: subnet\nsiteObject: CN=Nord,BASE\n\n\
                  dn: CN=East,BASE\nobjectClass: site\ndescription: From the site file of Kontor\n\n\
                  dn: CN=10.40.0.0/24,CN=Subnets,BASE\nobjectClass: subnet\ndescription: Mine\n\n\
                  dn: CN=10.50.0.0/24,CN=Subnets,BASE\nobjectClass: subnet\ndescription: From the site file of Kontor\n\n";
    let changes = told(&headquarters(), &[NEW, MADE, others].concat());
    assert_eq!(changes.ldif, format!("dn: CN=10.50.0.0/24,CN=Subnets,{BASE}\nchangetype: delete\n\n"));
}

#[test]
fn the_site_file_wins() {
    let elsewhere = [NEW, MADE].concat().replace("siteObject: CN=Nord", "siteObject: CN=Zentrale");
    let elsewhere = elsewhere.replace("CN=HQ1,CN=Servers,CN=Zentrale", "CN=HQ1,CN=Servers,CN=Nord");
    insta::assert_snapshot!(told(&headquarters(), &elsewhere).ldif);
}

#[test]
fn a_branch_may_claim_the_line() {
    let text = include_str!("../../../docs/examples/headquarters.toml");
    let claimed = wanted(&text.replace("\"10.20.0.0/24\"", "\"10.20.0.0/24\", \"10.10.0.0/24\""));
    let ldif = told(&claimed, &[NEW, MADE].concat()).ldif;
    let expect = format!(
        "dn: CN=10.10.0.0/24,CN=Subnets,{BASE}\nchangetype: modify\nreplace: siteObject\nsiteObject: CN=Nord,{BASE}\n-\n\n"
    );
    assert_eq!(ldif, expect);
}

/// Samba takes any network that an address is in: there is only one.
#[test]
fn a_network_in_another_is_cut_out_of_it() {
    let text = include_str!("../../../docs/examples/headquarters.toml");
    let line = wanted(&text.replace("\"10.20.0.0/24\"", "\"10.20.0.0/24\", \"10.10.0.2/32\""));
    let ldif = told(&line, NEW).ldif;
    let subnets = ldif.lines().filter_map(|line| line.strip_prefix("dn: CN=")?.split_once(",CN=Subnets"));
    let subnets: Vec<_> = subnets.map(|(network, _)| network).collect();
    let rest = (2..8).rev().map(|bit| format!("10.10.0.{}/{}", 1 << bit, 32 - bit));
    let rest: Vec<String> = rest.chain(["0/31", "3/32"].map(|end| format!("10.10.0.{end}"))).collect();
    let mut expect: Vec<&str> =
        rest.iter().map(String::as_str).chain(["10.10.0.2/32", "10.20.0.0/24"]).collect();
    expect.sort_unstable();
    assert_eq!(subnets, expect);
}
