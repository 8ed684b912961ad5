//! How much room each share may take.
//!
//! Simple quotas of btrfs: what was written in a share counts there until the room is free again, also what only its
//! previous versions still have. Set from outside the component, whose services cannot change them.

use std::io::ErrorKind;

use anyhow::{Result, bail};
use kontor_sys::btrfs;
use nix::errno::Errno;

use super::shares;

/// Gives every share of this box's component the limit of the site file, or takes it away.
///
/// # Errors
/// When one of them failed; the others have theirs.
pub(super) fn run(component: &str) -> Result<()> {
    let (office, directory) = shares::open(component)?;
    if office.quotas.iter().any(|(_, quota)| quota.is_some()) {
        btrfs::enable_quotas(&directory)?;
    }
    let failed: Vec<String> = office
        .quotas
        .iter()
        .filter_map(|(share, quota)| {
            let set = shares::directory(&directory, share).and_then(|share| btrfs::limit(&share, *quota));
            match set {
                // No share has ever had a limit.
                Err(error) if quota.is_none() && error.raw_os_error() == Some(Errno::ENOTCONN as i32) => None,
                // Somebody has put an ordinary directory in its place, which has no limit.
                Err(error) if quota.is_none() && error.kind() == ErrorKind::InvalidInput => None,
                set => set.err().map(|error| format!("{share}: {error}")),
            }
        })
        .collect();
    match failed.as_slice() {
        [] => Ok(()),
        _ => bail!("no quota: {}", failed.join("; ")),
    }
}
