//! What goes into a forwarder and comes out of it, and its bounds.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::answer::TtlLimits;
use crate::response::Transport;

/// Bounds of the forwarder.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the cache.
    pub cache_bytes: usize,
    /// Questions on their way at once; each has a socket or more.
    pub in_flight: usize,
    /// Queries of one client that wait at once: one PC gone wild must not use up all of `in_flight`.
    pub per_client: usize,
    /// Lifetimes of answers.
    pub ttl: TtlLimits,
    /// Whether the case of names is randomised towards upstreams (0x20). Off: some servers do not keep it.
    pub mixed_case: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            in_flight: 1_024,
            per_client: 128,
            ttl: TtlLimits::default(),
            mixed_case: false,
        }
    }
}

/// Who asks, and how the answer gets back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Address and port of the client.
    pub peer: SocketAddr,
    /// Address the query came to; the answer leaves from it.
    pub local: IpAddr,
    /// Transport of the query.
    pub transport: Transport,
    /// The caller's own mark: listener or connection.
    pub route: u64,
}

/// What became of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// The answer is in the buffer.
    Answered,
    /// The answer comes from [`Forwarder::poll_transmit`] later.
    Pending,
    /// There will be no answer.
    Dropped,
}

/// What the caller must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// Open a socket for `token`, send `message` to `upstream` from a random port.
    Ask {
        /// Names the socket in later calls.
        token: u64,
        /// Where to.
        upstream: SocketAddr,
        /// How; over TCP the caller adds the length.
        transport: Transport,
        /// The message.
        message: Vec<u8>,
    },
    /// Close the socket of `token`; nothing from it is wanted any more.
    Close {
        /// Which.
        token: u64,
    },
    /// Send `message` to a client.
    Answer {
        /// To whom.
        client: Client,
        /// The message.
        message: Vec<u8>,
    },
}

/// Counters since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Queries.
    pub queries: u64,
    /// Of these, answered from the local zones.
    pub local: u64,
    /// Of these, answered from the cache.
    pub cache_hits: u64,
    /// Messages to upstreams that nobody answered in time.
    pub upstream_timeouts: u64,
    /// Queries dropped or refused because of a bound.
    pub shed: u64,
}

/// Source of unpredictable numbers.
pub struct Entropy(Box<dyn FnMut() -> u64 + Send>);

impl Entropy {
    /// From a function that never repeats itself predictably (a seeded one in tests).
    pub fn new(source: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self(Box::new(source))
    }

    pub(crate) fn next(&mut self) -> u64 {
        (self.0)()
    }

    pub(crate) fn id(&mut self) -> u16 {
        let octets = self.next().to_be_bytes();
        u16::from_be_bytes([octets[0], octets[1]])
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}
