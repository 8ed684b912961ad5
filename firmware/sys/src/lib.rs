//! System calls, sockets and files: the only crate with unsafe code.
//!
//! Thin, typed wrappers over what the kernel offers, one file per concern. No decisions live here.

pub mod block;
pub mod btrfs;
pub mod cgroup;
pub mod child_signals;
pub mod clock;
pub mod file;
pub mod input;
pub mod interface;
pub mod notify;
pub mod notify_socket;
pub mod packet;
pub mod random;
mod seccomp;
pub mod signal;
pub mod spawn;
pub mod udp;
pub mod uevent;
pub mod verity;
pub mod watch;
pub mod watchdog;
