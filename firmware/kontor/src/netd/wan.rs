//! The DHCP client of the external network: `kontor_dhcp4::Client` with its sockets, clock and stored lease.
//!
//! An offered address is used only after an ARP probe found nobody else on it. Nothing here touches links or
//! addresses: [`Wan::uplink`] says what should be there, the daemon makes it so.

mod probe;
mod socket;

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;
use kontor_config::Site;
use kontor_dhcp4::client::{Client, ClientConfig, Event, Lease};
use kontor_dhcp4::wire::code;
use kontor_network::collision::usable_servers;
use kontor_network::{Link, Mac, Observed, RouteOrigin, Uplink};
use kontor_status::WanLease;
use serde::{Deserialize, Serialize};

use probe::{Probe, Verdict};
use socket::Sockets;

/// How often a lease that collides with the office is asked for again: somebody may just be changing the
/// provider's router, and nothing works anyway.
const COLLISION_RETRY: Duration = Duration::from_secs(30);

/// A lease with what is needed to ask for it again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedLease {
    interface: String,
    mac: Mac,
    lease: Lease,
    /// Wall clock, seconds since 1970; without a clock this is a guess and only decides whether to ask.
    obtained_at_s: u64,
}

/// The client, while the external network is one with DHCP.
pub(crate) struct Wan {
    origin: Instant,
    active: Option<Active>,
    /// What to store: a lease, or that there is none any more.
    change: Option<Option<SavedLease>>,
    /// Addresses under which our own dhcpd serves the office.
    own_servers: Vec<Ipv4Addr>,
    heard_ourselves: bool,
    /// The lease cannot be used; when to ask whether the outside has changed.
    colliding: Option<Instant>,
}

struct Active {
    interface: String,
    index: u32,
    mac: Mac,
    client: Client,
    sockets: Sockets,
    /// An address being checked for conflicts.
    probe: Option<Probe>,
    /// The lease in use.
    current: Option<Lease>,
    /// The lease of netd's life before this one, still installed: kept while the client asks for it again,
    /// so that a restart of netd interrupts nothing.
    kept: Option<Lease>,
}

