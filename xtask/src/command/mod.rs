//! The commands of `cargo xtask`, one file each.

pub mod image;
pub mod lock;
pub mod run;
pub mod site;
pub mod sizes;
pub mod test;
