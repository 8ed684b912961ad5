//! What whole sites become: files and commands, as snapshots.

use kontor_config::site::Samba;
use kontor_config::{Board, Site};

fn parsed(text: &str) -> (Site, Samba) {
    let ports: String = (1..=3).map(|n| format!("[[port]]\nname = \"port{n}\"\n")).collect();
    let board =
        Board::parse("board.toml", &format!("schema = 1\nname = \"test\"\n{ports}")).expect("a right board");
    let site = Site::parse("site.toml", text, &board).unwrap_or_else(|report| panic!("{report}"));
    let samba = site.samba.clone().expect("a [samba] table");
    (site, samba)
}

const HEADQUARTERS: &str = include_str!("../../../docs/examples/headquarters.toml");
const BRANCH: &str = include_str!("../../../docs/examples/branch-rodc.toml");

/// The branch as a member of the domain, with a second internal network.
fn member(shares: bool) -> String {
    let text = BRANCH.replace("\"rodc\"", "\"member\"").replace("rodc-group = \"Branch North\"\n", "");
    let text = text.replace("ports = [\"port2\", \"port3\"]", "ports = [\"port2\"]");
    let (before, share) = text.split_once("[[samba.share]]").expect("a share");
    let second =
        "[[network]]\nname = \"lab\"\nzone = \"internal\"\nports = [\"port3\"]\naddress = \"10.21.0.1/24\"\n";
    let (head, samba) = before.split_once("[samba]").expect("a table");
    let share = if shares { format!("[[samba.share]]{share}audit = true\n") } else { String::new() };
    format!("{head}{second}\n[samba]{samba}{share}")
}

fn without_shares(text: &str) -> String {
    text.split("[[samba.share]]").next().expect("the head").replace("homes = true", "homes = false")
}

fn smb_conf(text: &str) -> String {
    let (site, samba) = parsed(text);
    kontor_samba::smb_conf(&site, &samba)
}

#[test]
fn domain_controller_with_shares_and_homes() {
    insta::assert_snapshot!(smb_conf(HEADQUARTERS));
}

#[test]
fn domain_controller_alone() {
    insta::assert_snapshot!(smb_conf(&without_shares(HEADQUARTERS)));
}

#[test]
fn read_only_domain_controller_with_shares() {
    insta::assert_snapshot!(smb_conf(BRANCH));
}

#[test]
fn read_only_domain_controller_alone() {
    insta::assert_snapshot!(smb_conf(&without_shares(BRANCH)));
}

#[test]
fn member_with_shares() {
    insta::assert_snapshot!(smb_conf(&member(true)));
}

#[test]
fn member_alone() {
    insta::assert_snapshot!(smb_conf(&member(false)));
}

/// The files beside `smb.conf`, and the commands of the first start.
fn surroundings(text: &str) -> String {
    let (site, samba) = parsed(text);
    let near = samba.site.as_deref().map(|site| ("hq1.ad.weiss.example", site));
    let commands = [
        kontor_samba::provision_arguments(&site, &samba),
        kontor_samba::join_arguments(&samba, "/run/kontor/smb.conf", near),
    ];
    let commands: Vec<_> = commands.into_iter().flatten().map(|words| words.join("\n")).collect();
    let directories = kontor_samba::directories(&samba);
    let directories: Vec<_> = directories.iter().map(|d| format!("{:o} {}", d.mode, d.path)).collect();
    format!(
        "# krb5.conf\n{}\n# hosts\n{}\n# resolv.conf\n{}\n# nsswitch.conf\n{}\n# command\n{}\n\n# directories\n{}\n",
        kontor_samba::krb5_conf(&samba),
        kontor_samba::hosts(&site, &samba),
        kontor_samba::resolv_conf(&samba),
        kontor_samba::nsswitch_conf(samba.role),
        commands.join("\n\n"),
        directories.join("\n"),
    )
}

#[test]
fn surroundings_of_a_domain_controller() {
    insta::assert_snapshot!(surroundings(HEADQUARTERS));
}

#[test]
fn surroundings_of_a_read_only_domain_controller() {
    insta::assert_snapshot!(surroundings(BRANCH));
}

#[test]
fn surroundings_of_a_member() {
    insta::assert_snapshot!(surroundings(&member(true)));
}
