//! DHCPv4 client, server and lease journal as sans-IO state machines (RFC 2131).
//!
//! No sockets, clocks, files or random device in here: time and seeds are arguments, packets are values,
//! and what has to be done comes out as values in the order in which it must be done. The daemons `netd`
//! (client) and `dhcpd` (server) hold the rest.
//!
//! - [`wire`]: bytes ↔ [`Message`], tolerant of what real clients send, never panicking.
//! - [`client`]: the client machine of RFC 2131 §4.4.

pub mod client;
pub mod wire;

mod time;

pub use client::{Client, ClientConfig};

pub use time::Instant;
pub use wire::{Message, MessageType, WireError};
