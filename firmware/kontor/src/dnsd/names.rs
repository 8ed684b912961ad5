//! Names of leases, announced by dhcpd over a Unix socket as JSON lines.
//!
//! The lines are those of `announce`; each is answered once queries see what it says. Only root, dhcpd's user and
//! our own may connect.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use kontor_dns::Zones;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::announce;
use super::poller::{Interest, Mark, Poller};
use super::upstream::would_block;

/// User id of dhcpd (base.toml).
const DHCPD_UID: u32 = 202;
/// Connections at once; one is expected, two for a moment while dhcpd is restarted.
const MAX_CLIENTS: usize = 8;
/// Longest line: a snapshot of as many names as the zones take.
const MAX_LINE: usize = 4 << 20;

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
}

/// The socket and its clients.
#[derive(Debug)]
pub(crate) struct NamesSocket {
    listener: UnixListener,
    clients: HashMap<u64, Client>,
    next: u64,
}

impl NamesSocket {
    /// Listens at `path`; a socket left behind there by an earlier run is replaced.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        kontor_sys::file::remove(path)?;
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        // Who may speak is decided by the peer's user id, see `is_allowed`.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { listener, clients: HashMap::new(), next: 0 })
    }

    /// Takes new connections.
    pub(crate) fn accept(&mut self, poller: &Poller) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if would_block(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            if !is_allowed(&stream) {
                eprintln!("names socket: a user that may not announce names was turned away");
                continue;
            }
            if self.clients.len() >= MAX_CLIENTS {
                let oldest = self.clients.keys().min().copied();
                oldest.map(|oldest| self.clients.remove(&oldest));
            }
            stream.set_nonblocking(true)?;
            self.next += 1;
            poller.add(&stream, Mark::NamesClient(self.next), Interest::READ)?;
            self.clients.insert(self.next, Client { stream, input: Vec::new() });
        }
    }

    /// Takes what a client announced into `zones` and acknowledges it.
    pub(crate) fn ready(&mut self, number: u64, zones: &mut Zones) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if let Err(problem) = client.serve(zones) {
            if let Some(problem) = problem {
                eprintln!("names socket: {problem}");
            }
            self.clients.remove(&number);
        }
    }
}

impl AsFd for NamesSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn is_allowed(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let peer = getsockopt(stream, PeerCredentials).map(|credentials| credentials.uid());
    peer.is_ok_and(|uid| uid == 0 || uid == DHCPD_UID || uid == own)
}

impl Client {
    /// Reads and obeys; the error is why the connection ends, `None` when the client closed it.
    fn serve(&mut self, zones: &mut Zones) -> Result<(), Option<String>> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(None),
            Ok(length) => self.input.extend_from_slice(&buffer[..length]),
            Err(error) if would_block(&error) => return Ok(()),
            Err(error) => return Err(Some(error.to_string())),
        }
        let Some(end) = self.input.iter().rposition(|&byte| byte == b'\n') else {
            return if self.input.len() > MAX_LINE { Err(Some("a line is too long".into())) } else { Ok(()) };
        };
        let rest = self.input.split_off(end + 1);
        let lines = std::mem::replace(&mut self.input, rest);
        let mut answers = Vec::new();
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let ack = announce::obey(line, zones).map_err(|error| Some(error.to_string()))?;
            answers.extend(ack.into_iter().flatten());
        }
        // Acks are tiny; a client that lets them fill the socket's buffer is not waiting for them.
        self.stream.write_all(&answers).map_err(|error| Some(error.to_string()))
    }
}
