//! Clients over TCP (RFC 7766): pipelined queries, answers in any order, bounded in every direction.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};

use super::poller::{Interest, Mark, Poller};
use super::upstream::would_block;

/// How long a connection may bring nothing whole (RFC 7766 §6.2.3 asks for a few seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Connections at once; at the bound the one idle longest goes.
const MAX_CONNECTIONS: usize = 256;
/// Connections of one client at once (RFC 7766 §6.2.2 lets servers limit them).
const MAX_PER_CLIENT: usize = 32;
/// Queries of one connection on their way at once; reading stops there.
const MAX_PENDING: usize = 64;
/// Answers waiting in one connection; reading stops there until the client takes them.
const MAX_OUTPUT: usize = 128 * 1024;

/// A non-blocking listener on an address that need not exist yet.
pub(crate) fn listen_on(address: SocketAddrV4) -> io::Result<TcpListener> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(address))?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(TcpListener::from(fd))
}

/// One client's connection.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    peer: SocketAddrV4,
    local: Ipv4Addr,
    input: Vec<u8>,
    output: Vec<u8>,
    pending: usize,
    interest: Interest,
    /// The client sends nothing more; what it asked is still answered.
    finished: bool,
    active_at: Instant,
}

impl Connection {
    fn is_full(&self) -> bool {
        self.pending >= MAX_PENDING || self.output.len() >= MAX_OUTPUT
    }

    /// The next whole query in the input.
    fn next_query(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.input.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let query = rest.get(..length)?.to_vec();
        self.input.drain(..2 + length);
        Some(query)
    }

    fn has_query(&self) -> bool {
        let whole =
            |(length, rest): (&[u8; 2], &[u8])| rest.len() >= usize::from(u16::from_be_bytes(*length));
        self.input.split_first_chunk::<2>().is_some_and(whole)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self.stream.read(buffer) {
            Ok(0) => self.finished = true,
            Ok(length) => self.input.extend_from_slice(&buffer[..length]),
            Err(error) if would_block(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => {
                    self.output.drain(..written);
                    self.active_at = now;
                }
                Err(error) if would_block(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.finished && self.pending == 0 && self.output.is_empty()
    }
}

/// A query from a connection.
#[derive(Debug)]
pub(crate) struct TcpQuery {
    pub(crate) connection: u64,
    pub(crate) peer: SocketAddrV4,
    pub(crate) local: Ipv4Addr,
    pub(crate) message: Vec<u8>,
}

/// What becomes of a query at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Pending,
    Dropped,
}

/// All clients' connections.
#[derive(Debug)]
pub(crate) struct Connections {
    open: HashMap<u64, Connection>,
    next: u64,
    buffer: Box<[u8]>,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self { open: HashMap::new(), next: 0, buffer: vec![0; 16 * 1024].into() }
    }

    /// Takes a new connection over, within the bounds.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        poller: &Poller,
        stream: TcpStream,
        peer: SocketAddrV4,
    ) -> io::Result<()> {
        let same_client = self.open.values().filter(|other| other.peer.ip() == peer.ip()).count();
        if same_client >= MAX_PER_CLIENT {
            return Ok(());
        }
        if self.open.len() >= MAX_CONNECTIONS {
            let idle_longest = self.open.iter().min_by_key(|(_, connection)| connection.active_at);
            let number = idle_longest.map(|(&number, _)| number);
            number.map(|number| self.open.remove(&number));
        }
        stream.set_nonblocking(true)?;
        // Answers are whole messages: waiting to fill a segment only delays them.
        stream.set_nodelay(true)?;
        let IpAddr::V4(local) = stream.local_addr()?.ip() else { return Ok(()) };
        self.next += 1;
        let interest = Interest::READ;
        poller.add(&stream, Mark::TcpClient(self.next), interest)?;
        let connection = Connection {
            stream,
            peer,
            local,
            input: Vec::new(),
            output: Vec::new(),
            pending: 0,
            interest,
            finished: false,
            active_at: now,
        };
        self.open.insert(self.next, connection);
        Ok(())
    }

    /// Reads and writes what is possible; whole queries go to `handle`, which appends an answer it has.
    pub(crate) fn ready(
        &mut self,
        now: Instant,
        poller: &Poller,
        number: u64,
        mut handle: impl FnMut(TcpQuery, &mut Vec<u8>) -> Outcome,
    ) {
        let Some(connection) = self.open.get_mut(&number) else { return };
        if connection.interest == Interest::NONE {
            // Nothing was waited for: this is a hang-up.
            self.open.remove(&number);
            return;
        }
        let mut read = Ok(());
        if !connection.is_full() && !connection.finished {
            read = connection.read(&mut self.buffer);
        }
        let served = serve(now, number, connection, &mut handle);
        self.settle(poller, number, read.and(served));
    }

    /// Adds the answer to a pending query.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        poller: &Poller,
        number: u64,
        message: &[u8],
        mut handle: impl FnMut(TcpQuery, &mut Vec<u8>) -> Outcome,
    ) {
        let Some(connection) = self.open.get_mut(&number) else { return };
        connection.pending = connection.pending.saturating_sub(1);
        push_framed(&mut connection.output, message);
        // There may be queries that waited for room.
        let result = serve(now, number, connection, &mut handle);
        self.settle(poller, number, result);
    }

    fn settle(&mut self, poller: &Poller, number: u64, result: io::Result<()>) {
        let Some(connection) = self.open.get_mut(&number) else { return };
        let read = !connection.is_full() && !connection.finished;
        let interest = Interest { read, write: !connection.output.is_empty() };
        let mut gone = result.is_err() || connection.is_done();
        if interest != connection.interest && !gone {
            connection.interest = interest;
            gone = poller.change(&connection.stream, Mark::TcpClient(number), interest).is_err();
        }
        if gone {
            self.open.remove(&number);
        }
    }

    /// Closes what has been idle too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.open.retain(|_, connection| now < connection.active_at + IDLE);
    }

    /// When [`Connections::expire`] is due.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.open.values().map(|connection| connection.active_at + IDLE).min()
    }

    /// Closes the connections to addresses that are not ours any more.
    pub(crate) fn keep_only(&mut self, served: impl Fn(Ipv4Addr) -> bool) {
        self.open.retain(|_, connection| served(*connection.peer.ip()));
    }
}

/// Answers what has arrived and writes the answers, as far as there is room for them.
fn serve(
    now: Instant,
    number: u64,
    connection: &mut Connection,
    handle: &mut impl FnMut(TcpQuery, &mut Vec<u8>) -> Outcome,
) -> io::Result<()> {
    loop {
        take_queries(now, number, connection, handle);
        connection.write(now)?;
        // Written answers make room; nothing else would bring us back to queries that have arrived already.
        if connection.is_full() || !connection.has_query() {
            return Ok(());
        }
    }
}

fn take_queries(
    now: Instant,
    number: u64,
    connection: &mut Connection,
    handle: &mut impl FnMut(TcpQuery, &mut Vec<u8>) -> Outcome,
) {
    while !connection.is_full() {
        let Some(message) = connection.next_query() else { break };
        connection.active_at = now;
        let query = TcpQuery { connection: number, peer: connection.peer, local: connection.local, message };
        let mut answer = Vec::new();
        match handle(query, &mut answer) {
            Outcome::Answered => push_framed(&mut connection.output, &answer),
            Outcome::Pending => connection.pending += 1,
            Outcome::Dropped => {}
        }
    }
}

fn push_framed(output: &mut Vec<u8>, message: &[u8]) {
    let Ok(length) = u16::try_from(message.len()) else { return };
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(message);
}
