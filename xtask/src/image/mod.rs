//! The image: from locked packages, declarations and the firmware's program to one bootable disk image.

pub mod archive;
pub mod bootstate;
pub mod budget;
pub mod cpio;
pub mod declaration;
pub mod disk;
pub mod esp;
pub mod glob;
pub mod grub;
pub mod modules;
pub mod process;
pub mod seed;
pub mod step;
pub mod tree;
