//! Names of leases, announced by dhcpd over a Unix socket as JSON lines.
//!
//! On connecting, the client sends `{"op":"snapshot","names":[{"name","address","network"}…]}`, which
//! replaces everything announced before (by whichever connection). Then `{"op":"set","seq":N,"name",
//! "address","network"}` and `{"op":"remove",…}`; each is answered by `{"ack":N}` once queries see it (with
//! `"error"` when the name was not taken). Only root, dhcpd's user and our own may connect.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use kontor_dns::Zones;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::{Deserialize, Serialize};

use super::poller::{Interest, Mark, Poller};
use super::upstream::would_block;

/// User id of dhcpd (base.toml).
const DHCPD_UID: u32 = 202;
/// Connections at once; one is expected, two for a moment while dhcpd is restarted.
const MAX_CLIENTS: usize = 8;
/// Longest line: a snapshot of as many names as the zones take.
const MAX_LINE: usize = 4 << 20;

/// One announced name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Announced {
    name: String,
    address: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
enum Request {
    Snapshot {
        names: Vec<Announced>,
        seq: Option<u64>,
    },
    Set {
        #[serde(flatten)]
        name: Announced,
        seq: Option<u64>,
    },
    Remove {
        #[serde(flatten)]
        name: Announced,
        seq: Option<u64>,
    },
}

#[derive(Debug, Serialize)]
struct Ack {
    ack: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

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
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
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
            let request = serde_json::from_slice(line).map_err(|error| Some(error.to_string()))?;
            if let Some(ack) = obey(request, zones) {
                serde_json::to_writer(&mut answers, &ack).map_err(|error| Some(error.to_string()))?;
                answers.push(b'\n');
            }
        }
        // Acks are tiny; a client that lets them fill the socket's buffer is not waiting for them.
        self.stream.write_all(&answers).map_err(|error| Some(error.to_string()))
    }
}

fn obey(request: Request, zones: &mut Zones) -> Option<Ack> {
    let (seq, result) = match request {
        Request::Snapshot { names, seq } => {
            zones.clear_leases();
            let refused: Vec<&str> = names
                .iter()
                .filter(|announced| zones.set_lease(&announced.name, announced.address).is_err())
                .map(|announced| announced.name.as_str())
                .collect();
            if !refused.is_empty() {
                eprintln!("names socket: {} names of a snapshot were not taken", refused.len());
            }
            (seq, Ok(()))
        }
        Request::Set { name, seq } => (seq, zones.set_lease(&name.name, name.address)),
        Request::Remove { name, seq } => {
            zones.remove_lease(&name.name, name.address);
            (seq, Ok(()))
        }
    };
    seq.map(|ack| Ack { ack, error: result.err().map(|error| error.to_string()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expect: &Request) {
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), *expect);
    }

    #[test]
    fn lines_of_dhcpd() {
        let pc = || Announced { name: "pc1".into(), address: Ipv4Addr::new(192, 168, 77, 100) };
        check(
            r#"{"op":"set","seq":7,"name":"pc1","address":"192.168.77.100","network":"lan"}"#,
            &Request::Set { name: pc(), seq: Some(7) },
        );
        check(
            r#"{"op":"remove","seq":8,"name":"pc1","address":"192.168.77.100","network":"lan"}"#,
            &Request::Remove { name: pc(), seq: Some(8) },
        );
        check(
            r#"{"op":"snapshot","names":[{"name":"pc1","address":"192.168.77.100","network":"lan"}]}"#,
            &Request::Snapshot { names: vec![pc()], seq: None },
        );
    }
}
