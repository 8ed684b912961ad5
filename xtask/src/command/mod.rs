//! The commands of `cargo xtask`, one file each.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

pub mod bench;
pub mod flash;
pub mod image;
pub mod lock;
pub mod reproduce;
pub mod run;
pub mod sbom;
pub mod site;
pub mod sizes;
pub mod test;

/// Prints a command's result. A reader that has seen enough (`… | head`) is no error.
fn print(text: impl Display) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match write!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("printing the result"),
    }
}
