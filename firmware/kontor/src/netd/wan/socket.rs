//! The sockets of the DHCP client on one interface.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use kontor_dhcp4::Message;
use kontor_dhcp4::client::{Destination, Transmit};
use kontor_dhcp4::frame::{Endpoint, arp_probe, parse_arp, parse_udp, udp_packet};
use kontor_sys::packet::{BROADCAST_MAC, Traffic, bind_udp};

use super::super::watched::Watched;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Largest frame read: an Ethernet packet.
const PACKET_MAX: usize = 1600;
/// Packets read in a row: a flood from the provider's side must not keep us from everything else. What is
/// left is read when the next packet wakes us.
pub(super) const BATCH: usize = 64;
/// What we write at most: one unfragmented packet on any Ethernet link (the option 57 we announce).
const MESSAGE_MAX: usize = 1472;

/// Everything the client hears and says.
pub(super) struct Sockets {
    /// Below IP: broadcasts, and answers while there is no address.
    packets: Watched,
    arp: Watched,
    /// For RENEWING, by the kernel's routing; it hears nothing, but keeps the kernel from answering
    /// servers with ICMP errors.
    udp: UdpSocket,
}

impl Sockets {
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        Ok(Self {
            packets: Watched::open(interface, Traffic::Udp(CLIENT_PORT))?,
            arp: Watched::open(interface, Traffic::Arp)?,
            udp: bind_udp(interface, CLIENT_PORT)?,
        })
    }

    /// Waits until [`Self::receive`] (or, if asked for, [`Self::receive_arp`]) may have something.
    pub(super) async fn readable(&self, arp: bool) {
        tokio::select! {
            () = self.packets.readable() => {}
            () = self.arp.readable(), if arp => {}
        }
    }

    /// The next DHCP message from a server; what is not one is skipped.
    pub(super) fn receive(&self) -> Option<Message> {
        let mut buffer = [0; PACKET_MAX];
        for _ in 0..BATCH {
            let packet = self.packets.socket().receive(&mut buffer).ok()?;
            let datagram = parse_udp(packet).filter(|datagram| datagram.source.port == SERVER_PORT);
            if let Some(Ok(message)) = datagram.map(|datagram| Message::decode(datagram.payload)) {
                return Some(message);
            }
        }
        None
    }

    /// Who else says it has which address.
    pub(super) fn receive_arp(&self) -> Option<([u8; 6], Ipv4Addr)> {
        let mut buffer = [0; PACKET_MAX];
        for _ in 0..BATCH {
            let packet = self.arp.socket().receive(&mut buffer).ok()?;
            if let Some(claim) = parse_arp(packet) {
                return Some(claim);
            }
        }
        None
    }

    pub(super) fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let bytes = transmit.message.encode(MESSAGE_MAX).map_err(io::Error::other)?;
        match transmit.destination {
            Destination::Broadcast { source } => {
                let from = Endpoint { address: source, port: CLIENT_PORT };
                let to = Endpoint { address: Ipv4Addr::BROADCAST, port: SERVER_PORT };
                self.packets.socket().send(BROADCAST_MAC, &udp_packet(from, to, &bytes))
            }
            Destination::Unicast { server, .. } => {
                self.udp.send_to(&bytes, SocketAddrV4::new(server, SERVER_PORT)).map(drop)
            }
        }
    }

    pub(super) fn send_arp_probe(&self, own: [u8; 6], target: Ipv4Addr) -> io::Result<()> {
        self.arp.socket().send(BROADCAST_MAC, &arp_probe(own, target))
    }
}
