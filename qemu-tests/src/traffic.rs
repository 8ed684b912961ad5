//! What people in the office do: wait for a lease, look up a name, fetch a page, keep a connection open.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use crate::dns::{self, Answer, Type};
use crate::isp::{Transport, read_all};
use crate::pc::Lease;
use crate::world::{PcId, World};

/// For one exchange with a box that runs by emulation on a loaded machine.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(20);
/// Between two tries of something that cannot announce itself.
const RETRY: Duration = Duration::from_millis(250);

/// A page fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Content.
    pub body: Vec<u8>,
}

/// An open TCP connection of a PC.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    pc: PcId,
    socket: SocketHandle,
}

impl World {
    /// Waits until the PC has a lease.
    ///
    /// # Errors
    /// When it gets none within `limit`.
    pub fn wait_for_lease(&mut self, pc: PcId, limit: Duration) -> Result<Lease> {
        self.wait_for("a lease", limit, |world| Ok(world.pc(pc).lease().cloned()))
    }

    /// Asks `server` for `qname`.
    ///
    /// # Errors
    /// When no answer comes, or one that is malformed or not for this question.
    pub fn ask(
        &mut self,
        pc: PcId,
        server: Ipv4Addr,
        qname: &str,
        qtype: Type,
        transport: Transport,
    ) -> Result<Answer> {
        let id = u16::try_from(qname.bytes().fold(17_u32, |id, byte| (id * 31 + u32::from(byte)) & 0xffff))?;
        let mut pending = self.pc(pc).ask(server, dns::query(id, qname, qtype), transport)?;
        let what = format!("the answer for {qname} from {server} by {transport:?}");
        let message = self.wait_for(&what, EXCHANGE_LIMIT, |world| world.pc(pc).answer(&mut pending));
        self.pc(pc).finish(&pending);
        let answer = dns::parse_answer(&message?).with_context(|| what.clone())?;
        ensure!(answer.id == id, "{what} has the id of another question");
        Ok(answer)
    }

    /// The address of `name`, from the PC's own name server by UDP.
    ///
    /// # Errors
    /// When there is no answer with exactly one address.
    pub fn resolve(&mut self, pc: PcId, name: &str) -> Result<Ipv4Addr> {
        let lease = self.pc(pc).lease().context("the PC has no lease")?;
        let server = *lease.name_servers.first().context("the PC has no name server")?;
        let answer = self.ask(pc, server, name, Type::A, Transport::Udp)?;
        answer.address().with_context(|| format!("{name} does not resolve: {answer:?}"))
    }

    /// Fetches a page.
    ///
    /// # Errors
    /// When the connection is refused or broken, or nothing comes.
    pub fn fetch(&mut self, pc: PcId, address: Ipv4Addr, path: &str) -> Result<Page> {
        let connection = self.connect(pc, address, 80)?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        self.send(connection, request.as_bytes())?;
        let mut received = Vec::new();
        let what = format!("the page {path} of {address}");
        let ended = self.wait_for(&what, EXCHANGE_LIMIT, |world| {
            let socket = world.pc(pc).tcp(connection.socket);
            read_all(socket, &mut received);
            Ok((!socket.may_recv()).then_some(()))
        });
        self.close(connection);
        ended?;
        parse_page(&received).with_context(|| what)
    }

    /// Opens a connection and waits until it stands.
    ///
    /// # Errors
    /// When it is refused or nobody answers.
    pub fn connect(&mut self, pc: PcId, address: Ipv4Addr, port: u16) -> Result<Connection> {
        let socket = self.pc(pc).connect(address, port)?;
        let what = format!("a connection to {address}:{port}");
        let opened = self.wait_for(&what, EXCHANGE_LIMIT, |world| match world.pc(pc).tcp(socket).state() {
            tcp::State::Established | tcp::State::CloseWait => Ok(Some(())),
            tcp::State::Closed => bail!("{address}:{port} refused the connection"),
            _ => Ok(None),
        });
        if let Err(error) = opened {
            self.pc(pc).hang_up(socket);
            return Err(error);
        }
        Ok(Connection { pc, socket })
    }

