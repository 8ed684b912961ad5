//! chrony's configuration as a pure function of the site and of what the external network gave us.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kontor_config::Site;
use kontor_config::site::{Tunnel, Zone};
use kontor_status::{NetStatus, WanLease, WanState};

/// The public pool, for offices whose provider announces no NTP server.
const PUBLIC_POOL: &str = "pool.ntp.org";

/// Where chronyd keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// Run-time directory of `timed`.
    pub(crate) run: PathBuf,
    /// Durable directory of `timed`; nothing while the disk is not there.
    pub(crate) state: Option<PathBuf>,
    /// Where Samba signs answers, while it runs as domain controller.
    pub(crate) signing: PathBuf,
}

/// Renders `chrony.conf`.
///
/// Servers: those of the site file, else those of the WAN lease, else the public pool.
pub(crate) fn render(site: &Site, net: Option<&NetStatus>, places: &Places) -> String {
    let wan = net.and_then(|net| match &net.wan {
        WanState::Up(lease) => Some(lease),
        _ => None,
    });
    let mut text = "# Made by `kontor timed` from the site file; changes here are overwritten.\n".to_owned();
    outside(&mut text, wan);
    sources(&mut text, site, wan);
    clock(&mut text);
    service(&mut text, site);
    signing(&mut text, site, &places.signing);
    files(&mut text, places);
    text
}

/// A new address outside changes the text, and so restarts chronyd: it then asks at once instead of when
/// its back-off (up to an hour for names it could not resolve) ends.
fn outside(text: &mut String, wan: Option<&WanLease>) {
    let state = wan.map_or("down".to_owned(), |lease| format!("{} on {}", lease.address, lease.interface));
    line(text, &format!("# External network: {state}."));
}

fn sources(text: &mut String, site: &Site, wan: Option<&WanLease>) {
    let leased = wan.map(|lease| lease.ntp_servers.as_slice()).unwrap_or_default();
    if !site.time.servers.is_empty() {
        line(text, "\n# From the site file.");
        site.time.servers.iter().for_each(|server| line(text, &format!("server {server} iburst")));
    } else if !leased.is_empty() {
        line(text, "\n# From the WAN lease.");
        leased.iter().for_each(|server| line(text, &format!("server {server} iburst")));
    } else {
        line(text, "\n# Neither the site file nor the WAN lease names a server.");
        line(text, &format!("pool {PUBLIC_POOL} iburst maxsources 4"));
    }
}

fn clock(text: &mut String) {
    line(text, "\n# A box without a clock of its own is years off at boot: step then, later only slew.");
    line(text, "makestep 1 3");
    line(text, "# Hand the time to the hardware clock, where there is one.");
    line(text, "rtcsync");
}

fn service(text: &mut String, site: &Site) {
    line(text, "\n# The office's PCs take their time from here, the outside never.");
    for net in site.networks_in(Zone::Internal).filter_map(|network| network.static_address()) {
        line(text, &format!("allow {}", net.trunc()));
    }
    // What is behind a tunnel is another office.
    for net in site.tunnels.iter().flat_map(Tunnel::networks) {
        line(text, &format!("allow {net}"));
    }
    // Kerberos needs one time in the office more than it needs the right one; but a box that has not
    // heard from any server since boot may believe in 1970 and must not spread that.
    line(text, "# While the line is down the office keeps one time, once it has had the right one.");
    line(text, "local stratum 10 activate 0.5");
}

/// Windows in a domain takes the time from a domain controller alone, and only with its signature.
fn signing(text: &mut String, site: &Site, directory: &Path) {
    if site.samba.as_ref().is_some_and(|samba| samba.role.is_domain_controller()) {
        line(text, "\n# For members of the domain ([MS-SNTP]).");
        line(text, &format!("ntpsigndsocket {}", show(directory)));
    }
}

fn files(text: &mut String, places: &Places) {
    let run = |name: &str| show(&places.run.join(name));
    line(text, "\n# No control over the network; the socket's directory is chronyd's own.");
    line(text, "cmdport 0");
    line(text, &format!("bindcmdaddress {}", run("chronyd/chronyd.sock")));
    line(text, &format!("pidfile {}", run("chronyd.pid")));
    match &places.state {
        Some(state) => line(text, &format!("driftfile {}", show(&state.join("drift")))),
        None => line(text, "# No drift file: the state partition is not there (yet)."),
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use kontor_config::Board;

    use super::*;

    fn site(servers: &str) -> Site {
        let board = "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n";
        let board = Board::parse("board.toml", board).unwrap();
        let text = Site::default_text().replace("servers = []", &format!("servers = {servers}"));
        Site::parse("site.toml", &text, &board).unwrap()
    }

    fn net(ntp_servers: &[&str]) -> NetStatus {
        let lease = WanLease {
            interface: "port1".into(),
            address: "10.0.2.15/24".parse().unwrap(),
            gateway: None,
            dns_servers: Vec::new(),
            ntp_servers: ntp_servers.iter().map(|server| server.parse().unwrap()).collect(),
            lease_time_s: Some(3600),
        };
        NetStatus { wan: WanState::Up(lease), ..NetStatus::default() }
    }

    fn places(state: Option<&str>) -> Places {
        let signing = "/run/kontor/samba/ntp-signd".into();
        Places { run: "/run/kontor/timed".into(), state: state.map(PathBuf::from), signing }
    }

    #[test]
    fn a_domain_controller_signs_for_its_members() {
        let of = |role: &str| {
            let table = format!(
                "[]\n[samba]\nrole = \"{role}\"\nrealm = \"ad.office.internal\"\ndomain = \"OFFICE\"\n"
            );
            let servers = if role == "dc" { "" } else { "servers = [\"10.0.0.1\"]\n" };
            let group = if role == "rodc" { "rodc-group = \"Branch\"\n" } else { "" };
            render(&site(&format!("{table}{servers}{group}")), None, &places(None))
        };
        for role in ["dc", "rodc"] {
            assert!(of(role).contains("\nntpsigndsocket /run/kontor/samba/ntp-signd\n"), "{role}");
        }
        assert!(!of("member").contains("ntpsigndsocket"));
    }

    #[test]
    fn at_boot_without_wan_and_disk() {
        insta::assert_snapshot!(render(&site("[]"), None, &places(None)));
    }

    #[test]
    fn servers_of_the_lease() {
        let net = net(&["10.0.2.2", "10.0.2.3"]);
        insta::assert_snapshot!(render(&site("[]"), Some(&net), &places(Some("/state/timed"))));
    }

    #[test]
    fn servers_of_the_site_file_come_first() {
        let text =
            render(&site("[\"ntp.example.net\", \"192.0.2.1\"]"), Some(&net(&["10.0.2.2"])), &places(None));
        let sources: Vec<_> =
            text.lines().filter(|l| l.starts_with("server") || l.starts_with("pool")).collect();
        assert_eq!(sources, ["server ntp.example.net iburst", "server 192.0.2.1 iburst"]);
    }
}
