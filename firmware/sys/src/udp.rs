//! UDP sockets of servers: batches of datagrams per system call, each with the address it came to.
//!
//! `recvmmsg` and `sendmmsg` with `IP_PKTINFO` (ip(7)): an answer leaves from the address its query was sent
//! to. IPv4 only, as the networks of schema 1 are.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

/// Bytes of one control message that carries an `in_pktinfo`, with room for alignment.
const CONTROL_LEN: usize = 64;

/// A non-blocking IPv4 server socket that reports destination addresses.
#[derive(Debug)]
pub struct ServerSocket(UdpSocket);

impl ServerSocket {
    /// Binds to `address`, which need not exist yet (`IP_FREEBIND`).
    ///
    /// # Errors
    /// The kernel's: the port is taken or privileged.
    pub fn bind(address: SocketAddrV4) -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket(2) takes no pointers; a non-negative result is a new descriptor that we own.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_INET, kind, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        set_option(&socket, libc::IPPROTO_IP, libc::IP_FREEBIND)?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        let name = to_sockaddr(address);
        // SAFETY: `name` is a valid sockaddr_in and its size is given.
        let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), NAME_LEN) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(UdpSocket::from(socket)))
    }

    /// The address bound to, with the port the kernel chose.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.0.local_addr()
    }
}

impl AsFd for ServerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const NAME_LEN: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

/// Switches an integer socket option on.
fn set_option(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option value is a C int that lives across the call, and its size is given.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn to_sockaddr(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn from_sockaddr(name: &libc::sockaddr_in) -> SocketAddrV4 {
    let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
    SocketAddrV4::new(ip, u16::from_be(name.sin_port))
}

/// Control buffer, aligned for `cmsghdr`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// A datagram as received.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Content.
    pub bytes: &'a [u8],
    /// Sender.
    pub peer: SocketAddrV4,
    /// Address it was sent to.
    pub local: Ipv4Addr,
    /// Index of the interface it came in on.
    pub interface: u32,
}

/// Buffers for receiving many datagrams with one call.
pub struct ReceiveBatch {
    buffers: Box<[u8]>,
    size: usize,
    names: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    filled: usize,
}

impl std::fmt::Debug for ReceiveBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReceiveBatch({} of {})", self.filled, self.names.len())
    }
}

impl ReceiveBatch {
    /// Room for `count` datagrams of up to `size` bytes; longer ones are dropped.
    #[must_use]
    pub fn new(count: usize, size: usize) -> Self {
        // SAFETY: all-zero is a valid value of these plain C structures (null pointers included).
        let (name, iovec, header) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            buffers: vec![0; count * size].into(),
            size,
            names: vec![name; count].into(),
            controls: vec![Control([0; CONTROL_LEN]); count].into(),
            iovecs: vec![iovec; count].into(),
            headers: vec![header; count].into(),
            filled: 0,
        }
    }

    /// Takes what is waiting, up to the batch's room; never blocks. Returns how many slots are filled.
    ///
    /// # Errors
    /// The kernel's, `WouldBlock` when nothing is waiting.
    pub fn receive(&mut self, socket: &ServerSocket) -> io::Result<usize> {
        self.filled = 0;
        self.prepare();
        let count = libc::c_uint::try_from(self.headers.len()).unwrap_or(libc::c_uint::MAX);
        let fd = socket.0.as_raw_fd();
        // SAFETY: `prepare` pointed every header at buffers owned by `self`, with their true sizes; they
        // outlive the call, and nothing else touches them meanwhile.
        let received = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.filled)
    }

    fn prepare(&mut self) {
        let buffers = self.buffers.chunks_exact_mut(self.size);
        let slots =
            self.headers.iter_mut().zip(&mut self.iovecs).zip(&mut self.names).zip(&mut self.controls);
        for ((((header, iovec), name), control), buffer) in slots.zip(buffers) {
            *iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = NAME_LEN;
            header.msg_hdr.msg_iov = &raw mut *iovec;
            header.msg_hdr.msg_iovlen = 1 as _;
            header.msg_hdr.msg_control = (&raw mut *control).cast();
            header.msg_hdr.msg_controllen = CONTROL_LEN as _;
            header.msg_hdr.msg_flags = 0;
        }
    }

    /// The datagram in slot `index`; `None` when it was too long or carries no destination.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Received<'_>> {
        if index >= self.filled {
            return None;
        }
        let header = &self.headers[index];
        if header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return None;
        }
        let start = index * self.size;
        let length = usize::try_from(header.msg_len).ok()?;
        let bytes = self.buffers.get(start..start + length)?;
        let info = packet_info(&header.msg_hdr)?;
        Some(Received {
            bytes,
            peer: from_sockaddr(&self.names[index]),
            local: Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()),
            interface: u32::try_from(info.ipi_ifindex).unwrap_or(0),
        })
    }
}

