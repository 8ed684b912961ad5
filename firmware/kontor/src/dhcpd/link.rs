//! The sockets of one served network.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use kontor_dhcp4::Message;
use kontor_dhcp4::frame::{Endpoint, arp_probe, parse_arp, udp_packet};
use kontor_dhcp4::server::{Destination, Reply};
use kontor_dhcp4::wire::{CLIENT_PORT, SERVER_PORT};
use kontor_sys::packet::{BROADCAST_MAC, PacketSocket, Traffic, bind_udp};

/// Messages taken from one interface before the others get their turn, and before the group commit.
const BATCH: usize = 256;
/// More than Ethernet carries; longer messages are cut and then refused or read as far as they go.
const BUFFER: usize = 2048;

/// One interface; without sockets while it does not exist.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) interface: String,
    sockets: Option<Sockets>,
    /// Why there are no sockets, told once.
    problem: Option<String>,
}

#[derive(Debug)]
struct Sockets {
    /// Requests come in here; answers to relays and configured clients go out.
    udp: UdpSocket,
    /// Answers to clients without an address.
    packet: PacketSocket,
    arp: PacketSocket,
}

impl Link {
    pub(super) fn new(interface: String) -> Self {
        let mut link = Self { interface, sockets: None, problem: None };
        link.check();
        link
    }

    /// Opens the sockets when the interface has appeared, and again when it has been made anew.
    pub(super) fn check(&mut self) {
        let index = nix::net::if_::if_nametoindex(self.interface.as_str()).ok();
        let open = self.sockets.as_ref().map(|sockets| sockets.packet.index());
        if open.is_some() && open == index {
            return;
        }
        match Sockets::open(&self.interface) {
            Ok(sockets) => {
                eprintln!("serving on {}", self.interface);
                (self.sockets, self.problem) = (Some(sockets), None);
            }
            Err(error) => {
                let problem = format!("interface {} cannot be served: {error}", self.interface);
                if self.problem.as_ref() != Some(&problem) {
                    eprintln!("{problem}");
                }
                (self.sockets, self.problem) = (None, Some(problem));
            }
        }
    }

    /// Why the network is not served, if so.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// What to poll for reading.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().flat_map(|sockets| [sockets.udp.as_fd(), sockets.arp.as_fd()])
    }

    /// Hands over what has arrived, at most one batch. Undecodable messages are dropped.
    pub(super) fn receive(&self, mut handle: impl FnMut(&Message)) {
        let Some(sockets) = &self.sockets else { return };
        let mut buffer = [0; BUFFER];
        for _ in 0..BATCH {
            match sockets.udp.recv(&mut buffer) {
                Ok(length) => {
                    if let Ok(message) = Message::decode(buffer.get(..length).unwrap_or_default()) {
                        handle(&message);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // ENETDOWN and the like; `check` opens anew if the interface is another one.
                Err(_) => return,
            }
        }
    }

    /// Hands over who claims which address by ARP.
    pub(super) fn receive_arp(&self, mut handle: impl FnMut([u8; 6], Ipv4Addr)) {
        let Some(sockets) = &self.sockets else { return };
        let mut buffer = [0; 64];
        for _ in 0..BATCH {
            let Ok(packet) = sockets.arp.receive(&mut buffer) else { return };
            if let Some((mac, address)) = parse_arp(packet).filter(|(mac, _)| *mac != sockets.arp.mac()) {
                handle(mac, address);
            }
        }
    }

    /// Asks who has `address`.
    pub(super) fn probe(&self, address: Ipv4Addr) {
        if let Some(sockets) = &self.sockets {
            // Without an answer the address counts as free, as it does when the question was lost.
            let _ = sockets.arp.send(BROADCAST_MAC, &arp_probe(sockets.arp.mac(), address));
        }
    }

    /// Sends an answer. A lost one is asked for again by its client.
    pub(super) fn send(&self, reply: &Reply) -> io::Result<()> {
        let Some(sockets) = &self.sockets else { return Ok(()) };
        let bytes = reply.message.encode(reply.limit).map_err(io::Error::other)?;
        let direct = |mac, address| {
            let source = Endpoint { address: reply.source, port: SERVER_PORT };
            let packet = udp_packet(source, Endpoint { address, port: CLIENT_PORT }, &bytes);
            sockets.packet.send(mac, &packet)
        };
        match reply.destination {
            Destination::Broadcast => direct(BROADCAST_MAC, Ipv4Addr::BROADCAST),
            Destination::Hardware { mac, address } => direct(mac, address),
            Destination::Relay(relay) => {
                sockets.udp.send_to(&bytes, SocketAddrV4::new(relay, SERVER_PORT)).map(drop)
            }
            Destination::Address(address) => {
                let sent = sockets.udp.send_to(&bytes, SocketAddrV4::new(address, CLIENT_PORT));
                match (sent, reply.message.mac()) {
                    // No route yet, as netd is still busy: the hardware address is known anyway.
                    (Err(_), Some(mac)) => direct(mac, address),
                    (sent, _) => sent.map(drop),
                }
            }
        }
    }
}

impl Sockets {
    fn open(interface: &str) -> io::Result<Self> {
        Ok(Self {
            udp: bind_udp(interface, SERVER_PORT)?,
            packet: PacketSocket::open(interface, Traffic::Ipv4Send)?,
            arp: PacketSocket::open(interface, Traffic::Arp)?,
        })
    }
}
