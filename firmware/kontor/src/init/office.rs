//! The office first: what it does not need waits until it is served, which has the processors for itself.

use std::time::Duration;

/// How long the office is waited for: it may have no working LAN port.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);
/// From the LAN's configuration to the answers that everybody who waits for an address gets.
pub(crate) const GRACE: Duration = Duration::from_millis(300);
