//! Writing an image to a disk so that it certainly boots, or certainly does not.
//!
//! First it is found out what the target is and whether anybody uses it ([`target`], [`usage`]), and that the
//! image is one ([`source`]). Then the disk's beginning is cleared, everything behind the first mebibyte is
//! written and read back, and the first mebibyte (boot sector and partition table) comes last: an interrupted
//! flash leaves a disk that nothing takes for finished ([`write`]).

pub mod disk;
pub mod progress;
pub mod source;
pub mod target;
pub mod usage;
pub mod write;

pub use source::Source;
pub use target::Target;
