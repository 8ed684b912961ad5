//! The office first: what it does not need waits here until it is served, and it has the processors for itself.

use std::time::Duration;

use kontor_status::paths::Paths;
use kontor_sys::watch::FileWatch;

/// How long the office is waited for: it may have no working LAN port.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);
/// From the LAN's configuration to the answers that everybody who waits for an address gets.
pub(crate) const GRACE: Duration = Duration::from_millis(300);

/// Waits until netd has reported the LAN, at the longest for [`LIMIT`].
pub(crate) fn wait(paths: &Paths) {
    let report = FileWatch::new(&paths.net_status()).and_then(|watch| watch.wait_for_file(LIMIT));
    if let Err(error) = report {
        eprintln!("not waiting for the office: {error}");
    }
}
