//! Talking to the supervisor: the datagram protocol of sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// The supervisor's notification socket, or nothing when started by hand.
#[derive(Debug)]
pub struct Notifier {
    target: Option<(UnixDatagram, PathBuf)>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET`; without it every message is dropped.
    #[must_use]
    pub fn from_environment() -> Self {
        let path = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from);
        let target = path.and_then(|path| Some((UnixDatagram::unbound().ok()?, path)));
        Self { target }
    }

    /// `READY=1`.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// `WATCHDOG=1`: the main loop is alive. Send it at least every 5 seconds.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// `STATUS=…`: one line for people.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={text}"));
    }

    fn send(&self, message: &str) {
        if let Some((socket, path)) = &self.target {
            // The supervisor may be restarting its socket; a lost message is repeated by the next one.
            let _ = socket.send_to(message.as_bytes(), path);
        }
    }
}
