//! WireGuard tunnels as decisions: which device a site wants and the fewest changes to the kernel's ([`device`]), which
//! peers are up ([`handshake`]), and which address a peer is tried at ([`endpoint`]).
//!
//! The protocol itself is the kernel's. This crate never touches a socket, a file or the clock. Sections named "paper" are
//! those of Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel".

pub mod device;
pub mod endpoint;
pub mod handshake;

mod key;

pub use device::{Change, Desired, Device, Peer, PeerChange, plan};
pub use endpoint::Endpoints;
pub use handshake::Handshakes;
pub use key::{PrivateKey, PublicKey};
