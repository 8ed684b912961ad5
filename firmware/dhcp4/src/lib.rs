//! DHCPv4 client, server and lease journal as sans-IO state machines (RFC 2131).
//!
//! No sockets, clocks, files or random device in here: time and seeds are arguments, packets are values,
//! and what has to be done comes out as values in the order in which it must be done. The daemons `netd`
//! (client) and `dhcpd` (server) hold the rest.
//!
//! - [`wire`]: bytes ↔ [`Message`], tolerant of what real clients send, never panicking.
//! - [`frame`]: the IPv4, UDP and ARP around them.
//! - [`client`]: the client machine of RFC 2131 §4.4.
//! - [`server`]: the server machine of RFC 2131 §4.3.
//! - [`lease`]: lease records and the append-only journal that makes them durable.

pub mod client;
pub mod frame;
pub mod lease;
pub mod neighbours;
pub mod server;
pub mod wire;

mod time;

pub use client::{Client, ClientConfig};

pub use server::Server;
pub use time::Instant;
pub use wire::{Message, MessageType, WireError};
