//! Packet sockets below IP, and the UDP socket of a DHCP server.
//!
//! A client without an address can only be reached by its hardware address, and can itself only send and
//! hear broadcast: both need AF_PACKET. The sockets are "cooked" (SOCK_DGRAM): the kernel writes and
//! removes the Ethernet header. None of them ever blocks.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::sockopt;

/// The Ethernet broadcast address.
pub const BROADCAST_MAC: [u8; 6] = [0xff; 6];

/// What a packet socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// IPv4 packets; receives only UDP to this port, filtered in the kernel, and nothing that is for another
    /// host (a promiscuous interface) or in a VLAN nobody serves.
    Udp(u16),
    /// ARP packets.
    Arp,
    /// Everything of this Ethernet type.
    Ethernet(u16),
}

impl Traffic {
    fn ether_type(self) -> u16 {
        match self {
            Self::Udp(_) => libc::ETH_P_IP as u16,
            Self::Arp => libc::ETH_P_ARP as u16,
            Self::Ethernet(ether_type) => ether_type,
        }
    }
}

/// A packet socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    index: u32,
    mac: [u8; 6],
    ether_type: u16,
}

impl PacketSocket {
    /// Opens a socket on an interface. Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// ENODEV when there is no such interface, EPERM without the capability, EINVAL when the interface has
    /// no Ethernet address.
    pub fn open(interface: &str, traffic: Traffic) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: plain system call; protocol 0 receives nothing until the socket is bound below.
        let descriptor = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        if let Traffic::Udp(port) = traffic {
            attach(&socket, &udp_filter(port))?;
        }
        bind(&socket, &link_address(index, traffic.ether_type(), None))?;
        let mac = own_mac(&socket)?;
        Ok(Self { socket, index, mac, ether_type: traffic.ether_type() })
    }

    /// Kernel index of the interface; it changes when the interface is made anew.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Hardware address of the interface when the socket was opened.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends one packet (from the IP or ARP header on) to a hardware address.
    ///
    /// # Errors
    /// The kernel's: ENETDOWN, ENXIO (interface gone), ENOBUFS, EAGAIN.
    pub fn send(&self, destination: [u8; 6], packet: &[u8]) -> io::Result<()> {
        let address = link_address(self.index, self.ether_type, Some(destination));
        // SAFETY: pointers and lengths describe `packet` and `address`, which outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next packet (from the IP or ARP header on), cut to the buffer.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; the kernel's (ENETDOWN when the interface went down or away).
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        // SAFETY: pointer and length describe `buffer`.
        let got = unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let length = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        Ok(buffer.get(..length).unwrap_or_default())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A UDP socket on `0.0.0.0:port` that speaks on one interface and hears nothing: its owner listens with
/// [`Traffic::Udp`], below the firewall. It makes the port an open one, so that the kernel does not answer
/// with ICMP errors, and drops what comes in before it is queued.
///
/// # Errors
/// ENODEV when there is no such interface, EADDRINUSE, EACCES.
pub fn bind_udp(interface: &str, port: u16) -> io::Result<UdpSocket> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain system call.
    let descriptor = check(unsafe { libc::socket(libc::AF_INET, kind, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    nix::sys::socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    nix::sys::socket::setsockopt(&socket, sockopt::Broadcast, &true)?;
    nix::sys::socket::setsockopt(&socket, sockopt::BindToDevice, &interface.into())?;
    attach(&socket, &[DROP])?;
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    nix::sys::socket::bind(socket.as_raw_fd(), &nix::sys::socket::SockaddrIn::from(any))?;
    Ok(UdpSocket::from(socket))
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn link_address(index: u32, ether_type: u16, mac: Option<[u8; 6]>) -> libc::sockaddr_ll {
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = index as i32;
    if let Some(mac) = mac {
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&mac);
    }
    address
}

fn bind(socket: &OwnedFd, address: &libc::sockaddr_ll) -> io::Result<()> {
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: pointer and length describe `address`.
    check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(address).cast(), length) }).map(drop)
}