fn packet_info(header: &libc::msghdr) -> Option<libc::in_pktinfo> {
    // SAFETY: after recvmmsg the header describes control messages that the kernel wrote into our own
    // aligned buffer; CMSG_FIRSTHDR and CMSG_NXTHDR stay inside msg_controllen.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let (level, kind) = ((*message).cmsg_level, (*message).cmsg_type);
            if level == libc::IPPROTO_IP && kind == libc::IP_PKTINFO {
                return Some(std::ptr::read_unaligned(libc::CMSG_DATA(message).cast()));
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

/// Datagrams collected for sending with one call. Buffers are kept for the next batch.
#[derive(Debug, Default)]
pub struct SendBatch {
    slots: Vec<Outgoing>,
    used: usize,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    peer: SocketAddrV4,
    local: Ipv4Addr,
}

/// Most datagrams that one call sends.
const SEND_CHUNK: usize = 64;

impl SendBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of datagrams collected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing has been collected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Adds a datagram from `local` to `peer`; `write` fills its (empty) buffer and says whether to keep it.
    pub fn push(&mut self, local: Ipv4Addr, peer: SocketAddrV4, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        if self.used == self.slots.len() {
            self.slots.push(Outgoing { bytes: Vec::new(), peer, local });
        }
        let slot = &mut self.slots[self.used];
        slot.bytes.clear();
        (slot.peer, slot.local) = (peer, local);
        if write(&mut slot.bytes) {
            self.used += 1;
        }
    }

    /// Sends everything and empties the batch. What the kernel refuses is lost, as datagrams may be: a full
    /// queue drops the rest, an unreachable client only its own. Returns how many were sent.
    pub fn flush(&mut self, socket: &ServerSocket) -> usize {
        let used = std::mem::take(&mut self.used);
        let mut sent = 0;
        let mut at = 0;
        while at < used {
            let chunk = &mut self.slots[at..used.min(at + SEND_CHUNK)];
            match send_chunk(socket, chunk) {
                Ok(0) => break,
                Ok(count) => {
                    sent += count;
                    at += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => at += 1,
            }
        }
        sent
    }
}

fn send_chunk(socket: &ServerSocket, chunk: &mut [Outgoing]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid value of these plain C structures.
    let (mut names, mut iovecs, mut headers): (
        [libc::sockaddr_in; SEND_CHUNK],
        [libc::iovec; SEND_CHUNK],
        [libc::mmsghdr; SEND_CHUNK],
    ) = unsafe { (zeroed(), zeroed(), zeroed()) };
    let mut controls = [Control([0; CONTROL_LEN]); SEND_CHUNK];
    let count = chunk.len().min(SEND_CHUNK);
    for (index, outgoing) in chunk.iter_mut().take(count).enumerate() {
        names[index] = to_sockaddr(outgoing.peer);
        iovecs[index] =
            libc::iovec { iov_base: outgoing.bytes.as_mut_ptr().cast(), iov_len: outgoing.bytes.len() };
        let header = &mut headers[index].msg_hdr;
        header.msg_name = (&raw mut names[index]).cast();
        header.msg_namelen = NAME_LEN;
        header.msg_iov = &raw mut iovecs[index];
        header.msg_iovlen = 1 as _;
        header.msg_control = (&raw mut controls[index]).cast();
        write_packet_info(header, outgoing.local);
    }
    let length = libc::c_uint::try_from(count).unwrap_or(0);
    // SAFETY: the first `count` headers point at names, buffers and control messages that live on this
    // stack frame or in `chunk` until the call returns.
    let sent = unsafe {
        libc::sendmmsg(socket.0.as_raw_fd(), headers.as_mut_ptr(), length, libc::MSG_DONTWAIT as _)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes the control message that fixes the source address. `msg_control` points at a whole [`Control`].
fn write_packet_info(header: &mut libc::msghdr, local: Ipv4Addr) {
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let length = size_of::<libc::in_pktinfo>() as libc::c_uint;
    header.msg_controllen = CONTROL_LEN as _;
    // SAFETY: the control buffer is CONTROL_LEN zeroed bytes, aligned for cmsghdr, larger than
    // CMSG_SPACE(in_pktinfo); CMSG_FIRSTHDR therefore is its start and not null.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(length) as _;
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::IPPROTO_IP;
        (*message).cmsg_type = libc::IP_PKTINFO;
        (*message).cmsg_len = libc::CMSG_LEN(length) as _;
        std::ptr::write_unaligned(libc::CMSG_DATA(message).cast(), info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_readable(socket: &ServerSocket) {
        let mut fds = [nix::poll::PollFd::new(socket.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
    }

    fn server() -> (ServerSocket, u16) {
        let socket = ServerSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket, port)
    }

    #[test]
    fn answers_leave_from_the_address_asked() {
        let (server, port) = server();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for last in [2, 3] {
            client.send_to(&[last], (Ipv4Addr::new(127, 0, 0, last), port)).unwrap();
        }
        let mut batch = ReceiveBatch::new(8, 16);
        let mut out = SendBatch::new();
        let mut seen = 0;
        while seen < 2 {
            wait_readable(&server);
            let count = batch.receive(&server).unwrap();
            for datagram in (0..count).filter_map(|index| batch.get(index)) {
                assert_eq!(datagram.local.octets()[3], datagram.bytes[0]);
                out.push(datagram.local, datagram.peer, |buffer| {
                    buffer.extend_from_slice(datagram.bytes);
                    true
                });
                seen += 1;
            }
        }
        assert_eq!(out.flush(&server), 2);
        assert!(out.is_empty());
        for _ in 0..2 {
            let mut buffer = [0; 4];
            let (_, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(from, (Ipv4Addr::new(127, 0, 0, buffer[0]), port).into());
        }
    }

    #[test]
    fn long_datagrams_are_dropped_and_an_empty_queue_would_block() {
        let (server, port) = server();
        let mut batch = ReceiveBatch::new(2, 4);
        assert_eq!(batch.receive(&server).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"too long", ("127.0.0.1", port)).unwrap();
        wait_readable(&server);
        assert_eq!(batch.receive(&server).unwrap(), 1);
        assert!(batch.get(0).is_none());
    }

    #[test]
    fn an_address_need_not_exist_yet() {
        let absent = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 77), 0);
        assert!(ServerSocket::bind(absent).is_ok());
    }
}
