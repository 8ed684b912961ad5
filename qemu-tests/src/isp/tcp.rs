//! Servers on TCP: the listening machinery, a web server and an echo server.

use std::net::Ipv4Addr;

use anyhow::{Result, anyhow};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, IpEndpoint};

use crate::stack::{Stack, tcp_socket};

/// What a server sends back.
#[derive(Debug)]
pub(super) struct Reply {
    /// Bytes to send.
    pub(super) bytes: Vec<u8>,
    /// Whether the connection ends then.
    pub(super) close: bool,
}

/// Several sockets that listen on one port, as smoltcp has no backlog.
#[derive(Debug)]
pub(super) struct Listeners {
    endpoint: IpEndpoint,
    sockets: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    handle: SocketHandle,
    received: Vec<u8>,
    /// What is to be sent, and how much of it the socket's buffer had room for.
    unsent: Vec<u8>,
    sent: usize,
    /// Whether the connection ends when everything is sent.
    closing: bool,
}

impl Listeners {
    pub(super) fn new(address: Ipv4Addr, port: u16, count: usize, stack: &mut Stack) -> Result<Self> {
        let endpoint = IpEndpoint::new(IpAddress::Ipv4(address), port);
        let mut sockets = Vec::new();
        for _ in 0..count {
            let handle = stack.sockets.add(tcp_socket());
            listen(stack.sockets.get_mut(handle), endpoint)?;
            sockets.push(Listener {
                handle,
                received: Vec::new(),
                unsent: Vec::new(),
                sent: 0,
                closing: false,
            });
        }
        Ok(Self { endpoint, sockets })
    }

    /// Ends every connection: the peers are told (by the next poll of the stack), or it is as if there had never been any.
    pub(super) fn cut(&mut self, stack: &mut Stack, told: bool) -> Result<()> {
        for listener in &mut self.sockets {
            let socket = stack.sockets.get_mut::<tcp::Socket>(listener.handle);
            if !socket.is_active() {
                continue;
            }
            if told {
                socket.abort();
            } else {
                *socket = tcp_socket();
                listener.reset();
                listen(socket, self.endpoint)?;
            }
        }
        Ok(())
    }

    /// Reads what came and sends what `answer` makes of it; `answer` takes from the bytes what it used and
    /// is asked again until it has nothing more to say.
    pub(super) fn serve(
        &mut self,
        stack: &mut Stack,
        mut answer: impl FnMut(IpEndpoint, &mut Vec<u8>) -> Option<Reply>,
    ) -> Result<bool> {
        let mut busy = false;
        for listener in &mut self.sockets {
            let socket = stack.sockets.get_mut::<tcp::Socket>(listener.handle);
            if !socket.is_open() {
                listener.reset();
                listen(socket, self.endpoint)?;
                busy = true;
            }
            busy |= read_all(socket, &mut listener.received);
            let Some(peer) = socket.remote_endpoint() else { continue };
            while let Some(reply) = answer(peer, &mut listener.received) {
                listener.unsent.extend(reply.bytes);
                listener.closing |= reply.close;
            }
            busy |= listener.send(socket)?;
        }
        Ok(busy)
    }
}

impl Listener {
    fn reset(&mut self) {
        self.received.clear();
        self.unsent.clear();
        self.sent = 0;
        self.closing = false;
    }

    /// Sends what fits and closes when that was all; whether anything happened.
    fn send(&mut self, socket: &mut tcp::Socket<'_>) -> Result<bool> {
        let mut busy = false;
        if !self.unsent.is_empty() && socket.can_send() {
            let sent = socket.send_slice(&self.unsent[self.sent..]).map_err(|e| anyhow!("send: {e}"))?;
            self.sent += sent;
            busy |= sent > 0;
            if self.sent == self.unsent.len() {
                self.unsent.clear();
                self.sent = 0;
            }
        }
        let peer_is_done = socket.state() == tcp::State::CloseWait;
        if self.unsent.is_empty() && socket.may_send() && (self.closing || peer_is_done) {
            socket.close();
            busy = true;
        }
        Ok(busy)
    }
}

fn listen(socket: &mut tcp::Socket<'_>, endpoint: IpEndpoint) -> Result<()> {
    socket.listen(endpoint).map_err(|e| anyhow!("listen on {endpoint}: {e}"))
}

/// Appends everything that waits; whether there was anything.
pub(crate) fn read_all(socket: &mut tcp::Socket<'_>, into: &mut Vec<u8>) -> bool {
    let before = into.len();
    while socket.can_recv() {
        let taken = socket.recv(|bytes| {
            into.extend_from_slice(bytes);
            (bytes.len(), bytes.len())
        });
        if !taken.is_ok_and(|count| count > 0) {
            break;
        }
    }
    into.len() > before
}

/// Sends back what it gets, on port 7 (RFC 862).
#[derive(Debug)]
pub struct EchoServer {
    listeners: Listeners,
}

impl EchoServer {
    pub(super) fn new(address: Ipv4Addr, stack: &mut Stack) -> Result<Self> {
        Ok(Self { listeners: Listeners::new(address, 7, 4, stack)? })
    }

    pub(super) fn serve(&mut self, stack: &mut Stack) -> Result<bool> {
        self.listeners.serve(stack, |_, received| {
            let bytes = std::mem::take(received);
            (!bytes.is_empty()).then_some(Reply { bytes, close: false })
        })
    }
}
