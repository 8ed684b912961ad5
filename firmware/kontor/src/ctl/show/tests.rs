//! What people see, word for word.

use kontor_status::{DhcpStatus, DnsStatus, LeaseStatus, LinkStatus, ServiceStatus, SiteStatus, WanLease};

use super::*;

fn link(name: &str, network: &str, address: &str) -> LinkStatus {
    LinkStatus {
        name: name.into(),
        network: Some(network.into()),
        present: true,
        carrier: true,
        mac: Some("52:54:00:00:00:01".into()),
        pci: Some("0000:00:02.0".into()),
        addresses: vec![address.parse().unwrap()],
    }
}

fn service(name: &str, state: ServiceState, detail: &str) -> ServiceStatus {
    ServiceStatus { name: name.into(), state, pid: Some(7), restarts: 0, detail: detail.into() }
}

/// A box that is well.
pub(crate) fn well() -> Snapshot {
    let lease = WanLease {
        interface: "port1".into(),
        address: "10.0.2.15/24".parse().unwrap(),
        gateway: Some("10.0.2.2".parse().unwrap()),
        dns_servers: vec![],
        ntp_servers: vec![],
        lease_time_s: Some(86_400),
    };
    let pc = LeaseStatus {
        address: "192.168.77.100".parse().unwrap(),
        mac: "52:54:00:aa:bb:cc".into(),
        name: Some("pc1".into()),
        network: "lan".into(),
        state: LeaseState::Dynamic,
        remaining_s: 43_000,
    };
    Snapshot {
        update: None,
        init: Some(InitStatus {
            version: "0.1.0".into(),
            board: "qemu".into(),
            uptime_s: 200,
            services: ["netd", "dhcpd", "dnsd"].map(|name| service(name, ServiceState::Running, "")).into(),
            errors: vec![],
        }),
        site: Some(SiteStatus { origin: SiteOrigin::File, office: "Nord".into(), revision: 3, error: None }),
        net: Some(NetStatus {
            links: vec![link("port1", "wan", "10.0.2.15/24"), link("port2", "lan", "192.168.77.1/24")],
            wan: WanState::Up(lease),
            ..NetStatus::default()
        }),
        dhcp: Some(DhcpStatus { leases: vec![pc], durable: true, problems: vec![] }),
        dns: Some(DnsStatus { queries: 200, cache_hits: 50, ..DnsStatus::default() }),
        storage: Some(StorageStatus {
            slot: SlotStatus { booted: Some("a".into()), good: true, ..SlotStatus::default() },
            ..StorageStatus::default()
        }),
        slot: Some("a".into()),
        install: None,
    }
}

#[test]
fn a_box_that_is_well() {
    let expect = "\
Kontor 0.1.0 on qemu, slot a (good), up 3 min
  Office    Nord (operator's site file, revision 3)
  port1     wan     connected   10.0.2.15/24
  port2     lan     connected   192.168.77.1/24
  Internet  up, 10.0.2.15/24 on port1 through 10.0.2.2, by DHCP
  Leases    1
  Names     200 queries, 25 % from the cache
  Services  all 3 well
";
    assert_eq!(overview(&well(), true), expect);
}

#[test]
fn a_box_in_trouble() {
    let mut snapshot = well();
    if let Some(init) = &mut snapshot.init {
        init.services[2] = service("dnsd", ServiceState::Backoff, "exit status 1");
        init.errors = vec!["dnsd ended: \x1b[31mboom".into()];
    }
    if let Some(net) = &mut snapshot.net {
        net.wan = WanState::Acquiring { client: "SELECTING".into() };
        net.links[0].carrier = false;
        net.links[0].addresses.clear();
    }
    if let Some(site) = &mut snapshot.site {
        site.error = Some("error: pool outside its network\n --> site.toml:3:1".into());
    }
    snapshot.dhcp = Some(DhcpStatus::default());
    let expect = "\
Kontor 0.1.0 on qemu, slot a (good)
  Office    Nord (operator's site file, revision 3)
  port1     wan     no cable
  port2     lan     connected   192.168.77.1/24
  Internet  asking for an address (SELECTING)
  Leases    0 (in RAM only: no data disk)
  Services  dnsd backoff (exit status 1), 2 others well
  Problem   dnsd ended:  [31mboom
Site file refused, the one before stays in force:
error: pool outside its network
 --> site.toml:3:1
";
    assert_eq!(overview(&snapshot, false), expect);
}

#[test]
fn a_factory_reset_is_told_of_when_asked_only() {
    let mut snapshot = well();
    let storage = snapshot.storage.as_mut().unwrap();
    storage.reset = Some(ResetStatus { at: 1_795_284_245, data_kept: true });
    let expect = "\n  Reset     to how the box was flashed, at 2026-11-21T18:04:05Z, data kept\n";
    assert!(overview(&snapshot, true).contains(expect) && !overview(&snapshot, false).contains("Reset"));
}

#[test]
fn nothing_known_yet() {
    let expect = "Kontor (version unknown) on unknown board, slot ?\n  Office    waiting for the site file\n  Internet  down\n  \
                  Services  unknown: PID 1 does not answer\n";
    assert_eq!(overview(&Snapshot::default(), true), expect);
    assert_eq!(leases(&Snapshot::default()), "dhcpd has not reported yet\n");
}

#[test]
fn tables() {
    let expect = "\
ADDRESS         NAME  MAC                NETWORK  KIND     LEFT
192.168.77.100  pc1   52:54:00:aa:bb:cc  lan      dynamic  11 h 56 min
";
    assert_eq!(leases(&well()), expect);
    assert!(
        links(&well())
            .contains("port2  lan      connected  52:54:00:00:00:01  0000:00:02.0  192.168.77.1/24\n")
    );
    assert!(status(&well()).contains("\nnetd     running  7    0\n"));
}

#[test]
fn nothing_in_a_status_file_steers_the_terminal() {
    let json = serde_json::to_string(&well()).unwrap();
    for text in ["0.1.0", "qemu", "netd", "Nord", "lan", "port1", "pc1", "52:54:00:aa:bb:cc"] {
        let steering = json.replace(&format!("\"{text}\""), "\"\\u001b[2J\u{7f}\"");
        let snapshot = serde_json::from_str(&steering).unwrap();
        for shown in [overview(&snapshot, true), status(&snapshot), leases(&snapshot), links(&snapshot)] {
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{text}: {shown:?}");
        }
    }
}
