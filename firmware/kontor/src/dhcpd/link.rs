//! The sockets of one served network.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use kontor_dhcp4::frame::{Endpoint, arp_announcement, arp_probe, parse_arp, parse_udp, udp_packet};
use kontor_dhcp4::neighbours::Neighbours;
use kontor_dhcp4::server::{Destination, Reply};
use kontor_dhcp4::wire::{CLIENT_PORT, Op, SERVER_PORT, code};
use kontor_dhcp4::{Instant, Message};
use kontor_sys::packet::{BROADCAST_MAC, PacketSocket, Traffic, bind_udp};

/// Messages taken from one interface before the others get their turn, and before the group commit.
const BATCH: usize = 256;
/// More than Ethernet carries; longer messages are cut and then refused or read as far as they go.
const BUFFER: usize = 2048;

/// How long an interface may be missing before that is a problem: at a start, drivers and netd's naming of
/// the ports take their time.
const GRACE: Duration = Duration::from_secs(15);

/// One interface; without sockets while it does not exist.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) interface: String,
    /// Where messages for the server arrive, besides 255.255.255.255.
    addresses: Vec<Ipv4Addr>,
    sockets: Option<Sockets>,
    /// When a missing interface becomes a problem.
    missed_at: Instant,
    /// Why there are no sockets, told once.
    problem: Option<String>,
    neighbours: Neighbours,
}

#[derive(Debug)]
struct Sockets {
    /// Answers to relays and configured clients, by the kernel's routing.
    udp: UdpSocket,
    /// Requests, and answers to clients without an address. Below IP, because a client that still has an
    /// address of another network (REBINDING after the office was renumbered) is a spoofer to the firewall
    /// and to the kernel's reverse path filter, and must be told all the same.
    packet: PacketSocket,
    arp: PacketSocket,
    /// What other servers say to clients.
    answers: PacketSocket,
}

impl Link {
    /// A link whose sockets the first [`Link::check`] opens.
    pub(super) fn new(now: Instant, interface: &str) -> Self {
        let (interface, addresses) = (interface.to_owned(), Vec::new());
        let neighbours = Neighbours::default();
        Self { interface, addresses, sockets: None, missed_at: now + GRACE, problem: None, neighbours }
    }

    /// Sets the addresses at which messages for the server arrive: the box's own here first, the broadcast address,
    /// its other ones.
    pub(super) fn set_addresses(&mut self, addresses: Vec<Ipv4Addr>) {
        self.addresses = addresses;
    }

