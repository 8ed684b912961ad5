//! What works on this box now, by what its daemons publish and by asking the name service.

use std::collections::BTreeSet;
use std::time::Duration;

use kontor_status::{InitStatus, ServiceState, WanState, paths};
use kontor_update::Health;
use kontor_update::health::{COMPONENT, TUNNEL, Trial};

use crate::ctl::snapshot::Snapshot;
use crate::resolver;
use crate::storage::Room;

/// A service that has been started this often and is down again has given up, as far as a release on trial is concerned.
const GIVEN_UP_RESTARTS: u32 = 4;
/// Daemons of the gateway; consoles and one-shots are no reason to go back to an older release.
const DAEMONS: [&str; 4] = ["netd", "dhcpd", "dnsd", "timed"];
/// A release that leaves less room on `state` has filled it; what is on `data` is people's, who may fill it whenever they like.
const ROOM_BYTES: u64 = 2 << 20;
/// One that had hardly more before is not held against the release.
pub(super) const ROOM_BYTES_BEFORE: u64 = 8 << 20;
/// The box's own name is answered from memory.
const NAME_PATIENCE: Duration = Duration::from_secs(2);

/// What works with a release on trial.
pub(super) fn look(snapshot: &Snapshot, components: &[String], own_name: Option<&str>) -> Trial {
    look_with(snapshot, components, own_name, ROOM_BYTES)
}

/// Looks at everything; of `state` so many bytes have to be free.
pub(super) fn look_with(
    snapshot: &Snapshot,
    components: &[String],
    own_name: Option<&str>,
    room_bytes: u64,
) -> Trial {
    let mut trial = by_status(snapshot, components);
    if own_name.is_some_and(|name| resolver::answers(name, NAME_PATIENCE)) {
        trial.now.add("names");
    }
    if Room::on(paths::STATE.as_ref()).is_some_and(|room| room.free >= room_bytes) {
        trial.now.add("room on state");
    }
    trial
}

/// What status files say, as a pure function.
fn by_status(snapshot: &Snapshot, components: &[String]) -> Trial {
    let mut trial = Trial::default();
    if let Some(init) = &snapshot.init {
        trial.uptime_s = init.uptime_s;
        services(init, components, &mut trial.now, &mut trial.given_up);
    }
    if let Some(storage) = &snapshot.storage {
        let mounted = [
            ("state", storage.state_mounted),
            ("data", storage.data_mounted),
            ("system", storage.system_mounted),
        ];
        mounted.into_iter().filter(|(_, is)| *is).for_each(|(name, _)| trial.now.add(format!("disk {name}")));
    }
    if snapshot.dhcp.as_ref().is_some_and(|dhcp| dhcp.durable) {
        trial.now.add("leases kept");
    }
    if let Some(net) = &snapshot.net {
        for link in &net.links {
            if let (Some(network), true, false) = (&link.network, link.carrier, link.addresses.is_empty()) {
                trial.now.add(format!("network {network}"));
            }
        }
        if matches!(net.wan, WanState::Up(_)) {
            trial.now.add("uplink");
        }
        for tunnel in &net.tunnels {
            // One that is up because somebody happened to use it need not be after a restart.
            for peer in tunnel.peers.iter().filter(|peer| peer.up && peer.kept) {
                trial.now.add(format!("{TUNNEL}{}/{}", tunnel.name, peer.name));
            }
        }
    }
    trial
}

fn services(init: &InitStatus, components: &[String], now: &mut Health, given_up: &mut BTreeSet<String>) {
    for service in &init.services {
        let name = match () {
            () if DAEMONS.contains(&service.name.as_str()) => format!("service {}", service.name),
            () if components.contains(&service.name) => format!("{COMPONENT}{}", service.name),
            () => continue,
        };
        match service.state {
            ServiceState::Running => now.add(name),
            ServiceState::Failed => drop(given_up.insert(name)),
            ServiceState::Backoff | ServiceState::Starting if service.restarts >= GIVEN_UP_RESTARTS => {
                given_up.insert(name);
            }
            // One that is done has no table in the site file.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use kontor_status::{
        LinkStatus, NetStatus, ServiceStatus, StorageStatus, TunnelPeerStatus, TunnelStatus, WanLease,
    };

    use super::*;

    fn service(name: &str, state: ServiceState, restarts: u32) -> ServiceStatus {
        ServiceStatus { name: name.into(), state, pid: None, restarts, detail: String::new() }
    }

    fn link(network: Option<&str>, carrier: bool) -> LinkStatus {
        LinkStatus {
            name: "port1".into(),
            network: network.map(str::to_owned),
            present: true,
            carrier,
            mac: None,
            pci: None,
            addresses: vec!["192.168.77.1/24".parse().unwrap()],
        }
    }

    fn peer(name: &str, up: bool, kept: bool) -> TunnelPeerStatus {
        TunnelPeerStatus { name: name.into(), up, kept, ..TunnelPeerStatus::default() }
    }

    #[test]
    fn what_daemons_publish_becomes_names() {
        let services = vec![
            service("netd", ServiceState::Running, 0),
            service("dnsd", ServiceState::Backoff, GIVEN_UP_RESTARTS),
            service("dhcpd", ServiceState::Backoff, GIVEN_UP_RESTARTS - 1),
            service("samba", ServiceState::Running, 1),
            service("mail", ServiceState::Done, 0),
            service("console-ttyS0", ServiceState::Running, 0),
        ];
        let lease = WanLease {
            interface: "port1".into(),
            address: "10.0.0.2/24".parse().unwrap(),
            gateway: None,
            dns_servers: Vec::new(),
            ntp_servers: Vec::new(),
            lease_time_s: None,
        };
        let net = NetStatus {
            links: vec![link(Some("lan"), true), link(Some("off"), false), link(None, true)],
            wan: WanState::Up(lease),
            tunnels: vec![TunnelStatus {
                name: "hq".into(),
                peers: vec![
                    peer("headquarters", true, true),
                    peer("depot", false, true),
                    peer("home", true, false),
                ],
                ..TunnelStatus::default()
            }],
            ..NetStatus::default()
        };
        let snapshot = Snapshot {
            init: Some(InitStatus { uptime_s: 42, services, ..InitStatus::default() }),
            net: Some(net),
            storage: Some(StorageStatus { state_mounted: true, ..StorageStatus::default() }),
            ..Snapshot::default()
        };
        let trial = by_status(&snapshot, &["samba".into(), "mail".into()]);
        let names: Vec<&str> = trial.now.names().collect();
        assert_eq!(
            names,
            [
                "component samba",
                "disk state",
                "network lan",
                "service netd",
                "tunnel hq/headquarters",
                "uplink"
            ]
        );
        assert_eq!(trial.given_up.into_iter().collect::<Vec<_>>(), ["service dnsd"]);
        assert_eq!(trial.uptime_s, 42);
    }

    #[test]
    fn while_nobody_has_spoken_nothing_works() {
        assert_eq!(by_status(&Snapshot::default(), &[]), Trial::default());
    }
}
