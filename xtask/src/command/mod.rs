//! The commands of `cargo xtask`, one file each.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use camino::Utf8Path;

pub mod bench;
pub mod component;
pub mod flash;
pub mod image;
pub mod keys;
pub mod lock;
pub mod publish;
pub mod release;
pub mod reproduce;
pub mod run;
pub mod sbom;
pub mod serve;
pub mod site;
pub mod sizes;
pub mod test;

/// Fails at once when a result could not be written there at the end of the work. What is there stays as it is.
fn ensure_writable(path: &Utf8Path) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let tried = match path.exists() {
        true => OpenOptions::new().append(true).open(path).map(drop),
        false => tempfile::tempfile_in(folder).map(drop),
    };
    tried.with_context(|| format!("cannot write {path}"))
}

/// Prints a command's result. A reader that has seen enough (`… | head`) is no error.
fn print(text: impl Display) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match write!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("printing the result"),
    }
}