    /// Opens the sockets when the interface has appeared, and again when it has been made anew.
    pub(super) fn check(&mut self, now: Instant) {
        self.neighbours.handle_timeout(now);
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
                self.sockets = None;
                self.miss(now, &error);
            }
        }
    }

    fn miss(&mut self, now: Instant, error: &io::Error) {
        let missing = error.raw_os_error() == Some(nix::libc::ENODEV);
        if missing && now < self.missed_at {
            return;
        }
        let problem = format!("interface {} cannot be served: {error}", self.interface);
        if self.problem.as_ref() != Some(&problem) {
            eprintln!("{problem}");
        }
        self.problem = Some(problem);
    }

    /// The box's own address here.
    fn own(&self) -> Ipv4Addr {
        self.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Why the network is not served, and who disturbs it.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let neighbours = self.neighbours.problems(&self.interface, self.own());
        self.problem.clone().into_iter().chain(neighbours)
    }

    /// What to poll for reading.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets
            .iter()
            .flat_map(|sockets| [sockets.packet.as_fd(), sockets.arp.as_fd(), sockets.answers.as_fd()])
    }

    /// Hands over what has arrived, at most one batch. Undecodable messages are dropped.
    pub(super) fn receive(&self, mut handle: impl FnMut(&Message)) {
        let Some(sockets) = &self.sockets else { return };
        let mut buffer = [0; BUFFER];
        for _ in 0..BATCH {
            // On ENETDOWN and the like `check` opens anew if the interface is another one.
            let Ok(packet) = sockets.packet.receive(&mut buffer) else { return };
            if let Some(message) = message(packet, &self.addresses) {
                handle(&message);
            }
        }
    }

    /// Notices other servers.
    pub(super) fn receive_answers(&mut self, now: Instant) {
        let Some(sockets) = &self.sockets else { return };
        let mut buffer = [0; BUFFER];
        for _ in 0..BATCH {
            let Ok(packet) = sockets.answers.receive(&mut buffer) else { return };
            if let Some(server) = answering_server(packet).filter(|server| !self.addresses.contains(server)) {
                self.neighbours.handle_server(now, server);
            }
        }
    }

    /// Hands over who claims which address by ARP, and defends our own.
    pub(super) fn receive_arp(&mut self, now: Instant, mut handle: impl FnMut([u8; 6], Ipv4Addr)) {
        let own = self.own();
        let Some(sockets) = &self.sockets else { return };
        let mut buffer = [0; 64];
        for _ in 0..BATCH {
            let Ok(packet) = sockets.arp.receive(&mut buffer) else { return };
            if let Some((mac, address)) = parse_arp(packet).filter(|(mac, _)| *mac != sockets.arp.mac()) {
                if address == own && self.neighbours.handle_claim(now, mac) {
                    // Lost, it is repeated at the next claim.
                    let _ = sockets.arp.send(BROADCAST_MAC, &arp_announcement(sockets.arp.mac(), own));
                }
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

/// The message in a packet for us. A packet for somebody else (a client asks a server beyond this gateway)
/// is not ours to answer. The UDP checksum is not looked at, see [`parse_udp`].
fn message(packet: &[u8], own: &[Ipv4Addr]) -> Option<Message> {
    let datagram = parse_udp(packet)?;
    let to = datagram.destination;
    let ours = to.port == SERVER_PORT && (to.address.is_broadcast() || own.contains(&to.address));
    ours.then(|| Message::decode(datagram.payload).ok())?
}

/// The server in an answer to a client.
fn answering_server(packet: &[u8]) -> Option<Ipv4Addr> {
    let datagram = parse_udp(packet).filter(|datagram| datagram.source.port == SERVER_PORT)?;
    let message = Message::decode(datagram.payload).ok().filter(|message| message.op == Op::Reply)?;
    message.options.address(code::SERVER_ID)
}

impl Sockets {
    fn open(interface: &str) -> io::Result<Self> {
        Ok(Self {
            udp: bind_udp(interface, SERVER_PORT)?,
            packet: PacketSocket::open(interface, Traffic::Udp(SERVER_PORT))?,
            arp: PacketSocket::open(interface, Traffic::Arp)?,
            answers: PacketSocket::open(interface, Traffic::Udp(CLIENT_PORT))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use kontor_dhcp4::wire::{DEFAULT_MESSAGE_SIZE, MessageType};

    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
    const BROADCAST: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 255);

    #[track_caller]
    fn check(source: [u8; 4], destination: Ipv4Addr, port: u16, expect: bool) {
        let request = Message::request(MessageType::Request, 7, [2, 0, 0, 0, 0, 1]);
        let bytes = request.encode(DEFAULT_MESSAGE_SIZE).unwrap();
        let from = Endpoint { address: source.into(), port: CLIENT_PORT };
        let mut packet = udp_packet(from, Endpoint { address: destination, port }, &bytes);
        // As the kernel hands it over when a virtual network card has yet to compute the checksum.
        packet[26..28].copy_from_slice(&[0x12, 0x34]);
        assert_eq!(message(&packet, &[OWN, BROADCAST]).is_some(), expect, "{destination}:{port}");
    }

    #[test]
    fn messages_for_us_from_whatever_address() {
        check([0, 0, 0, 0], Ipv4Addr::BROADCAST, SERVER_PORT, true);
        // REBINDING with an address of the network the office had before.
        check([10, 1, 2, 3], Ipv4Addr::BROADCAST, SERVER_PORT, true);
        check([192, 168, 77, 100], OWN, SERVER_PORT, true);
        check([192, 168, 77, 100], BROADCAST, SERVER_PORT, true);
        check([192, 168, 77, 100], Ipv4Addr::new(10, 9, 8, 7), SERVER_PORT, false);
        check([192, 168, 77, 100], OWN, CLIENT_PORT, false);
        assert_eq!(message(&[0x45; 40], &[OWN]), None);
    }

    #[test]
    fn another_server_is_known_by_its_answer() {
        let mut offer = Message::request(MessageType::Offer, 7, [2, 0, 0, 0, 0, 1]);
        let packet = |message: &Message, port| {
            let bytes = message.encode(DEFAULT_MESSAGE_SIZE).unwrap();
            let to = Endpoint { address: Ipv4Addr::BROADCAST, port: CLIENT_PORT };
            udp_packet(Endpoint { address: BROADCAST, port }, to, &bytes)
        };
        offer.options.set_address(code::SERVER_ID, Ipv4Addr::new(192, 168, 77, 9));
        assert_eq!(answering_server(&packet(&offer, SERVER_PORT)), None, "a request is no answer");
        offer.op = Op::Reply;
        assert_eq!(answering_server(&packet(&offer, SERVER_PORT)), Some(Ipv4Addr::new(192, 168, 77, 9)));
        assert_eq!(answering_server(&packet(&offer, CLIENT_PORT)), None);
    }

    #[test]
    fn a_missing_interface_is_a_problem_only_after_a_while() {
        let start = Instant::from_secs(100);
        let mut link = Link::new(start, "no-such-if");
        link.check(start);
        link.check(start + GRACE - Duration::from_millis(1));
        assert_eq!(link.problems().count(), 0);
        link.check(start + GRACE);
        let problem = link.problems().next().unwrap();
        assert!(problem.starts_with("interface no-such-if cannot be"), "{problem}");
    }
}
