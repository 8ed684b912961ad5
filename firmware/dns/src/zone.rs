//! Local zones: the office's domain, its reverse zones, and the names that never leave (see [`crate::special`]).
//!
//! Names come from two sources: fixed ones (the box, static hosts, reservations) from the site file, and
//! leases, announced while they live. A fixed name always wins: no PC can take the name of a server by
//! calling itself so. The zones answer with authority (AA), with SOA in every negative answer (RFC 2308 §3).

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::WireError;
use crate::name::Name;
use crate::special::{Kind, Special, is_private};

/// Most names that leases may have; far above what the largest office network can hold in practice.
pub const MAX_LEASE_NAMES: usize = 16_384;
/// Most addresses of one name: a PC with cable, wireless and dock.
const MAX_ADDRESSES: usize = 8;
/// Names no lease may take: whoever has them controls every browser's proxy or tunnel settings (the block
/// list of Microsoft's DNS server holds the same two).
const BLOCKED_LABELS: [&str; 2] = ["wpad", "isatap"];

/// Names and addresses fixed by the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneConfig {
    /// The office's domain.
    pub domain: Name,
    /// The box's own label.
    pub host: String,
    /// What its addresses point to, when that is not its name in the office.
    pub points_to: Option<Name>,
    /// Internal networks with the box's address in each.
    pub networks: Vec<Ipv4Net>,
    /// Static hosts and reservations: label and address.
    pub hosts: Vec<(String, Ipv4Addr)>,
    /// Whether zones of private use are forwarded.
    pub forward_private: bool,
}

/// Data of a local name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// The name exists but has nothing.
    None,
    /// Address records.
    Addresses(&'a [Ipv4Addr]),
    /// Pointer record, as the target's wire form.
    Pointer(&'a [u8]),
    /// A loopback name: A and AAAA.
    Loopback,
}

/// What the local zones say about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Not ours.
    Outside,
    /// The name exists.
    Exists {
        /// Its data.
        data: Data<'a>,
        /// Offset of the zone's apex in the name; `None` for single-label names, which are in no zone.
        apex: Option<usize>,
    },
    /// The name does not exist.
    Absent {
        /// Offset of the zone's apex in the name, if it has one.
        apex: Option<usize>,
    },
}

#[derive(Debug, Default)]
struct Names {
    forward: HashMap<Box<[u8]>, Vec<Ipv4Addr>>,
    reverse: HashMap<Ipv4Addr, Box<[u8]>>,
}

impl Names {
    /// Adds an address; the first name an address gets is the one its pointer shows.
    fn add(&mut self, label: &[u8], address: Ipv4Addr, fqdn: &Name) {
        let addresses = self.forward.entry(label.into()).or_default();
        if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
        self.reverse.entry(address).or_insert_with(|| fqdn.wire().into());
    }

    fn remove(&mut self, label: &[u8], address: Ipv4Addr) {
        let Some(addresses) = self.forward.get_mut(label) else { return };
        addresses.retain(|&other| other != address);
        if addresses.is_empty() {
            self.forward.remove(label);
        }
        let points_here = self.reverse.get(&address).is_some_and(|fqdn| first_label(fqdn) == label);
        if points_here {
            self.reverse.remove(&address);
        }
    }
}

fn first_label(wire: &[u8]) -> &[u8] {
    let length = wire.first().map_or(0, |&length| usize::from(length));
    wire.get(1..=length).unwrap_or_default()
}

/// All local zones.
#[derive(Debug)]
pub struct Zones {
    config: ZoneConfig,
    fixed: Names,
    leases: Names,
    special: Special,
    soa: Vec<u8>,
    ns: Name,
}

impl Zones {
    /// Zones with the site's names and no leases.
    ///
    /// # Errors
    /// [`WireError::Name`] when a label is not usable in DNS.
    pub fn new(config: ZoneConfig, serial: u32) -> Result<Self, WireError> {
        let ns = config.domain.child(&config.host)?;
        let mut fixed = Names::default();
        let own = config.networks.iter().map(|network| (config.host.as_str(), network.addr()));
        if let Some(name) = &config.points_to {
            let pointer = |network: &Ipv4Net| (network.addr(), name.wire().into());
            fixed.reverse.extend(config.networks.iter().map(pointer));
        }
        let hosts = config.hosts.iter().map(|(label, address)| (label.as_str(), *address));
        for (label, address) in own.chain(hosts) {
            let label = label.to_ascii_lowercase();
            fixed.add(label.as_bytes(), address, &config.domain.child(&label)?);
        }
        let soa = soa_rdata(&ns, &config.domain.child("hostmaster")?, serial);
        Ok(Self { config, fixed, leases: Names::default(), special: Special::new(), soa, ns })
    }

