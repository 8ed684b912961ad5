//! What a component is: a sealed root file system and a manifest that says how it runs.
//!
//! [`Manifest`] is the run-time part of `rootfs/NAME/component.toml`; the builder puts it into the image, the box reads it
//! from there. [`Shipped`] is the same with the seal of that image, as a release has it in its base. [`verity`] computes the
//! digest by which the kernel, and the release, know an image.

mod capability;
mod manifest;
mod shipped;
pub mod verity;

pub use capability::Capability;
pub use manifest::{
    Error, Kind, MANIFEST_PATH, Manifest, Meeting, OperatorCommand, Port, Protocol, Ready, SCHEMA, Service,
    StateDirectory,
};
pub use shipped::{SHIPPED_DIRECTORY, Seal, Shipped};
