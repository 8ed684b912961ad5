//! Keys, types and formats of the site file, schema 1.
//!
//! Owns the list of keys and turns strings into addresses, networks and names; each value keeps its place
//! in the file. Says nothing about how values fit together: that is `check`. `[samba]`, `[[tunnel]]` and `[update]` have files of their own.

mod samba;
mod tunnel;
mod update;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use toml::de::DeTable;

use crate::document::{At, Shape, Table, Wrong};
use crate::name;
use crate::report::Findings;
use crate::site::{Address, Console, Dhcp, Dns, Host, Network, Office, Reservation, Site, Time, Zone};

pub(crate) use samba::{RawBranch, RawSamba, RawShare};
pub(crate) use tunnel::{RawPeer, RawTunnel};
pub(crate) use update::RawUpdate;

/// Half a day: a laptop keeps its address over a working day, and a wrong option is gone the next.
const DEFAULT_LEASE_TIME_S: i64 = 43_200;

const SITE: Shape = Shape {
    title: "the site file",
    required: &["schema", "office", "network"],
    optional: &["dns", "time", "console", "samba", "tunnel", "update"],
};
const OFFICE: Shape = Shape { title: "[office]", required: &["name", "host-name", "domain"], optional: &[] };
const NETWORK: Shape = Shape {
    title: "[[network]]",
    required: &["name", "zone", "ports", "address"],
    optional: &["gateway", "dhcp"],
};
const DHCP: Shape = Shape {
    title: "[network.dhcp]",
    required: &["pools"],
    optional: &["lease-time-s", "ntp-servers", "reservation"],
};
const RESERVATION: Shape =
    Shape { title: "[[network.dhcp.reservation]]", required: &["name", "mac", "address"], optional: &[] };
const DNS: Shape = Shape { title: "[dns]", required: &[], optional: &["forwarders", "host"] };
const HOST: Shape = Shape { title: "[[dns.host]]", required: &["name", "address"], optional: &[] };
const TIME: Shape = Shape { title: "[time]", required: &[], optional: &["servers"] };
const CONSOLE: Shape =
    Shape { title: "[console]", required: &[], optional: &["operator-password-hash", "root-shell"] };

#[derive(Debug)]
pub(crate) struct RawSite {
    pub(crate) office: RawOffice,
    pub(crate) networks: Vec<RawNetwork>,
    pub(crate) forwarders: Vec<At<IpAddr>>,
    pub(crate) hosts: Vec<RawHost>,
    pub(crate) time_servers: Vec<At<String>>,
    pub(crate) operator_password_hash: Option<At<String>>,
    pub(crate) root_shell: bool,
    pub(crate) samba: Option<RawSamba>,
    pub(crate) tunnels: Vec<RawTunnel>,
    pub(crate) update: Option<RawUpdate>,
}

#[derive(Debug)]
pub(crate) struct RawOffice {
    pub(crate) name: At<String>,
    pub(crate) host_name: At<String>,
    pub(crate) domain: At<String>,
}

#[derive(Debug)]
pub(crate) struct RawNetwork {
    pub(crate) name: At<String>,
    pub(crate) zone: At<Zone>,
    pub(crate) ports: At<Vec<At<String>>>,
    /// `None` is `"dhcp"`.
    pub(crate) address: At<Option<Ipv4Net>>,
    pub(crate) gateway: Option<At<Ipv4Addr>>,
    pub(crate) dhcp: Option<RawDhcp>,
}

#[derive(Debug)]
pub(crate) struct RawDhcp {
    pub(crate) span: std::ops::Range<usize>,
    pub(crate) pools: At<Vec<At<(Ipv4Addr, Ipv4Addr)>>>,
    pub(crate) lease_time_s: At<i64>,
    pub(crate) ntp_servers: Vec<At<Ipv4Addr>>,
    pub(crate) reservations: Vec<RawReservation>,
}

#[derive(Debug)]
pub(crate) struct RawReservation {
    pub(crate) name: At<String>,
    pub(crate) mac: At<[u8; 6]>,
    pub(crate) address: At<Ipv4Addr>,
}

#[derive(Debug)]
pub(crate) struct RawHost {
    pub(crate) name: At<String>,
    pub(crate) address: At<Ipv4Addr>,
}

