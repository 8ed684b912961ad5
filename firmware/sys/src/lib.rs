//! System calls, sockets and files: the only crate with unsafe code.
//!
//! Thin, typed wrappers over what the kernel offers, one file per concern. No decisions live here.

pub mod file;
pub mod notify;
pub mod signal;
