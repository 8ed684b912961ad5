//! Partitions, slots, seed and first-boot growth: everything about the disk that is a decision.
//!
//! Pure functions from bytes to values and back; the builder and the box share them, so that both mean the
//! same bytes. It never opens a device: `kontor storage` and `xtask` hold the files.

pub mod filesystem;
pub mod frame;
pub mod gpt;
pub mod growth;
pub mod health;
pub mod install;
pub mod partition;
pub mod reset;
pub mod seed;
pub mod site_copy;
pub mod slots;
pub mod target;

pub use partition::{Guid, PartitionKind};
pub use slots::{BootState, Slot};
