//! Sockets towards the upstreams: one per message, so that each leaves from its own random port.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use kontor_dns::Transport;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use super::poller::{Interest, Mark, Poller};

/// Datagrams taken from one socket in one turn: one is expected, the rest are strays.
const READS_PER_TURN: usize = 8;

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, output: Vec<u8>, input: Vec<u8> },
}

/// What a socket brought.
#[derive(Debug)]
pub(crate) enum Arrival {
    Message(Vec<u8>),
    Failed,
}

/// Open sockets by token.
#[derive(Debug)]
pub(crate) struct UpstreamSockets {
    sockets: HashMap<u64, Socket>,
    buffer: Box<[u8]>,
}

impl UpstreamSockets {
    pub(crate) fn new() -> Self {
        Self { sockets: HashMap::new(), buffer: vec![0; usize::from(u16::MAX)].into() }
    }

    /// Opens a socket and sends (or begins to send) `message`.
    pub(crate) fn ask(
        &mut self,
        poller: &Poller,
        token: u64,
        upstream: SocketAddr,
        transport: Transport,
        message: &[u8],
    ) -> io::Result<()> {
        let socket = match transport {
            Transport::Udp => {
                let socket = open_udp(upstream)?;
                socket.send(message)?;
                poller.add(&socket, Mark::Upstream(token), Interest::READ)?;
                Socket::Udp(socket)
            }
            Transport::Tcp => {
                let stream = open_tcp(upstream)?;
                poller.add(&stream, Mark::Upstream(token), Interest::BOTH)?;
                let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
                let output = [&length.to_be_bytes(), message].concat();
                Socket::Tcp { stream, output, input: Vec::new() }
            }
        };
        self.sockets.insert(token, socket);
        Ok(())
    }

    pub(crate) fn close(&mut self, token: u64) {
        self.sockets.remove(&token);
    }

    /// Takes what arrived on the socket of `token`.
    pub(crate) fn ready(&mut self, poller: &Poller, token: u64, arrivals: &mut Vec<Arrival>) {
        let result = match self.sockets.get_mut(&token) {
            Some(Socket::Udp(socket)) => read_udp(socket, &mut self.buffer, arrivals),
            Some(Socket::Tcp { stream, output, input }) => {
                let written = write_tcp(poller, token, stream, output);
                written.and_then(|()| read_tcp(stream, input, &mut self.buffer, arrivals))
            }
            None => Ok(()),
        };
        if result.is_err() {
            arrivals.push(Arrival::Failed);
        }
    }
}

fn open_udp(upstream: SocketAddr) -> io::Result<UdpSocket> {
    // Port 0: the kernel picks a free one at random from its ephemeral range.
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    // Connected: the kernel drops what others send, and reports refusal at once.
    socket.connect(upstream)?;
    Ok(socket)
}

fn open_tcp(upstream: SocketAddr) -> io::Result<TcpStream> {
    let family = if upstream.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(upstream)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(fd)),
        Err(error) => Err(error.into()),
    }
}

fn read_udp(socket: &UdpSocket, buffer: &mut [u8], arrivals: &mut Vec<Arrival>) -> io::Result<()> {
    for _ in 0..READS_PER_TURN {
        match socket.recv(buffer) {
            Ok(length) => arrivals.push(Arrival::Message(buffer[..length].to_vec())),
            Err(error) if would_block(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_tcp(poller: &Poller, token: u64, mut stream: &TcpStream, output: &mut Vec<u8>) -> io::Result<()> {
    if output.is_empty() {
        return Ok(());
    }
    match stream.write(output) {
        Ok(written) => drop(output.drain(..written)),
        // Before the handshake is over, write says the same as with a full buffer, or that it failed.
        Err(error) if would_block(&error) || error.kind() == io::ErrorKind::NotConnected => return Ok(()),
        Err(error) => return Err(error),
    }
    if output.is_empty() {
        poller.change(stream, Mark::Upstream(token), Interest::READ)?;
    }
    Ok(())
}

fn read_tcp(
    mut stream: &TcpStream,
    input: &mut Vec<u8>,
    buffer: &mut [u8],
    arrivals: &mut Vec<Arrival>,
) -> io::Result<()> {
    match stream.read(buffer) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(length) => input.extend_from_slice(&buffer[..length]),
        Err(error) if would_block(&error) || error.kind() == io::ErrorKind::NotConnected => return Ok(()),
        Err(error) => return Err(error),
    }
    // One question, one answer; the socket is closed after it.
    if let Some((length, rest)) = input.split_first_chunk::<2>()
        && let Some(message) = rest.get(..usize::from(u16::from_be_bytes(*length)))
    {
        arrivals.push(Arrival::Message(message.to_vec()));
    }
    Ok(())
}

/// Nothing now; a signal counts the same, epoll reports again.
pub(crate) fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