    /// Sends `bytes` to the echo server and waits until they are back.
    ///
    /// # Errors
    /// When the connection is broken or something else comes back.
    pub fn echo(&mut self, connection: Connection, bytes: &[u8]) -> Result<()> {
        self.send(connection, bytes)?;
        let mut received = Vec::new();
        self.wait_for("the echo", EXCHANGE_LIMIT, |world| {
            let socket = world.pc(connection.pc).tcp(connection.socket);
            read_all(socket, &mut received);
            ensure!(socket.may_recv() || received.len() >= bytes.len(), "the connection was dropped");
            Ok((received.len() >= bytes.len()).then_some(()))
        })?;
        ensure!(received == bytes, "the echo differs");
        Ok(())
    }

    /// Sends `bytes` and waits for an answer, whose length `length` tells as soon as enough of it is there.
    ///
    /// # Errors
    /// When the connection is broken before the answer is whole.
    pub fn exchange(
        &mut self,
        connection: Connection,
        bytes: &[u8],
        limit: Duration,
        length: impl Fn(&[u8]) -> Option<usize>,
    ) -> Result<Vec<u8>> {
        self.send(connection, bytes)?;
        let mut received = Vec::new();
        self.wait_for("an answer", limit, |world| {
            let socket = world.pc(connection.pc).tcp(connection.socket);
            read_all(socket, &mut received);
            let whole = length(&received).is_some_and(|length| received.len() >= length);
            ensure!(whole || socket.may_recv(), "the connection was dropped: {received:02x?}");
            Ok(whole.then_some(()))
        })?;
        Ok(received)
    }

    /// Gives a connection up at once.
    pub fn close(&mut self, connection: Connection) {
        self.pc(connection.pc).hang_up(connection.socket);
    }

    /// Pings.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn ping(&mut self, pc: PcId, address: Ipv4Addr) -> Result<()> {
        let socket = self.pc(pc).ping(address, 0x4b4f)?;
        let what = format!("the answer to a ping of {address}");
        let answered =
            self.wait_for(&what, EXCHANGE_LIMIT, |world| Ok(world.pc(pc).pinged(socket).then_some(())));
        self.pc(pc).close(socket);
        answered
    }

    /// Repeats `attempt` until it succeeds: for what becomes true without anybody being told.
    ///
    /// # Errors
    /// Its last error, after `limit`.
    pub fn eventually<T>(
        &mut self,
        limit: Duration,
        mut attempt: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let deadline = std::time::Instant::now() + limit;
        loop {
            match attempt(self) {
                Err(error) if std::time::Instant::now() >= deadline => {
                    return Err(error.context(format!("not even after {} s", limit.as_secs())));
                }
                Err(_) => self.go_on_for(RETRY)?,
                done => return done,
            }
        }
    }

    /// Appends what has come since to `received`.
    pub(crate) fn receive(&mut self, connection: Connection, received: &mut Vec<u8>) -> Result<()> {
        let socket = self.pc(connection.pc).tcp(connection.socket);
        read_all(socket, received);
        ensure!(socket.may_recv(), "the connection was dropped");
        Ok(())
    }

    pub(crate) fn send(&mut self, connection: Connection, bytes: &[u8]) -> Result<()> {
        let socket = self.pc(connection.pc).tcp(connection.socket);
        let sent = socket.send_slice(bytes).map_err(|error| anyhow::anyhow!("send: {error}"))?;
        ensure!(sent == bytes.len(), "more than a socket's buffer holds");
        Ok(())
    }
}

fn parse_page(received: &[u8]) -> Result<Page> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n").context("no end of the head")?;
    let head = String::from_utf8_lossy(&received[..end]);
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
    Ok(Page { status, body: received[end + 4..].to_vec() })
}