impl Wan {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            active: None,
            change: None,
            own_servers: Vec::new(),
            heard_ourselves: false,
            colliding: None,
        }
    }

    /// Whose answers may be our own dhcpd's: heard outside, they point to both cables in one switch.
    pub(crate) fn set_own_servers(&mut self, own: impl Iterator<Item = Ipv4Net>) {
        self.own_servers = own.map(|address| address.addr()).collect();
    }

    /// Whether what may be an answer of our own dhcpd came in since the last call.
    pub(crate) fn heard_ourselves(&mut self) -> bool {
        std::mem::take(&mut self.heard_ourselves)
    }

    /// Whether the lease collides with an internal network. It is kept then, but asked for again every now and
    /// then, as a server whose network has changed refuses it.
    pub(crate) fn set_colliding(&mut self, colliding: bool) {
        self.colliding = match colliding {
            true => self.colliding.or_else(|| Some(Instant::now() + COLLISION_RETRY)),
            false => None,
        };
    }

    /// No external network with DHCP (or its firewall is not loaded): no client.
    pub(crate) fn stop(&mut self) {
        self.active = None;
    }

    /// Makes the client serve this link, and tells it about the carrier.
    pub(crate) fn follow(
        &mut self,
        link: Option<&Link>,
        host_name: &str,
        observed: &Observed,
        saved: Option<&SavedLease>,
    ) -> std::io::Result<()> {
        let Some((link, mac)) = link.and_then(|link| Some((link, link.mac?))) else {
            self.stop();
            return Ok(());
        };
        let same = |active: &Active| {
            active.index == link.index && active.mac == mac && active.interface == link.name
        };
        if !self.active.as_ref().is_some_and(same) {
            self.active = Some(self.start(link, mac, host_name, observed, saved)?);
        }
        let now = self.now();
        if let Some(active) = &mut self.active {
            match link.up && link.carrier {
                true => active.client.link_up(now),
                false => active.client.link_down(),
            }
        }
        self.turn();
        Ok(())
    }

    fn start(
        &self,
        link: &Link,
        mac: Mac,
        host_name: &str,
        observed: &Observed,
        saved: Option<&SavedLease>,
    ) -> std::io::Result<Active> {
        let config = ClientConfig { host_name: Some(host_name.to_owned()), ..ClientConfig::for_mac(mac.0) };
        let mut client = Client::new(config, seed());
        let mut kept = None;
        if let Some(saved) = saved.filter(|saved| saved.interface == link.name && saved.mac == mac) {
            client.restore(self.now(), saved.lease.clone(), saved.remaining(wall_clock_s()));
            let installed = observed.addresses_of(link.index).any(|address| address == saved.lease.address);
            kept = installed.then(|| saved.lease.clone());
        }
        eprintln!("DHCP client starts on {}", link.name);
        Ok(Active {
            interface: link.name.clone(),
            index: link.index,
            mac,
            client,
            sockets: Sockets::open(&link.name)?,
            probe: None,
            current: None,
            kept,
        })
    }

    /// The disk appeared: a client that has no lease yet starts again with the stored one.
    pub(crate) fn restore(&mut self, saved: Option<&SavedLease>) {
        let idle =
            self.active.as_ref().is_some_and(|active| active.in_use().is_none() && active.probe.is_none());
        if idle && saved.is_some() {
            self.active = None;
        }
    }

    /// Receives, lets time act, sends.
    pub(crate) fn turn(&mut self) {
        let now = self.now();
        let Some(active) = &mut self.active else { return };
        if self.colliding.is_some_and(|at| Instant::now() >= at) {
            self.colliding = Some(Instant::now() + COLLISION_RETRY);
            active.client.ask_again(now);
        }
        self.heard_ourselves |= active.receive(now, &self.own_servers);
        let change = active.turn(now);
        if let Some(lease) = change {
            self.change = Some(lease.map(|lease| active.saved(lease)));
        }
    }

    /// What to store since the last call.
    pub(crate) fn take_change(&mut self) -> Option<Option<SavedLease>> {
        self.change.take()
    }

    /// When [`Self::turn`] is due without a packet: at once while nobody has taken a change. One that comes
    /// about in [`Self::follow`], after the kernel was settled, would else wait for the next event, and the
    /// office for its way out.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        if self.change.is_some() {
            return Some(Instant::now());
        }
        let active = self.active.as_ref()?;
        let client = active.client.poll_timeout();
        let probe = active.probe.as_ref().map(Probe::next_at);
        let due = client.into_iter().chain(probe).min().map(|at| self.origin + at.0);
        due.into_iter().chain(self.colliding).min()
    }

    /// Waits for a packet.
    pub(crate) async fn readable(&self) {
        match &self.active {
            Some(active) => active.sockets.readable(active.probe.is_some()).await,
            None => std::future::pending().await,
        }
    }

    /// What the lease in use wants to have in the kernel.
    pub(crate) fn uplink(&self) -> Option<Uplink> {
        let lease = self.active.as_ref()?.in_use()?;
        let via = |gateway: Ipv4Addr| (!gateway.is_unspecified()).then_some(gateway);
        Some(Uplink {
            address: lease.address,
            gateway: lease.gateway(),
            routes: lease.routes.iter().map(|route| (route.destination, via(route.gateway))).collect(),
            mtu: lease.mtu,
            origin: RouteOrigin::Dhcp,
        })
    }

    /// The same for other daemons; servers that cannot be asked outside are left out and told.
    pub(crate) fn lease_status(&self, site: &Site, problems: &mut Vec<String>) -> Option<WanLease> {
        let active = self.active.as_ref()?;
        let lease = active.in_use()?;
        let external = lease.address.trunc();
        let mut usable = |kind, servers: &[Ipv4Addr]| usable_servers(site, external, kind, servers, problems);
        Some(WanLease {
            interface: active.interface.clone(),
            address: lease.address,
            gateway: lease.gateway(),
            dns_servers: usable("name server", &lease.dns_servers).into_iter().map(IpAddr::V4).collect(),
            ntp_servers: usable("time server", &lease.ntp_servers),
            lease_time_s: Some(lease.lease_time_s),
        })
    }

    /// The client's state by its RFC 2131 name.
    pub(crate) fn client_state(&self) -> Option<&'static str> {
        self.active.as_ref().map(|active| active.client.state().name())
    }

    fn now(&self) -> kontor_dhcp4::Instant {
        kontor_dhcp4::Instant(self.origin.elapsed())
    }
}

impl Active {
    fn in_use(&self) -> Option<&Lease> {
        self.current.as_ref().or(self.kept.as_ref())
    }

