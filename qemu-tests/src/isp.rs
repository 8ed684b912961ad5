//! The provider and the Internet behind it, as one host on the outside wire.
//!
//! It leases WAN addresses, answers DNS from a table and counts who asked, tells the time, serves web
//! pages and echoes bytes. On request a headquarters is on its Internet, the other end of a tunnel.
//! Its servers have addresses of a public network that is reached through its gateway address.

mod dhcp;
mod headquarters;
mod names;
mod tcp;
mod time;
mod web;

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};

pub use dhcp::{DhcpServer, Pool};
pub use headquarters::Headquarters;
pub use names::{NameServer, Transport};
pub use tcp::EchoServer;
pub(crate) use tcp::read_all;
pub use time::TimeServer;
pub use web::{WebRequest, WebServer};

use crate::line::{Change, Line, LineOptions};
use crate::stack::{Plug, Stack};
use crate::wire::Wire;

/// After so many cuts the provider has forgotten its customer's connections, and nobody tells the customer; after the others
/// they are reset.
const FORGETS_EVERY: u32 = 4;

/// The provider's addresses.
#[derive(Debug, Clone)]
pub struct IspOptions {
    /// Hardware address of its router.
    pub mac: [u8; 6],
    /// Its gateway address towards its customers.
    pub gateway: Ipv4Cidr,
    /// First address it leases; the next customers get the following ones.
    pub first_lease: Ipv4Addr,
    /// Lease time.
    pub lease_time_s: u32,
    /// Where its name server answers.
    pub name_server: Ipv4Addr,
    /// The time server its leases announce (option 42), when they do; it answers at every address.
    pub time_server: Option<Ipv4Addr>,
    /// Where its web and echo servers answer.
    pub web_server: Ipv4Addr,
}

impl Default for IspOptions {
    fn default() -> Self {
        Self {
            mac: [0x02, 0x15, 0xb0, 0, 0, 1],
            gateway: Ipv4Cidr::new(Ipv4Addr::new(198, 51, 100, 1), 24),
            first_lease: Ipv4Addr::new(198, 51, 100, 10),
            lease_time_s: 3600,
            name_server: Ipv4Addr::new(203, 0, 113, 53),
            time_server: None,
            web_server: Ipv4Addr::new(203, 0, 113, 80),
        }
    }
}

/// The provider.
pub struct Isp {
    /// How it was set up.
    pub options: IspOptions,
    /// Leases of WAN addresses.
    pub dhcp: DhcpServer,
    /// Names of the Internet.
    pub names: NameServer,
    /// Time of the Internet.
    pub time: TimeServer,
    /// Pages of the Internet.
    pub web: WebServer,
    /// Sends back what it gets, for long-lived connections (port 7).
    pub echo: EchoServer,
    /// The other end of a customer's tunnel, if there is one.
    headquarters: Option<Headquarters>,
    stack: Stack,
    started: Instant,
}

impl Isp {
    /// A provider on `plug`.
    ///
    /// # Errors
    /// When its sockets cannot be made.
    pub fn new(options: IspOptions, plug: Plug, started: Instant) -> Result<Self> {
        let mut stack = Stack::new(EthernetAddress(options.mac), plug, started);
        stack.set_addresses(&Self::addresses(&options, None))?;
        let pool = Pool {
            gateway: options.gateway,
            first: options.first_lease,
            lease_time_s: options.lease_time_s,
            name_server: options.name_server,
            time_server: options.time_server,
        };
        Ok(Self {
            dhcp: DhcpServer::new(pool, &mut stack)?,
            names: NameServer::new(options.name_server, &mut stack)?,
            time: TimeServer::new(&mut stack)?,
            web: WebServer::new(options.web_server, &mut stack)?,
            echo: EchoServer::new(options.web_server, &mut stack)?,
            headquarters: None,
            options,
            stack,
            started,
        })
    }

    /// Gives the provider's own network other numbers; whoever has an address of the old ones is refused it.
    ///
    /// # Errors
    /// When there is no room for the addresses.
    pub fn renumber(&mut self, gateway: Ipv4Cidr, first_lease: Ipv4Addr) -> Result<()> {
        (self.options.gateway, self.options.first_lease) = (gateway, first_lease);
        (self.dhcp.pool.gateway, self.dhcp.pool.first) = (gateway, first_lease);
        self.take_addresses()
    }

    /// Puts a headquarters at this address of the Internet, whose tunnel is for the branch with this public key.
    ///
    /// # Errors
    /// When its sockets cannot be made.
    pub fn open_headquarters(&mut self, address: Ipv4Addr, branch_key: [u8; 32]) -> Result<()> {
        self.headquarters = Some(Headquarters::new(address, branch_key, &mut self.stack, self.started)?);
        self.take_addresses()
    }

    /// The headquarters goes on at another address, and remembers nobody.
    ///
    /// # Errors
    /// When there is none, or no room for the address.
    pub fn move_headquarters(&mut self, address: Ipv4Addr) -> Result<()> {
        self.headquarters()?.move_to(address);
        self.take_addresses()
    }

    /// The headquarters.
    ///
    /// # Errors
    /// When there is none.
    pub fn headquarters(&mut self) -> Result<&mut Headquarters> {
        self.headquarters.as_mut().context("there is no headquarters")
    }

    fn take_addresses(&mut self) -> Result<()> {
        let headquarters = self.headquarters.as_ref().map(Headquarters::address);
        self.stack.set_addresses(&Self::addresses(&self.options, headquarters))
    }

    fn addresses(options: &IspOptions, headquarters: Option<Ipv4Addr>) -> Vec<IpCidr> {
        let servers = [options.name_server, options.web_server].into_iter().chain(headquarters);
        let single = |address| IpCidr::Ipv4(Ipv4Cidr::new(address, 32));
        std::iter::once(IpCidr::Ipv4(options.gateway)).chain(servers.map(single)).collect()
    }

    /// Makes the line to its customers one of this kind, from now on.
    pub fn set_line(&mut self, options: LineOptions) {
        self.stack.set_line(options);
    }

    /// The line to its customers, if it is limited in any way.
    #[must_use]
    pub fn line(&self) -> Option<&Line> {
        self.stack.line()
    }

    /// Does what can be done now; whether anything happened.
    ///
    /// # Errors
    /// When the wire's capture cannot be written.
    pub fn poll(&mut self, wires: &mut [Wire]) -> Result<bool> {
        if let Some(Change::Back(cuts)) = self.stack.turn_line() {
            self.web.cut(&mut self.stack, cuts % FORGETS_EVERY != 2)?;
        }
        let moved = self.stack.poll(wires)?;
        let mut served = self.dhcp.serve(&mut self.stack)?;
        served |= self.names.serve(&mut self.stack)?;
        served |= self.time.serve(&mut self.stack)?;
        served |= self.web.serve(&mut self.stack)?;
        served |= self.echo.serve(&mut self.stack)?;
        if let Some(headquarters) = &mut self.headquarters {
            served |= headquarters.serve(&mut self.stack)?;
        }
        Ok(moved || served)
    }

    /// How long nothing needs to be done unless a frame arrives.
    pub fn poll_delay(&mut self) -> Option<std::time::Duration> {
        let headquarters = self.headquarters.as_mut().and_then(Headquarters::poll_delay);
        self.stack.poll_delay().into_iter().chain(headquarters).min()
    }
}
