//! The line to dnsd: names of dynamic leases, announced before their ACK leaves.
//!
//! JSON lines over a Unix stream socket. On connect the whole set, then one line per change with a sequence
//! number; dnsd answers `{"ack":N}` when change N resolves. When dnsd is away or slow, leases go on without
//! names, and the next connection brings them all.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use kontor_dhcp4::server::NameChange;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::{Deserialize, Serialize};

/// How long an ACK waits for its name (a batch of ACKs shares one wait).
const PATIENCE: Duration = Duration::from_millis(200);
/// Pause after dnsd did not answer in time, so that a hanging dnsd does not cost every client 200 ms.
const PAUSE_AFTER_SILENCE: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
    address: Ipv4Addr,
    network: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
enum Line<'a> {
    Snapshot {
        names: Vec<Name<'a>>,
    },
    Set {
        #[serde(flatten)]
        name: Name<'a>,
        seq: u64,
    },
    Remove {
        #[serde(flatten)]
        name: Name<'a>,
        seq: u64,
    },
}

#[derive(Deserialize)]
struct Ack {
    ack: u64,
}

/// The connection, or the wish for one.
#[derive(Debug)]
pub(super) struct NamesLink {
    path: PathBuf,
    stream: Option<BufReader<UnixStream>>,
    seq: u64,
    not_before: Option<Instant>,
    told: bool,
}

impl NamesLink {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, stream: None, seq: 0, not_before: None, told: false }
    }

    /// Whether [`NamesLink::connect`] should be called.
    pub(super) fn wants_connection(&self) -> bool {
        self.stream.is_none() && self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    /// Connects and sends all names.
    pub(super) fn connect(&mut self, names: &[NameChange]) {
        match self.open(names) {
            Ok(stream) => {
                eprintln!("connected to dnsd, {} names", names.len());
                (self.stream, self.told) = (Some(BufReader::new(stream)), false);
            }
            Err(error) if !self.told => {
                eprintln!("dnsd is not there, leases go on without names: {error:#}");
                self.told = true;
            }
            Err(_) => {}
        }
    }

    /// Drops the connection, so that the next one brings the whole set anew.
    pub(super) fn reset(&mut self) {
        self.stream = None;
    }

    /// What to poll for reading: only the end of the connection is interesting.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|stream| stream.get_ref().as_fd())
    }

    /// Takes what came in unasked: a late acknowledgement, or the end of the connection.
    pub(super) fn drain(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let waiting = stream.fill_buf().map(<[u8]>::len);
        match waiting {
            Ok(0) | Err(_) => {
                eprintln!("dnsd closed the connection");
                self.stream = None;
            }
            Ok(length) => stream.consume(length),
        }
    }

    /// Announces changes and waits until the last of them resolves, at most 200 ms.
    pub(super) fn announce(&mut self, changes: &[NameChange]) {
        if changes.is_empty() || self.stream.is_none() {
            return;
        }
        if let Err(error) = self.exchange(changes) {
            eprintln!("dnsd does not answer, leases go on without names: {error:#}");
            self.stream = None;
            self.not_before = Some(Instant::now() + PAUSE_AFTER_SILENCE);
        }
    }

    fn exchange(&mut self, changes: &[NameChange]) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let stream = self.stream.as_mut().context("not connected")?;
        let mut lines = Vec::new();
        for change in changes {
            self.seq += 1;
            let (name, seq) = (name(change), self.seq);
            let line = if change.set { Line::Set { name, seq } } else { Line::Remove { name, seq } };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        stream.get_mut().write_all(&lines)?;
        let mut text = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            anyhow::ensure!(!left.is_zero(), "no acknowledgement in time");
            stream.get_ref().set_read_timeout(Some(left))?;
            text.clear();
            anyhow::ensure!(stream.read_line(&mut text)? > 0, "connection closed");
            if serde_json::from_str::<Ack>(&text)?.ack >= self.seq {
                return Ok(());
            }
        }
    }

    fn open(&self, names: &[NameChange]) -> anyhow::Result<UnixStream> {
        // Not UnixStream::connect: it would wait for ever for a hanging dnsd with a full backlog.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(&self.path)?).context(self.path.display().to_string())?;
        let mut stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(&Line::Snapshot { names: names.iter().map(name).collect() })?;
        line.push(b'\n');
        stream.write_all(&line)?;
        Ok(stream)
    }
}

fn name(change: &NameChange) -> Name<'_> {
    Name { name: &change.name, address: change.address, network: &change.network }
}

#[cfg(test)]
mod tests;