/// Reads the whole document; nothing (and findings) when something required is missing.
pub(crate) fn read(document: &DeTable<'_>, findings: &mut Findings) -> Option<RawSite> {
    let top = Table::open(document, 0..0, &SITE, findings);
    let office = top.table("office", &OFFICE, findings);
    let office = office.and_then(|table| read_office(&table, findings));
    let tables = top.tables("network", &NETWORK, findings);
    let networks = tables.iter().filter_map(|table| read_network(table, findings)).collect();
    let dns = top.table("dns", &DNS, findings);
    let time = top.table("time", &TIME, findings);
    let console = top.table("console", &CONSOLE, findings);
    let samba = top.table("samba", &samba::SAMBA, findings);
    let samba = samba.and_then(|table| samba::read(&table, findings));
    let tables = top.tables("tunnel", &tunnel::TUNNEL, findings);
    let tunnels = tables.iter().filter_map(|table| tunnel::read(table, findings)).collect();
    let update = top.table("update", &update::UPDATE, findings);
    let update = update.and_then(|table| update::read(&table, findings));
    let (forwarders, hosts) = dns.map(|table| read_dns(&table, findings)).unwrap_or_default();
    let time_servers = time.and_then(|table| table.parsed_list("servers", findings, name::server));
    let (operator_password_hash, root_shell) =
        console.map(|table| read_console(&table, findings)).unwrap_or_default();
    let time_servers = time_servers.map(|list| list.value).unwrap_or_default();
    Some(RawSite {
        office: office?,
        networks,
        forwarders,
        hosts,
        time_servers,
        operator_password_hash,
        root_shell,
        samba,
        tunnels,
        update,
    })
}

fn read_office(table: &Table<'_>, findings: &mut Findings) -> Option<RawOffice> {
    let name = table.parsed("name", findings, office_name);
    let host_name = table.parsed("host-name", findings, name::label);
    let domain = table.parsed("domain", findings, name::domain);
    Some(RawOffice { name: name?, host_name: host_name?, domain: domain? })
}

fn read_network(table: &Table<'_>, findings: &mut Findings) -> Option<RawNetwork> {
    let name = table.parsed("name", findings, name::network);
    let zone = table.parsed("zone", findings, zone);
    let ports = table.parsed_list("ports", findings, |text| Ok(text.to_owned()));
    let address = table.parsed("address", findings, network_address);
    let gateway = table.parsed("gateway", findings, ipv4);
    let dhcp = table.table("dhcp", &DHCP, findings);
    let dhcp = dhcp.and_then(|table| read_dhcp(&table, findings));
    Some(RawNetwork { name: name?, zone: zone?, ports: ports?, address: address?, gateway, dhcp })
}

fn read_dhcp(table: &Table<'_>, findings: &mut Findings) -> Option<RawDhcp> {
    let pools = table.parsed_list("pools", findings, pool);
    let lease_time_s = table.integer("lease-time-s", findings);
    let ntp_servers = table.parsed_list("ntp-servers", findings, ipv4);
    let tables = table.tables("reservation", &RESERVATION, findings);
    let reservations = tables.iter().filter_map(|table| read_reservation(table, findings)).collect();
    Some(RawDhcp {
        span: table.span.clone(),
        pools: pools?,
        lease_time_s: lease_time_s.unwrap_or(At { value: DEFAULT_LEASE_TIME_S, span: table.span.clone() }),
        ntp_servers: ntp_servers.map(|list| list.value).unwrap_or_default(),
        reservations,
    })
}

fn read_reservation(table: &Table<'_>, findings: &mut Findings) -> Option<RawReservation> {
    let name = table.parsed("name", findings, name::label);
    let mac = table.parsed("mac", findings, mac);
    let address = table.parsed("address", findings, ipv4);
    Some(RawReservation { name: name?, mac: mac?, address: address? })
}

fn read_dns(table: &Table<'_>, findings: &mut Findings) -> (Vec<At<IpAddr>>, Vec<RawHost>) {
    let forwarders = table.parsed_list("forwarders", findings, forwarder);
    let tables = table.tables("host", &HOST, findings);
    let hosts = tables.iter().filter_map(|table| {
        let name = table.parsed("name", findings, name::label);
        let address = table.parsed("address", findings, ipv4);
        Some(RawHost { name: name?, address: address? })
    });
    (forwarders.map(|list| list.value).unwrap_or_default(), hosts.collect())
}

fn read_console(table: &Table<'_>, findings: &mut Findings) -> (Option<At<String>>, bool) {
    let hash = table.string("operator-password-hash", findings);
    let root_shell = table.boolean("root-shell", findings);
    (hash, root_shell.is_some_and(|root_shell| root_shell.value))
}

