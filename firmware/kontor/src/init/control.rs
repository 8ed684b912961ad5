//! The control socket: one line in, one answer out, for root only.
//!
//! Nothing here blocks: a client that does not read or never finishes its line is dropped after a while.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// Longest command line.
const MAX_LINE: usize = 256;
/// Open connections at most; more wait in the kernel's queue.
const MAX_CLIENTS: usize = 8;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The listening socket and its connections.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    /// The rest of the answer, once there is one.
    output: Option<Vec<u8>>,
    until: Duration,
}

impl Control {
    /// Binds `path`, replacing what is there.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        kontor_sys::file::remove(path)?;
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, clients: Vec::new() })
    }

    /// What to poll for.
    pub(super) fn interests(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let accepting = self.clients.len() < MAX_CLIENTS;
        let listener = accepting.then(|| (self.listener.as_fd(), PollFlags::POLLIN));
        let clients = self.clients.iter().map(|client| {
            let flags = if client.output.is_some() { PollFlags::POLLOUT } else { PollFlags::POLLIN };
            (client.stream.as_fd(), flags)
        });
        listener.into_iter().chain(clients).collect()
    }

    /// When a connection is given up.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.clients.iter().map(|client| client.until).min()
    }

    /// Does whatever can be done without waiting; `answer` turns a line into the reply.
    pub(super) fn advance(&mut self, now: Duration, mut answer: impl FnMut(&str) -> Vec<u8>) {
        while self.clients.len() < MAX_CLIENTS
            && let Ok((stream, _)) = self.listener.accept()
        {
            // File mode 0600 says the same; this also covers a socket whose mode was changed.
            let is_root = getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.uid() == own_user());
            if is_root && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, input: Vec::new(), output: None, until: now + PATIENCE });
            }
        }
        self.clients.retain_mut(|client| now < client.until && client.advance(&mut answer).is_ok());
    }
}

/// Root on the box; whoever runs the tests elsewhere.
fn own_user() -> u32 {
    nix::unistd::getuid().as_raw()
}

impl Client {
    /// An error ends the connection; so does the end of the answer.
    fn advance(&mut self, answer: &mut impl FnMut(&str) -> Vec<u8>) -> io::Result<()> {
        if self.output.is_none() {
            let Some(line) = self.read_line()? else { return Ok(()) };
            self.output = Some(answer(&line));
        }
        self.write_some()
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut buffer = [0; MAX_LINE];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.input.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        match self.input.iter().position(|byte| *byte == b'\n') {
            Some(end) => Ok(Some(String::from_utf8_lossy(&self.input[..end]).into_owned())),
            None if self.input.len() >= MAX_LINE => Err(io::ErrorKind::InvalidData.into()),
            None => Ok(None),
        }
    }

    fn write_some(&mut self) -> io::Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        while !output.is_empty() {
            match self.stream.write(output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => drop(output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_larger_than_the_socket_arrives_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("init/control.sock");
        let mut control = Control::bind(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"status\n").unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            client.read_to_end(&mut text).unwrap();
            text
        });
        let mut asked = Vec::new();
        while !reader.is_finished() {
            control.advance(Duration::ZERO, |line| {
                asked.push(line.to_owned());
                vec![b'x'; 3 << 20]
            });
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap().len(), 3 << 20);
        assert_eq!(asked, ["status"]);
    }

    #[test]
    fn a_silent_client_is_dropped_at_its_time_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let mut control = Control::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        control.advance(Duration::ZERO, |_| Vec::new());
        assert_eq!(control.poll_timeout(), Some(PATIENCE));
        control.advance(PATIENCE - Duration::from_nanos(1), |_| Vec::new());
        assert_eq!(control.clients.len(), 1);
        control.advance(PATIENCE, |_| Vec::new());
        assert!(control.clients.is_empty());
    }

    #[test]
    fn an_endless_line_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let mut control = Control::bind(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(&[b'x'; 2 * MAX_LINE]).unwrap();
        for _ in 0..3 {
            control.advance(Duration::ZERO, |_| panic!("no line was sent"));
        }
        assert!(control.clients.is_empty());
    }
}
