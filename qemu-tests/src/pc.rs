//! A PC in the office.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{dhcpv4, tcp, udp};
use smoltcp::wire::{DhcpOption, EthernetAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Cidr};

use crate::isp::Transport;
use crate::stack::{Plug, Stack};
use crate::wire::Wire;

/// What the PC asks for: mask, router, name servers, domain, lease time, T1, T2, NTP servers.
const PARAMETERS: &[u8] = &[1, 3, 6, 15, 51, 58, 59, 42];
/// DHCP options a test may look at in [`Lease::option`].
const MAX_MESSAGE: usize = 1500;

/// What the PC was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Cidr,
    /// Its router.
    pub router: Option<Ipv4Addr>,
    /// Its name servers.
    pub name_servers: Vec<Ipv4Addr>,
    /// The server that gave it.
    pub server: Ipv4Addr,
    /// The options of the acknowledgement, in order.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Lease {
    /// The content of a DHCP option.
    #[must_use]
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(kind, _)| *kind == code).map(|(_, data)| data.as_slice())
    }

    /// The domain (option 15).
    #[must_use]
    pub fn domain(&self) -> Option<String> {
        self.option(15).map(|data| String::from_utf8_lossy(data).into_owned())
    }
}

/// How a PC is configured.
#[derive(Debug, Clone)]
pub struct PcOptions {
    /// Hardware address.
    pub mac: [u8; 6],
    /// The host name it sends (option 12).
    pub name: Option<&'static str>,
}

/// A question on its way.
#[derive(Debug)]
pub struct Pending {
    socket: SocketHandle,
    server: IpEndpoint,
    transport: Transport,
    unsent: Option<Vec<u8>>,
    received: Vec<u8>,
}

/// A PC.
pub struct OfficePc {
    /// Its hardware address.
    pub mac: [u8; 6],
    stack: Stack,
    dhcp: SocketHandle,
    lease: Option<Lease>,
}

impl OfficePc {
    /// A PC on `plug` that asks for a lease at once.
    #[must_use]
    pub fn new(options: &PcOptions, plug: Plug, started: Instant) -> Self {
        let mut stack = Stack::new(EthernetAddress(options.mac), plug, started);
        let mut socket = dhcpv4::Socket::new();
        // smoltcp borrows these for the life of the socket; a handful of bytes for each PC of a test.
        socket.set_receive_packet_buffer(Box::leak(vec![0; MAX_MESSAGE].into_boxed_slice()));
        socket.set_parameter_request_list(PARAMETERS);
        if let Some(name) = options.name {
            let option = DhcpOption { kind: 12, data: name.as_bytes() };
            socket.set_outgoing_options(Box::leak(Box::new([option])));
        }
        let dhcp = stack.sockets.add(socket);
        Self { mac: options.mac, stack, dhcp, lease: None }
    }

    /// The lease it has.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Forgets its lease and asks for a new one, as after its own restart.
    pub fn restart_dhcp(&mut self) {
        self.stack.sockets.get_mut::<dhcpv4::Socket>(self.dhcp).reset();
        self.lease = None;
    }

    /// Does what can be done now; whether anything happened.
    ///
    /// # Errors
    /// When the wire's capture cannot be written.
    pub fn poll(&mut self, wires: &mut [Wire]) -> Result<bool> {
        let moved = self.stack.poll(wires)?;
        Ok(self.follow_dhcp()? || moved)
    }

    /// How long nothing needs to be done unless a frame arrives.
    pub fn poll_delay(&mut self) -> Option<Duration> {
        self.stack.poll_delay()
    }

    fn follow_dhcp(&mut self) -> Result<bool> {
        let lease = match self.stack.sockets.get_mut::<dhcpv4::Socket>(self.dhcp).poll() {
            None => return Ok(false),
            Some(dhcpv4::Event::Deconfigured) => None,
            Some(dhcpv4::Event::Configured(config)) => Some(Lease {
                address: config.address,
                router: config.router,
                name_servers: config.dns_servers.to_vec(),
                server: config.server.identifier,
                options: config.packet.iter().flat_map(|packet| packet.options().map(owned)).collect(),
            }),
        };
        let address = lease.as_ref().map(|lease| IpCidr::Ipv4(lease.address));
        self.stack.set_addresses(address.as_slice())?;
        self.stack.set_gateway(lease.as_ref().and_then(|lease| lease.router))?;
        self.lease = lease;
        Ok(true)
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    /// When the PC has no address or route.
    pub fn connect(&mut self, address: Ipv4Addr, port: u16) -> Result<SocketHandle> {
        self.stack.connect(address, port)
    }

    /// A TCP socket of this PC.
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.stack.sockets.get_mut(handle)
    }