fn office_name(text: &str) -> Result<String, Wrong> {
    let characters = text.chars().count();
    if (1..=64).contains(&characters) && !text.chars().any(char::is_control) && !text.trim().is_empty() {
        return Ok(text.to_owned());
    }
    Err(Wrong::new("the office's name cannot be shown", "1 to 64 characters on one line"))
}

fn zone(text: &str) -> Result<Zone, Wrong> {
    match text {
        "external" => Ok(Zone::External),
        "internal" => Ok(Zone::Internal),
        _ => Err(Wrong::new(format!("unknown zone `{text}`"), "external or internal")),
    }
}

fn network_address(text: &str) -> Result<Option<Ipv4Net>, Wrong> {
    if text == "dhcp" {
        return Ok(None);
    }
    let wrong = || {
        let help = "\"dhcp\", or the box's own address with prefix length, for example \"192.168.77.1/24\"";
        Wrong::new(format!("`{text}` is not an address with prefix length"), help)
    };
    text.parse().map(Some).map_err(|_| wrong())
}

fn ipv4(text: &str) -> Result<Ipv4Addr, Wrong> {
    let wrong = |_| Wrong::new(format!("`{text}` is not an IPv4 address"), "for example 192.168.77.10");
    text.parse().map_err(wrong)
}

fn forwarder(text: &str) -> Result<IpAddr, Wrong> {
    let wrong = |_| Wrong::new(format!("`{text}` is not an IP address"), "the address of a DNS server");
    text.parse().map_err(wrong)
}

fn pool(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), Wrong> {
    let parse = || {
        let (first, last) = text.split_once('-')?;
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    let wrong = || {
        let help = "first and last address, for example \"192.168.77.100-192.168.77.199\"";
        Wrong::new(format!("`{text}` is not a range of addresses"), help)
    };
    parse().ok_or_else(wrong)
}

fn mac(text: &str) -> Result<[u8; 6], Wrong> {
    let wrong = || {
        Wrong::new(format!("`{text}` is not a hardware address"), "six pairs, for example 52:54:00:12:34:56")
    };
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut mac = [0; 6];
    let mut pairs = text.split(separator);
    for byte in &mut mac {
        let pair = pairs.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
        *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
    }
    if pairs.next().is_some() { Err(wrong()) } else { Ok(mac) }
}

impl RawSite {
    /// The validated form; only after `check` found nothing.
    pub(crate) fn into_site(self) -> Site {
        let hosts = self.hosts.into_iter().map(|h| Host { name: h.name.value, address: h.address.value });
        let office = Office {
            name: self.office.name.value,
            host_name: self.office.host_name.value,
            domain: self.office.domain.value,
        };
        Site {
            office,
            networks: self.networks.into_iter().map(RawNetwork::into_network).collect(),
            dns: Dns { forwarders: values(self.forwarders), hosts: hosts.collect() },
            time: Time { servers: values(self.time_servers) },
            console: Console {
                operator_password_hash: self.operator_password_hash.map(|hash| hash.value),
                root_shell: self.root_shell,
            },
            samba: self.samba.map(RawSamba::into_samba),
            tunnels: self.tunnels.into_iter().map(RawTunnel::into_tunnel).collect(),
            update: self.update.map(RawUpdate::into_update),
        }
    }
}

impl RawNetwork {
    fn into_network(self) -> Network {
        let gateway = self.gateway.map(|gateway| gateway.value);
        Network {
            name: self.name.value,
            zone: self.zone.value,
            ports: values(self.ports.value),
            address: match self.address.value {
                Some(address) => Address::Static { address, gateway },
                None => Address::Dhcp,
            },
            dhcp: self.dhcp.map(RawDhcp::into_dhcp),
        }
    }
}

impl RawDhcp {
    fn into_dhcp(self) -> Dhcp {
        let reservations = self.reservations.into_iter().map(|r| Reservation {
            name: r.name.value,
            mac: r.mac.value,
            address: r.address.value,
        });
        Dhcp {
            pools: values(self.pools.value),
            lease_time_s: u32::try_from(self.lease_time_s.value).unwrap_or(u32::MAX),
            ntp_servers: values(self.ntp_servers),
            reservations: reservations.collect(),
        }
    }
}

fn values<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|item| item.value).collect()
}
