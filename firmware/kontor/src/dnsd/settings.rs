//! What the site file and netd say that concerns name service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use kontor_config::site::{Tunnel, Zone};
use kontor_config::{Board, Site};
use kontor_dns::{Name, WireError, ZoneConfig};
use kontor_status::paths::Paths;
use kontor_status::{NetStatus, WanState};

use super::realm::Realm;

/// The site, as dnsd sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Local zones.
    pub(crate) zones: ZoneConfig,
    /// Own addresses in the internal networks and in tunnels, where queries come in.
    pub(crate) listen: Vec<Ipv4Addr>,
    /// Networks whose clients are served: internal ones, and those behind tunnels.
    pub(crate) clients: Vec<Ipv4Net>,
    /// Upstreams named by the operator.
    pub(crate) forwarders: Vec<IpAddr>,
    /// Whether there is a network with a way out.
    pub(crate) has_external: bool,
    /// The Active Directory domain the box is in.
    pub(crate) realm: Option<Realm>,
    /// The office's domain, for resolv.conf.
    pub(crate) domain: String,
}

impl Settings {
    /// Reads board and site file.
    pub(crate) fn read(paths: &Paths) -> anyhow::Result<Self> {
        let board_text = std::fs::read_to_string(&paths.board)?;
        let board = Board::parse(&paths.board.display().to_string(), &board_text)
            .map_err(|report| anyhow::anyhow!("{report}"))?;
        let file = paths.site();
        let bytes = std::fs::read(&file)?;
        let site = Site::parse_bytes(&file.display().to_string(), &bytes, &board)
            .map_err(|report| anyhow::anyhow!("{report}"))?;
        Ok(Self::from_site(&site)?)
    }

    pub(crate) fn from_site(site: &Site) -> Result<Self, WireError> {
        let internal = || site.networks_in(Zone::Internal);
        let networks: Vec<Ipv4Net> = internal().filter_map(|network| network.static_address()).collect();
        let reservations = internal()
            .filter_map(|network| network.dhcp.as_ref())
            .flat_map(|dhcp| &dhcp.reservations)
            .map(|reservation| (reservation.name.clone(), reservation.address));
        let hosts = site.dns.hosts.iter().map(|host| (host.name.clone(), host.address));
        let realm = Realm::of(site)?;
        let zones = ZoneConfig {
            domain: Name::from_text(&site.office.domain)?,
            host: site.office.host_name.clone(),
            points_to: realm.as_ref().and_then(Realm::own_name),
            networks: networks.clone(),
            hosts: hosts.chain(reservations).collect(),
            forward_private: all_private(&site.dns.forwarders),
        };
        // What is behind a tunnel asks as the office does, at the box's address there or at any other.
        let tunnels = || site.tunnels.iter();
        let own = networks.iter().chain(tunnels().map(|tunnel| &tunnel.address));
        Ok(Self {
            zones,
            listen: own.map(Ipv4Net::addr).collect(),
            clients: networks.iter().copied().chain(tunnels().flat_map(Tunnel::networks)).collect(),
            forwarders: site.dns.forwarders.clone(),
            has_external: site.networks_in(Zone::External).next().is_some(),
            realm,
            domain: site.office.domain.clone(),
        })
    }

    /// Whether a client at `address` is served.
    pub(crate) fn serves(&self, address: Ipv4Addr) -> bool {
        address.is_loopback() || self.clients.iter().any(|network| network.contains(&address))
    }

    /// Upstreams: the operator's, else those of the WAN; never ourselves.
    pub(crate) fn upstreams(&self, net: &NetStatus, port: u16) -> Vec<SocketAddr> {
        let from_wan = match &net.wan {
            WanState::Up(lease) => lease.dns_servers.as_slice(),
            _ => &[],
        };
        let chosen = if self.forwarders.is_empty() { from_wan } else { &self.forwarders };
        let other = |address: &&IpAddr| !self.is_ourselves(**address, port);
        chosen.iter().filter(other).map(|&address| SocketAddr::new(address, port)).collect()
    }

    /// Whether the line may be coming up: netd has not said anything yet, or is at its cards, its firewall, its lease.
    pub(crate) fn expects_upstreams(&self, wan: &WanState) -> bool {
        self.has_external && matches!(wan, WanState::Down | WanState::Acquiring { .. })
    }

    /// Asking ourselves would go round until the deadline.
    fn is_ourselves(&self, address: IpAddr, port: u16) -> bool {
        match address {
            IpAddr::V4(address) => {
                self.listen.contains(&address)
                    || address.is_unspecified()
                    || (address.is_loopback() && port == 53)
            }
            IpAddr::V6(address) => address.is_unspecified() || (address.is_loopback() && port == 53),
        }
    }
}

/// Whether the operator named forwarders and all are on private networks: then they may know private names.
fn all_private(forwarders: &[IpAddr]) -> bool {
    let private = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_private() || address.is_loopback(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_loopback(),
    };
    !forwarders.is_empty() && forwarders.iter().all(private)
}

/// What netd knows; nothing while its file is absent or unreadable.
pub(crate) fn read_net_status(paths: &Paths) -> NetStatus {
    let text = std::fs::read(paths.net_status()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}
