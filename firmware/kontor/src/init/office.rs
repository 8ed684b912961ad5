//! The office first: until it is served, what it does not need leaves it the processors.

use std::time::Duration;

/// How long the office is waited for: it may have no working LAN port.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);
/// From the LAN's configuration to the answers that everybody who waits for an address gets.
pub(crate) const GRACE: Duration = Duration::from_millis(300);
