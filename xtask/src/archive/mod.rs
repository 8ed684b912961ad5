//! The Debian archive: from a signed release file to locked, cached packages.
//!
//! Trust runs one way: key in the repository → `InRelease` → `Packages` → lock file → `.deb`. Nothing that a mirror sends
//! is read before its hash or signature was right.

pub mod cache;
mod checked;
pub mod consistency;
pub mod crates;
pub mod http;
pub mod index;
pub mod keep;
pub mod lock_file;
pub mod mirrors;
mod progress;
pub mod prune;
pub mod relation;
pub mod release;
pub mod repository;
pub mod resolver;
pub mod sets;
pub mod version;

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
