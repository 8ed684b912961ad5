//! What of a new image must be fetched, and how it is put together: chunks, patches, the full stream, and the choice.
//!
//! An *image* is any file that a release ships whole: a slot's, a component's. A publisher offers each in up to three
//! forms, all of them plain files that a static web server hands out in ranges:
//!
//! - [`full`]: the image as one zstd stream. Always there.
//! - [`index`] and [`pack`]: the image in content-defined chunks ([`chunk`]). Whoever has some of them, from whichever old
//!   image, fetches the others.
//! - [`patch`]: the image as segments, each made with ranges of one known old image.
//!
//! [`plan`] decides between them before anything but the index is fetched, and [`assemble`] writes what comes. Everything
//! here works on bytes and on the three traits of [`io`]: no sockets, no files, no clock. What comes from outside never
//! panics and never makes the box allocate more than [`patch::MEMORY_LIMIT`]. **Nothing here vouches for an image:** the
//! caller compares the SHA-256 of the finished one with the signed manifest; digests in here only find mistakes early.

pub mod assemble;
pub mod chunk;
pub mod digest;
pub mod error;
mod frame;
pub mod full;
pub mod index;
pub mod io;
pub mod pack;
pub mod patch;
pub mod plan;
mod wire;

pub use digest::{Digest, Sha256Sum};
pub use error::Error;

/// Largest image that any form describes: four times what `system` can hold.
pub const IMAGE_LIMIT: u64 = 4 << 30;
