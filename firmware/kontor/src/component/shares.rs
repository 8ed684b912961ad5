//! The directories of shares, as they are seen from outside the component: it is not trusted, and no link that it could put in a
//! directory's place is followed.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kontor_sys::btrfs;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;

use super::office::Office;
use super::service;

/// The component's directory of shares among what it keeps.
const SHARES: &str = "shares";

/// What the site file says of a component of this box, and the directory of its shares, for this process alone.
///
/// # Errors
/// When it has none, or not on btrfs.
pub(super) fn open(component: &str) -> Result<(Office, Flock<File>)> {
    let places = service::places_of(component)?;
    let shares = File::open(places.state.join(SHARES)).context("there are no shares yet")?;
    ensure!(btrfs::is_btrfs(&shares)?, "{} is not on btrfs", places.state.display());
    let shares = Flock::lock(shares, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    // Whoever waited for the others reads what holds now.
    let office = Office::of(&places)?.with_context(|| format!("the site file has no [{component}]"))?;
    Ok((office, shares))
}

/// A directory in `parent`.
///
/// # Errors
/// The kernel's; also when it is a link.
pub(super) fn directory(parent: &File, name: &str) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent.as_fd(), Path::new(name), flags, Mode::empty())?.into())
}