    /// Takes over the leases' names of `old` (a reload keeps them). Names that no longer fit are dropped.
    #[must_use]
    pub fn with_leases_of(mut self, old: &Self) -> Self {
        for (label, addresses) in &old.leases.forward {
            let Ok(label) = std::str::from_utf8(label) else { continue };
            for &address in addresses {
                let _ = self.set_lease(label, address);
            }
        }
        self
    }

    /// Announces the name of a lease. An address has one lease: what it was called before is forgotten.
    ///
    /// # Errors
    /// [`WireError::Name`] when the label is not usable or may not be taken, [`WireError::Counts`] when there
    /// are too many.
    pub fn set_lease(&mut self, label: &str, address: Ipv4Addr) -> Result<(), WireError> {
        let label = label.to_ascii_lowercase();
        let fqdn = self.config.domain.child(&label)?;
        if BLOCKED_LABELS.contains(&label.as_str()) {
            return Err(WireError::Name);
        }
        self.remove_lease_address(address);
        if self.leases.reverse.len() >= MAX_LEASE_NAMES {
            return Err(WireError::Counts);
        }
        self.leases.add(label.as_bytes(), address, &fqdn);
        Ok(())
    }

    /// Withdraws the name of a lease.
    pub fn remove_lease(&mut self, label: &str, address: Ipv4Addr) {
        self.leases.remove(label.to_ascii_lowercase().as_bytes(), address);
    }

    fn remove_lease_address(&mut self, address: Ipv4Addr) {
        if let Some(fqdn) = self.leases.reverse.get(&address) {
            let label = first_label(fqdn).to_vec();
            self.leases.remove(&label, address);
        }
    }

    /// Forgets all leases' names.
    pub fn clear_leases(&mut self) {
        self.leases = Names::default();
    }

    /// Number of local names.
    #[must_use]
    pub fn len(&self) -> usize {
        let extra = self.leases.forward.keys().filter(|label| !self.fixed.forward.contains_key(*label));
        self.fixed.forward.len() + extra.count()
    }

    /// Whether there are no local names (never: the box has one).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Data of the SOA record of every local zone.
    #[must_use]
    pub fn soa(&self) -> &[u8] {
        &self.soa
    }

    /// The name server of every local zone: the box.
    #[must_use]
    pub fn ns(&self) -> &Name {
        &self.ns
    }

    /// Looks `name` up.
    #[inline]
    #[must_use]
    pub fn find(&self, name: &Name) -> Found<'_> {
        if let Some(apex) = name.offset_of(&self.config.domain) {
            return self.in_domain(name, apex);
        }
        if let Some(found) = self.in_reverse(name) {
            return found;
        }
        if let Some((kind, apex)) = self.special.find(name) {
            return self.in_special(name, kind, apex);
        }
        // A bare host name. An unknown one goes on to the caller, who knows the type asked for.
        match first_label(name.wire()) {
            label if !label.is_empty() && name.wire().len() == label.len() + 2 => self.bare_host(label),
            _ => Found::Outside,
        }
    }

    /// Whether the office itself answers for `name`, and no forward zone whose apex is its part from `offset` on. Of its
    /// domain the one that is no shorter has the name; a reverse name is its own when it knows it, and else that of whoever
    /// has a zone around it. Special zones do not count: they are for names that nobody knows, and a forward zone says who does.
    pub(crate) fn has(&self, name: &Name, offset: usize) -> bool {
        match name.offset_of(&self.config.domain) {
            Some(apex) => apex <= offset,
            None => matches!(self.in_reverse(name), Some(Found::Exists { data: Data::Pointer(_), .. })),
        }
    }

    /// Whether `name` is a reverse name of the internal networks.
    pub(crate) fn is_reverse(&self, name: &Name) -> bool {
        self.in_reverse(name).is_some()
    }

    fn in_domain(&self, name: &Name, apex: usize) -> Found<'_> {
        if apex == 0 {
            return Found::Exists { data: Data::None, apex: Some(0) };
        }
        let label = first_label(name.wire());
        match self.addresses(label).filter(|_| apex == label.len() + 1) {
            Some(addresses) => Found::Exists { data: Data::Addresses(addresses), apex: Some(apex) },
            None => Found::Absent { apex: Some(apex) },
        }
    }

    fn bare_host(&self, label: &[u8]) -> Found<'_> {
        match self.addresses(label) {
            Some(addresses) => Found::Exists { data: Data::Addresses(addresses), apex: None },
            None => Found::Outside,
        }
    }

    fn addresses(&self, label: &[u8]) -> Option<&[Ipv4Addr]> {
        self.fixed.forward.get(label).or_else(|| self.leases.forward.get(label)).map(Vec::as_slice)
    }

    /// Reverse names of the internal networks.
    fn in_reverse(&self, name: &Name) -> Option<Found<'_>> {
        let reverse = ReverseName::read(name)?;
        let inside = |network: &Ipv4Net| reverse.zone_inside(*network, self.apex_octets(*network));
        let apex_octets = self.config.networks.iter().find_map(inside)?;
        let apex = name.labels().nth(reverse.labels.checked_sub(usize::from(apex_octets) + 2)?)?.0;
        if reverse.octets < 4 {
            // Octets without an address of their own have names below them.
            return Some(Found::Exists { data: Data::None, apex: Some(apex) });
        }
        if reverse.labels > 6 {
            return Some(Found::Absent { apex: Some(apex) });
        }
        let pointer = self.fixed.reverse.get(&reverse.address);
        Some(match pointer.or_else(|| self.leases.reverse.get(&reverse.address)) {
            Some(target) => Found::Exists { data: Data::Pointer(target), apex: Some(apex) },
            None if apex == 0 => Found::Exists { data: Data::None, apex: Some(apex) },
            None => Found::Absent { apex: Some(apex) },
        })
    }

    /// Number of leading octets that the apex of a network's reverse zone fixes.
    ///
    /// Up to /24 the zone is the octet boundary at or below the prefix (a /20 is sixteen /24 zones). Longer
    /// prefixes have no zone of their own: private ones belong to the /24 zone (all of it is answered locally
    /// anyway); in others every address is its own zone, so that its neighbours can be asked for upstream.
    fn apex_octets(&self, network: Ipv4Net) -> u8 {
        match network.prefix_len() {
            0..=24 => network.prefix_len().div_ceil(8).max(1),
            _ if is_private(network.addr()) && !self.config.forward_private => 3,
            _ => 4,
        }
    }

    fn in_special(&self, name: &Name, kind: Kind, apex: usize) -> Found<'_> {
        let apex = Some(apex);
        match kind {
            Kind::Localhost => Found::Exists { data: Data::Loopback, apex },
            Kind::Canary => Found::Absent { apex: None },
            Kind::NoData => Found::Exists { data: Data::None, apex },
            Kind::Private if self.config.forward_private => Found::Outside,
            Kind::Empty | Kind::Private if apex == Some(0) => Found::Exists { data: Data::None, apex },
            Kind::Empty if *name.wire() == *LOOPBACK_REVERSE => {
                Found::Exists { data: Data::Pointer(LOCALHOST), apex }
            }
            Kind::Empty | Kind::Private => Found::Absent { apex },
        }
    }
}