    /// Gives a TCP connection up at once.
    pub fn hang_up(&mut self, handle: SocketHandle) {
        self.stack.hang_up(handle);
    }

    /// Forgets a socket that has no connection.
    pub fn close(&mut self, handle: SocketHandle) {
        self.stack.sockets.remove(handle);
    }

    /// Sends a DNS query.
    ///
    /// # Errors
    /// When the PC has no address or route.
    pub fn ask(&mut self, server: Ipv4Addr, query: Vec<u8>, transport: Transport) -> Result<Pending> {
        if transport == Transport::Udp {
            return self.ask_datagram(server, 53, query);
        }
        let length = u16::try_from(query.len())?.to_be_bytes();
        let (socket, message) = (self.stack.connect(server, 53)?, [&length[..], &query].concat());
        let server = IpEndpoint::new(IpAddress::Ipv4(server), 53);
        Ok(Pending { socket, server, transport, unsent: Some(message), received: Vec::new() })
    }

    /// Sends a datagram to a service that answers with another.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn ask_datagram(&mut self, server: Ipv4Addr, port: u16, message: Vec<u8>) -> Result<Pending> {
        let server = IpEndpoint::new(IpAddress::Ipv4(server), port);
        let (socket, transport) = (self.stack.udp(None)?, Transport::Udp);
        Ok(Pending { socket, server, transport, unsent: Some(message), received: Vec::new() })
    }

    /// Carries a query on; the answer's bytes once they are here.
    ///
    /// # Errors
    /// When the connection was refused or closed.
    pub fn answer(&mut self, pending: &mut Pending) -> Result<Option<Vec<u8>>> {
        match pending.transport {
            Transport::Udp => self.answer_udp(pending),
            Transport::Tcp => self.answer_tcp(pending),
        }
    }

    /// Forgets a query.
    pub fn finish(&mut self, pending: &Pending) {
        match pending.transport {
            Transport::Udp => self.close(pending.socket),
            Transport::Tcp => self.hang_up(pending.socket),
        }
    }

    fn answer_udp(&mut self, pending: &mut Pending) -> Result<Option<Vec<u8>>> {
        let socket = self.stack.sockets.get_mut::<udp::Socket>(pending.socket);
        if let Some(message) = pending.unsent.take() {
            socket.send_slice(&message, pending.server).map_err(|e| anyhow!("send a query: {e}"))?;
        }
        Ok(socket.recv().ok().map(|(message, _)| message.to_vec()))
    }

    fn answer_tcp(&mut self, pending: &mut Pending) -> Result<Option<Vec<u8>>> {
        let socket = self.stack.sockets.get_mut::<tcp::Socket>(pending.socket);
        if socket.may_send()
            && let Some(message) = pending.unsent.take()
        {
            socket.send_slice(&message).map_err(|e| anyhow!("send a query: {e}"))?;
        }
        crate::isp::read_all(socket, &mut pending.received);
        if let Some((length, body)) = pending.received.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if let Some(message) = body.get(..length) {
                return Ok(Some(message.to_vec()));
            }
        }
        if !socket.is_open() || socket.state() == tcp::State::CloseWait {
            return Err(anyhow!("{} closed the connection without an answer", pending.server));
        }
        Ok(None)
    }

    /// Sends an ICMP echo request; its identifier is the handle's business.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn ping(&mut self, target: Ipv4Addr, ident: u16) -> Result<SocketHandle> {
        self.stack.ping(target, ident)
    }

    /// Whether the ping's answer is here.
    pub fn pinged(&mut self, handle: SocketHandle) -> bool {
        self.stack.pinged(handle)
    }
}

fn owned(option: DhcpOption<'_>) -> (u8, Vec<u8>) {
    (option.kind, option.data.to_vec())
}
