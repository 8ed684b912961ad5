//! The builder: from locked Debian packages and this workspace to one disk image.

pub mod archive;
pub mod bench;
pub mod cli;
pub mod command;
pub mod component;
pub mod deb;
pub mod flash;
pub mod image;
pub mod publish;
pub mod qemu;
pub mod reproduce;
pub mod sbom;
pub mod scratch;
pub mod tools;
pub mod workspace;