const LOCALHOST: &[u8] = b"\x09localhost\0";
const LOOPBACK_REVERSE: &[u8] = b"\x011\x010\x010\x03127\x07in-addr\x04arpa\0";

/// SOA data: refresh and retry mean nothing without secondaries; MINIMUM (negative TTL) is short because a
/// name may appear with the next lease.
fn soa_rdata(mname: &Name, rname: &Name, serial: u32) -> Vec<u8> {
    let mut rdata = [mname.wire(), rname.wire()].concat();
    for field in [serial, 3_600, 600, 604_800, NEGATIVE_TTL_S] {
        rdata.extend_from_slice(&field.to_be_bytes());
    }
    rdata
}

/// TTL of what local zones say does not exist.
pub const NEGATIVE_TTL_S: u32 = 10;

/// A name below `in-addr.arpa`: the octets it fixes, at most four.
#[derive(Debug, Clone, Copy)]
struct ReverseName {
    address: Ipv4Addr,
    octets: u8,
    labels: usize,
}

impl ReverseName {
    fn read(name: &Name) -> Option<Self> {
        if !name.wire().ends_with(b"\x07in-addr\x04arpa\0") {
            return None;
        }
        let labels = name.labels().count();
        let fixed = labels.checked_sub(2).filter(|&fixed| fixed > 0)?.min(4);
        let mut octets = [0; 4];
        for (index, (_, label)) in name.labels().skip(labels - 2 - fixed).take(fixed).enumerate() {
            octets[fixed - 1 - index] = decimal(label)?;
        }
        let octets_fixed = u8::try_from(fixed).ok()?;
        Some(Self { address: octets.into(), octets: octets_fixed, labels })
    }

    /// `apex_octets` if this name is in `network`'s reverse zone (or one of its zones).
    fn zone_inside(&self, network: Ipv4Net, apex_octets: u8) -> Option<u8> {
        let zone = Ipv4Net::new(network.addr(), network.prefix_len().min(apex_octets * 8)).ok()?;
        (self.octets >= apex_octets && zone.contains(&self.address)).then_some(apex_octets)
    }
}

/// A decimal octet as written in reverse names: no sign, no leading zero.
fn decimal(label: &[u8]) -> Option<u8> {
    if label.len() > 1 && label[0] == b'0' || label.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(label).ok()?.parse().ok()
}
