//! The `updated` applet: releases come, are written to the other slot, and have to prove themselves.
//!
//! Three kinds of process. The daemon (root, without a socket to the network) decides, checks signatures, writes slots and
//! component images. Its children `fetch` (a user without any right) speak with servers and decompress; what the box has of a
//! new release, they read from files that the daemon has opened. Whatever they bring is checked by the daemon. `trial` runs once at each boot and judges a release that has just been written; it needs nothing of
//! the other two. **Invariant:** nothing is booted whose bytes the daemon has not read back from the disk and compared
//! with a hash that is signed.

mod back;
mod child;
mod daemon;
mod download;
mod facts;
mod fetch;
mod held;
mod http;
mod images;
mod install;
mod observe;
mod places;
mod relief;
mod report;
mod request;
mod room;
mod slots;
mod store;
mod transport;
mod trial;

use std::path::Path;

pub(crate) use request::Request;
pub(crate) use store::{is_on_trial, is_trial_noted};

/// There from the moment a boot is known to be a trial: should `trial` fail then, PID 1 restarts the box.
pub(crate) const ON_TRIAL: &str = "/run/kontor/updated/on-trial";

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["trial"] => trial::run(),
        ["fetch", what, order] => fetch::run(what, Path::new(order)),
        ["install", order] => install::run(Path::new(order)),
        ["report", order] => report::run(Path::new(order)),
        _ => daemon::run(args),
    }
}
