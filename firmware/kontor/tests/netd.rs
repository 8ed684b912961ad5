//! netd against a real kernel: a network namespace of its own, with veth pairs as cards.
//!
//! Needs `unshare` with user namespaces and `ip`; where they are missing the tests say so and check nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as loudly as the tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kontor_status::{NetStatus, WanState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A step of netd takes milliseconds; this is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const BOARD: &str = "schema = 1
name = \"test\"
[[port]]
name = \"port1\"
[[port]]
name = \"port2\"
[[port]]
name = \"port3\"
";

const SITE: &str = "schema = 1
[office]
name = \"T\"
host-name = \"t\"
domain = \"office.internal\"
[[network]]
name = \"wan\"
zone = \"external\"
ports = [\"port1\"]
address = \"203.0.113.2/29\"
gateway = \"203.0.113.1\"
[[network]]
name = \"lan\"
zone = \"internal\"
ports = [\"port2\"]
address = \"192.168.77.1/24\"
";

const GUESTS: &str = "[[network]]
name = \"guests\"
zone = \"internal\"
ports = [\"port3\"]
address = \"10.9.0.1/24\"
";

/// Ports in PCI-less order by MAC, each with a peer that is up, so that there is a carrier.
const LINKS: &str = "for i in 1 2 3; do
ip link add port$i address 02:00:00:00:00:0$i type veth peer name peer$i && ip link set peer$i up || exit 77
done
";

/// The third card refuses the MTU that netd wants, for ever.
const BROKEN_CARD: &str = "for i in 1 2; do
ip link add port$i address 02:00:00:00:00:0$i type veth peer name peer$i && ip link set peer$i up || exit 77
done
ip link add lower mtu 1400 type veth peer name other mtu 1400 && ip link add port3 link lower type macvlan || exit 77
";

const NETD: &str = "exec \"$0\" netd --run \"$1/run\" --state \"$1/state\" --board \"$1/board.toml\" --site \"$1/site.toml\" \
--sys \"$1/sys\" --proc-sys \"$1/proc\" --nft \"$1/nft\" --components \"$1/components\"";

const DOMAIN: &str = "[samba]
role = \"dc\"
realm = \"ad.office.internal\"
";

/// A component of the release, up to its seal.
const COMPONENT: &str = "schema = 1
name = \"samba\"
memory-mib = 1
processes = 1
service = [{ name = \"smbd\", command = [\"/usr/sbin/smbd\"] }]
port = [{ protocol = \"tcp\", number = [445, 88] }]
";

struct Netd {
    child: Child,
    lines: Receiver<String>,
    dir: tempfile::TempDir,
}

impl Netd {
    /// `nft` is the body of a shell script that stands for the real one.
    fn start(nft: &str) -> Option<Self> {
        Self::start_with(LINKS, nft)
    }

    fn start_with(links: &str, nft: &str) -> Option<Self> {
        let usable = Command::new("unshare").args(["-Urn", "ip", "link"]).output();
        if !usable.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: no user namespaces or no ip(8) here; netd was not tried against a kernel");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["run/netd", "state/netd", "sys", "proc", "components"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let digits = "0".repeat(64);
        let seal = format!("[seal]\nbytes = 1\nsha256 = \"{digits}\"\nverity = \"{digits}\"\n");
        fs::write(dir.path().join("components/samba.toml"), format!("{COMPONENT}{seal}")).unwrap();
        fs::write(dir.path().join("board.toml"), BOARD).unwrap();
        fs::write(dir.path().join("site.toml"), SITE).unwrap();
        fs::write(dir.path().join("nft"), format!("#!/bin/sh\n{nft}\n")).unwrap();
        fs::set_permissions(dir.path().join("nft"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new("unshare")
            .args(["-Urn", "sh", "-c", &format!("{links}{NETD}"), env!("CARGO_BIN_EXE_kontor")])
            .arg(dir.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Some(Self { child, lines, dir })
    }

    /// Everything netd says up to and with a line that contains `part`.
    #[track_caller]
    fn until(&self, part: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => seen.push(line),
                Err(_) => panic!("no line with `{part}` in {seen:#?}"),
            }
            if seen.last().is_some_and(|line| line.contains(part)) {
                return seen;
            }
        }
    }

    fn status(&self) -> NetStatus {
        serde_json::from_slice(&fs::read(self.dir.path().join("run/netd/status.json")).unwrap()).unwrap()
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Netd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn position(lines: &[String], part: &str) -> usize {
    lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("no `{part}` in {lines:#?}"))
}

#[test]
fn lan_first_then_firewall_then_wan_and_a_reload_touches_only_what_changed() {
    let Some(netd) = Netd::start("cat > \"$(dirname \"$0\")/rules\"") else { return };
    let lines = netd.until("setting the route to 0.0.0.0/0");
    let lan = position(&lines, "adding 192.168.77.1/24 to port2");
    let firewall = position(&lines, "firewall loaded");
    let wan = position(&lines, "setting port1 up");
    assert!(lan < firewall && firewall < wan, "{lines:#?}");
    let rules = || fs::read_to_string(netd.path().join("rules")).unwrap();
    assert!(rules().contains("port1") && !rules().contains("component"), "nobody asked for the component");

    fs::write(netd.path().join("site.toml"), format!("{SITE}{GUESTS}{DOMAIN}")).unwrap();
    kill(Pid::from_raw(netd.child.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
    let lines = netd.until("adding 10.9.0.1/24 to port3");
    let steps: Vec<&String> = lines.iter().filter(|line| line.contains("port")).collect();
    assert_eq!(steps, ["setting port3 up", "adding 10.9.0.1/24 to port3"], "{lines:#?}");
    assert!(rules().contains("elements = { 88, 445 }") && !rules().contains("component_udp"), "{}", rules());

    let status = netd.status();
    let port2 = status.links.iter().find(|link| link.name == "port2").unwrap();
    assert_eq!(port2.addresses, ["192.168.77.1/24".parse().unwrap()]);
    assert!(matches!(status.wan, WanState::Up(_)), "{status:?}");
    assert!(netd.path().join("state/netd/ports.json").exists());
}

#[test]
fn without_a_firewall_the_lan_is_served_and_the_outside_stays_closed() {
    let Some(netd) = Netd::start("echo 'table full' >&2; exit 1") else { return };
    let lines = netd.until("problem: the firewall did not load, so the way out stays closed");
    position(&lines, "LAN is configured");
    assert!(!lines.iter().any(|line| line.contains("port1 up")), "{lines:#?}");
    // It keeps trying.
    fs::write(netd.path().join("nft"), "#!/bin/sh\nexec cat > /dev/null\n").unwrap();
    netd.until("setting port1 up");
}

#[test]
fn one_broken_card_does_not_keep_the_office_offline() {
    let Some(netd) = Netd::start_with(BROKEN_CARD, "exec cat > /dev/null") else { return };
    let lines = netd.until("setting the route to 0.0.0.0/0");
    let refused = position(&lines, "setting the MTU of port3 to 1500 was refused");
    let firewall = position(&lines, "firewall loaded");
    assert!(refused < firewall, "{lines:#?}");
}
