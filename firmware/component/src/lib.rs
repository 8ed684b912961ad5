//! What a component is: a sealed root file system and a manifest that says how it runs.
//!
//! [`Manifest`] is the run-time part of `rootfs/NAME/component.toml`; the builder puts it into the image, the box reads it
//! from there. [`verity`] computes the digest by which the kernel, and the release's manifest, know an image. Decisions only:
//! nothing here opens a file.

mod capability;
mod manifest;
pub mod verity;

pub use capability::Capability;
pub use manifest::{
    Error, Kind, MANIFEST_PATH, Manifest, OperatorCommand, Port, Protocol, Ready, SCHEMA, Service,
    StateDirectory,
};
