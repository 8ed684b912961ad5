//! From the site in force to what the server serves.

use std::net::Ipv4Addr;

use anyhow::Context;
use ipnet::Ipv4Net;
use kontor_config::site::{Dhcp, Network, Zone};
use kontor_config::{Board, Site};
use kontor_dhcp4::server::{NetworkConfig, Reservation, ServerConfig, Surroundings};
use kontor_status::NetStatus;
use kontor_status::paths::Paths;

/// What dhcpd does: the machine's configuration and the interface of each of its networks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) server: ServerConfig,
    /// Interface names, by index of the network in `server`.
    pub(super) interfaces: Vec<String>,
}

impl Settings {
    /// Reads board and site.
    ///
    /// # Errors
    /// What cannot be read or does not validate.
    pub(super) fn load(paths: &Paths) -> anyhow::Result<Self> {
        let board_text =
            std::fs::read_to_string(&paths.board).with_context(|| paths.board.display().to_string())?;
        let board = Board::parse(&paths.board.display().to_string(), &board_text)?;
        let path = paths.site();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self::of(&Site::parse(&path.display().to_string(), &text, &board)?))
    }

    /// Only internal networks with a static address of the box and a `[network.dhcp]` table are served.
    pub(super) fn of(site: &Site) -> Self {
        let mut settings = Self::default();
        for network in site.networks_in(Zone::Internal) {
            if let (Some(address), Some(dhcp)) = (network.static_address(), &network.dhcp) {
                settings.server.networks.push(network_config(network, address, dhcp));
                settings.interfaces.push(network.interface());
            }
        }
        settings.server.domain.clone_from(&site.office.domain);
        let hosts = site.dns.hosts.iter().map(|host| host.name.clone());
        settings.server.fixed_names = std::iter::once(site.office.host_name.clone()).chain(hosts).collect();
        settings
    }
}

/// What netd says of the cables; nothing while its file is absent or unreadable.
pub(super) fn surroundings(paths: &Paths) -> Surroundings {
    let text = std::fs::read(paths.net_status()).unwrap_or_default();
    let net: NetStatus = serde_json::from_slice(&text).unwrap_or_default();
    let own_macs = net.links.iter().filter_map(|link| parse_mac(link.mac.as_deref()?)).collect();
    Surroundings { own_macs, exposed: net.exposed }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let octets: Option<Vec<u8>> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    octets?.try_into().ok()
}

fn network_config(network: &Network, address: Ipv4Net, dhcp: &Dhcp) -> NetworkConfig {
    let own: Vec<Ipv4Addr> = vec![address.addr()];
    let reservations = dhcp.reservations.iter();
    NetworkConfig {
        name: network.name.clone(),
        address,
        pools: dhcp.pools.clone(),
        lease_time_s: dhcp.lease_time_s,
        dns_servers: own.clone(),
        ntp_servers: if dhcp.ntp_servers.is_empty() { own } else { dhcp.ntp_servers.clone() },
        reservations: reservations
            .map(|r| Reservation { name: r.name.clone(), mac: r.mac, address: r.address })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_as_netd_writes_them() {
        assert_eq!(parse_mac("52:54:00:4b:01:ff"), Some([0x52, 0x54, 0, 0x4b, 1, 0xff]));
        for wrong in ["", "52:54:00:4b:01", "52:54:00:4b:01:ff:00", "zz:54:00:4b:01:ff", "152:54:00:4b:01:ff"]
        {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }
}
