//! Talking to the supervisor: the datagram protocol of sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time one message may hold its daemon up: the kernel queues ten datagrams (unix(7),
/// `max_dgram_qlen`), and a watchdog message must leave every five seconds.
const SEND_LIMIT: Duration = Duration::from_millis(500);

/// How often [`Notifier::ready`] tries, each time for [`SEND_LIMIT`].
const READY_TRIES: u32 = 20;

/// The supervisor's notification socket, or nothing when started by hand.
#[derive(Debug)]
pub struct Notifier {
    target: Option<(UnixDatagram, PathBuf)>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET`; without it every message is dropped.
    #[must_use]
    pub fn from_environment() -> Self {
        std::env::var_os("NOTIFY_SOCKET").map_or(Self { target: None }, |path| Self::to(Path::new(&path)))
    }

    fn to(path: &Path) -> Self {
        let open = || {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_write_timeout(Some(SEND_LIMIT)).ok()?;
            Some((socket, path.to_owned()))
        };
        Self { target: open() }
    }

    /// `READY=1`.
    pub fn ready(&self) {
        // Said once and never repeated, so it is worth more patience.
        let _ = (0..READY_TRIES).any(|_| self.send("READY=1"));
    }

    /// `WATCHDOG=1`: the main loop is alive. Send it at least every 5 seconds.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// `EXTEND_TIMEOUT_USEC=…`: the start may take this much longer, from now on.
    pub fn extend(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// `STATUS=…`: one line for people.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={text}"));
    }

    /// False when the supervisor's queue stayed full.
    fn send(&self, message: &str) -> bool {
        let Some((socket, path)) = &self.target else { return true };
        // The supervisor may be restarting, or busy; a lost sign of life is repeated by the next one.
        let full = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        !socket.send_to(message.as_bytes(), path).is_err_and(full)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn supervisor_that_does_not_read_holds_nobody_up_for_long() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("notify");
        let _supervisor = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(&path);
        let start = Instant::now();
        // Fills the queue of an unread socket (net.unix.max_dgram_qlen).
        let mut sent = 0;
        while start.elapsed() < SEND_LIMIT {
            notifier.watchdog();
            sent += 1;
        }
        assert!(sent > 1);
    }
}