fn own_mac(socket: &OwnedFd) -> io::Result<[u8; 6]> {
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: pointer and length describe `address`.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) })?;
    let [a, b, c, d, e, f, ..] = address.sll_addr;
    if address.sll_halen == 6 { Ok([a, b, c, d, e, f]) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Where classic BPF finds what the kernel knows of a packet besides its bytes (`SKF_AD_OFF`), and there
/// who it is for (`SKF_AD_PKTTYPE`).
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// Frames for another MAC address, and those of a VLAN without an interface.
const OTHER_HOST: u32 = libc::PACKET_OTHERHOST as u32;
const DROP: libc::sock_filter = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };

/// Classic BPF on the IP header: for us, UDP, not a later fragment, to `port`.
fn udp_filter(port: u16) -> [libc::sock_filter; 11] {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (ldb, ldh, ldx_header) = (0x30, 0x28, 0xb1);
    let (ldh_indexed, jeq, jset, ret) = (0x48, 0x15, 0x45, 0x06);
    [
        op(ldb, 0, 0, PACKET_TYPE),
        op(jeq, 8, 0, OTHER_HOST),
        op(ldb, 0, 0, 9),
        op(jeq, 0, 6, libc::IPPROTO_UDP as u32),
        op(ldh, 0, 0, 6),
        op(jset, 4, 0, 0x1fff),
        op(ldx_header, 0, 0, 0),
        op(ldh_indexed, 0, 0, 2),
        op(jeq, 0, 1, u32::from(port)),
        op(ret, 0, 0, 0xffff),
        DROP,
    ]
}

fn attach(socket: &OwnedFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points at `filter`, which outlives the call; the kernel copies and checks it.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small interpreter of the instructions used, so that the filter is tested without privileges.
    fn accepts(filter: &[libc::sock_filter], packet_type: u8, packet: &[u8]) -> bool {
        let (mut a, mut x, mut pc) = (0u32, 0usize, 0usize);
        let half = |at: usize| u32::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        loop {
            let op = &filter[pc];
            pc += 1;
            let jump = |taken: bool| usize::from(if taken { op.jt } else { op.jf });
            match op.code {
                0x30 if op.k == PACKET_TYPE => a = u32::from(packet_type),
                0x30 => a = u32::from(packet[op.k as usize]),
                0x28 => a = half(op.k as usize),
                0xb1 => x = usize::from(packet[0] & 15) * 4,
                0x48 => a = half(x + op.k as usize),
                0x15 => pc += jump(a == op.k),
                0x45 => pc += jump(a & op.k != 0),
                _ => return op.k != 0,
            }
        }
    }

    #[test]
    fn filter_takes_only_udp_to_its_port() {
        let filter = udp_filter(68);
        let mut packet = [0u8; 60];
        packet[0] = 0x46;
        packet[9] = 17;
        packet[24 + 3] = 68;
        assert!(accepts(&filter, libc::PACKET_HOST, &packet));
        assert!(accepts(&filter, libc::PACKET_BROADCAST, &packet));
        assert!(!accepts(&filter, libc::PACKET_OTHERHOST, &packet));
        packet[7] = 1;
        assert!(!accepts(&filter, libc::PACKET_HOST, &packet), "a later fragment has no UDP header");
        packet[7] = 0;
        packet[9] = 6;
        assert!(!accepts(&filter, libc::PACKET_HOST, &packet));
        packet[9] = 17;
        packet[27] = 67;
        assert!(!accepts(&filter, libc::PACKET_HOST, &packet));
    }

    #[test]
    fn missing_interface_is_an_error() {
        assert!(PacketSocket::open("no-such-if", Traffic::Arp).is_err());
        assert!(bind_udp("no-such-if", 0).is_err());
    }
}
