//! DNS forwarder, cache and local zones as sans-IO state machines (RFC 1035).
//!
//! [`Forwarder`] is the whole of it: queries, upstream answers and the time go in, answers and messages to
//! send come out. Below it, each with one concern: `wire` and `name` read messages without allocating,
//! `answer` checks what upstreams sent, `cache` keeps it, `zone` and `special` know the local names, `route` whom
//! to ask for the others, `response` writes answers. There is no socket, no clock and no file in this crate.

pub mod answer;
pub mod cache;
pub mod error;
pub mod forwarder;
pub mod name;
pub mod response;
pub mod wire;
pub mod zone;

mod exchange;
mod local;
mod policy;
mod route;
mod special;
mod traffic;
mod upstream;

pub use error::{AnswerError, WireError};
pub use forwarder::Forwarder;
pub use name::Name;
pub use response::Transport;
pub use route::ForwardZone;
pub use traffic::{Client, Counters, Entropy, Handled, Limits, Transmit};
pub use zone::{ZoneConfig, Zones};