    fn saved(&self, lease: Lease) -> SavedLease {
        SavedLease { interface: self.interface.clone(), mac: self.mac, lease, obtained_at_s: wall_clock_s() }
    }

    /// Takes what came in; true when some of it may have been said by ourselves, on the other side of the box. Only
    /// maybe: a provider's router often has the very address that the box has in the office, and is to be heard.
    /// Our own dhcpd never answers our own hardware addresses.
    fn receive(&mut self, now: kontor_dhcp4::Instant, own_servers: &[Ipv4Addr]) -> bool {
        let mut ourselves = false;
        for message in std::iter::from_fn(|| self.sockets.receive()).take(socket::BATCH) {
            let server = message.options.address(code::SERVER_ID);
            ourselves |= server.is_some_and(|server| own_servers.contains(&server));
            self.client.handle_message(now, &message);
        }
        ourselves
    }

    /// Returns what to store, if that has changed.
    fn turn(&mut self, now: kontor_dhcp4::Instant) -> Option<Option<Lease>> {
        let mut change = None;
        if self.client.poll_timeout().is_some_and(|at| now >= at) {
            self.client.handle_timeout(now);
        }
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Configured(lease) => change = self.configured(now, lease).or(change),
                Event::Deconfigured => change = Some(self.deconfigured()),
            }
        }
        change = self.check(now).or(change);
        // RFC 2131 §3.2: a server that does not answer is no reason to give up a lease that still runs. The
        // client says when it ends or is refused.
        if self.current.is_some() {
            self.kept = None;
        }
        while let Some(transmit) = self.client.poll_transmit() {
            if let Err(error) = self.sockets.send(&transmit) {
                eprintln!("DHCP on {}: cannot send: {error}", self.interface);
            }
        }
        change
    }

    /// A lease: at once when it only confirms the address in use, else after a probe.
    fn configured(&mut self, now: kontor_dhcp4::Instant, lease: Lease) -> Option<Option<Lease>> {
        if self.in_use().is_some_and(|old| old.address == lease.address) {
            self.current = Some(lease.clone());
            self.probe = None;
            return Some(Some(lease));
        }
        // What was said before we asked is no answer.
        std::iter::from_fn(|| self.sockets.receive_arp()).take(socket::BATCH).for_each(drop);
        self.probe = Some(Probe::new(now, lease));
        None
    }

    fn deconfigured(&mut self) -> Option<Lease> {
        eprintln!("DHCP on {}: the lease is gone", self.interface);
        (self.current, self.kept, self.probe) = (None, None, None);
        None
    }

    /// Drives the probe of an address that is not in use yet.
    fn check(&mut self, now: kontor_dhcp4::Instant) -> Option<Option<Lease>> {
        let probe = self.probe.as_mut()?;
        for claim in std::iter::from_fn(|| self.sockets.receive_arp()).take(socket::BATCH) {
            probe.handle_claim(self.mac, claim);
        }
        match probe.poll(now) {
            Verdict::Wait => None,
            Verdict::Ask(target) => {
                if let Err(error) = self.sockets.send_arp_probe(self.mac.0, target) {
                    eprintln!("ARP probe on {}: {error}", self.interface);
                }
                None
            }
            Verdict::Free(lease) => {
                eprintln!("DHCP on {}: {} from {}", self.interface, lease.address, lease.server_id);
                (self.current, self.probe) = (Some(lease.clone()), None);
                Some(Some(lease))
            }
            Verdict::Taken(address) => {
                eprintln!("DHCP on {}: {address} is used by somebody else; declined", self.interface);
                self.probe = None;
                self.client.handle_conflict(now);
                while self.client.poll_event().is_some() {}
                Some(self.deconfigured())
            }
        }
    }
}

impl SavedLease {
    /// What is left of it by the wall clock; all of it when that clock is not set.
    fn remaining(&self, now_s: u64) -> Duration {
        let whole = Duration::from_secs(u64::from(self.lease.lease_time_s));
        match now_s.checked_sub(self.obtained_at_s) {
            Some(age) => whole.saturating_sub(Duration::from_secs(age)),
            None => whole,
        }
    }
}

fn wall_clock_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Different from start to start; no secret.
fn seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_nobody_has_taken_is_due_at_once() {
        let mut wan = Wan::new();
        assert_eq!(wan.next_at(), None);
        wan.change = Some(None);
        assert!(wan.next_at().is_some_and(|at| at <= Instant::now()));
        wan.take_change();
        assert_eq!(wan.next_at(), None);
    }
}
