//! The provider's DHCP server: one address for each customer, the same one each time (RFC 2131).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Result, anyhow};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress,
    IpAddress, IpEndpoint, Ipv4Cidr,
};

use crate::stack::Stack;

/// NTP servers (RFC 2132, section 8.3).
const OPT_TIME_SERVERS: u8 = 42;

/// What is leased.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The server itself, also the gateway.
    pub gateway: Ipv4Cidr,
    /// First address leased.
    pub first: Ipv4Addr,
    /// Lease time.
    pub lease_time_s: u32,
    /// Name server announced.
    pub name_server: Ipv4Addr,
    /// Time server announced.
    pub time_server: Option<Ipv4Addr>,
}

/// The provider's DHCP server.
#[derive(Debug)]
pub struct DhcpServer {
    /// Whether it answers at all.
    pub enabled: bool,
    /// What it leases from now on.
    pub pool: Pool,
    /// Acknowledged leases, by hardware address.
    pub bound: BTreeMap<[u8; 6], Ipv4Addr>,
    /// Acknowledgements sent.
    pub acks: usize,
    known: BTreeMap<[u8; 6], u32>,
    socket: SocketHandle,
}

impl DhcpServer {
    pub(super) fn new(pool: Pool, stack: &mut Stack) -> Result<Self> {
        let socket = stack.udp(Some(DHCP_SERVER_PORT))?;
        Ok(Self { enabled: true, pool, bound: BTreeMap::new(), acks: 0, known: BTreeMap::new(), socket })
    }

    pub(super) fn serve(&mut self, stack: &mut Stack) -> Result<bool> {
        let mut busy = false;
        while let Ok((message, _)) = stack.sockets.get_mut::<udp::Socket>(self.socket).recv() {
            busy = true;
            let Some((reply, target)) = self.reply(message) else { continue };
            let endpoint = IpEndpoint::new(IpAddress::Ipv4(target), DHCP_CLIENT_PORT);
            let socket = stack.sockets.get_mut::<udp::Socket>(self.socket);
            socket.send_slice(&reply, endpoint).map_err(|e| anyhow!("send a DHCP reply: {e}"))?;
        }
        Ok(busy)
    }

    /// The reply to one message, and whom to send it to.
    fn reply(&mut self, message: &[u8]) -> Option<(Vec<u8>, Ipv4Addr)> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        if !self.enabled {
            return None;
        }
        let mac = request.client_hardware_address;
        let address = self.address_of(mac);
        let kind = match request.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request => self.judge(&request, address)?,
            DhcpMessageType::Release => {
                self.bound.remove(&mac.0);
                return None;
            }
            _ => return None,
        };
        if kind == DhcpMessageType::Ack {
            self.bound.insert(mac.0, address);
            self.acks += 1;
        }
        let target = if request.client_ip.is_unspecified() || kind == DhcpMessageType::Nak {
            Ipv4Addr::BROADCAST
        } else {
            request.client_ip
        };
        Some((self.emit(&request, kind, address), target))
    }

    /// Whether a request is for this server and for the address it gives (section 4.3.2).
    fn judge(&self, request: &DhcpRepr<'_>, address: Ipv4Addr) -> Option<DhcpMessageType> {
        if request.server_identifier.is_some_and(|server| server != self.pool.gateway.address()) {
            return None;
        }
        let wanted = request.requested_ip.unwrap_or(request.client_ip);
        Some(if wanted == address { DhcpMessageType::Ack } else { DhcpMessageType::Nak })
    }

    fn address_of(&mut self, mac: EthernetAddress) -> Ipv4Addr {
        let next = u32::try_from(self.known.len()).unwrap_or(0);
        let offset = *self.known.entry(mac.0).or_insert(next);
        (u32::from(self.pool.first) + offset).into()
    }

    fn emit(&self, request: &DhcpRepr<'_>, kind: DhcpMessageType, address: Ipv4Addr) -> Vec<u8> {
        let granted = kind != DhcpMessageType::Nak;
        let gateway = self.pool.gateway;
        let mut servers = request.dns_servers.clone().unwrap_or_default();
        servers.clear();
        let _ = servers.push(self.pool.name_server);
        let time_server = self.pool.time_server.map(|server| server.octets());
        let time_server = time_server.as_ref().map(|data| DhcpOption { kind: OPT_TIME_SERVERS, data });
        let reply = DhcpRepr {
            message_type: kind,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: request.client_hardware_address,
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: if granted { address } else { Ipv4Addr::UNSPECIFIED },
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: granted.then_some(gateway.address()),
            subnet_mask: granted.then_some(gateway.netmask()),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(gateway.address()),
            parameter_request_list: None,
            dns_servers: granted.then_some(servers),
            max_size: None,
            lease_duration: granted.then_some(self.pool.lease_time_s),
            renew_duration: None,
            rebind_duration: None,
            additional_options: if granted { time_server.as_slice() } else { &[] },
        };
        let mut buffer = vec![0; reply.buffer_len()];
        // The buffer has the length the representation asked for; it always fits.
        let _ = reply.emit(&mut DhcpPacket::new_unchecked(&mut buffer));
        buffer
    }
}
