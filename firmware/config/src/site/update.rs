//! Where releases come from, and when they are installed.

use crate::window::Window;

/// `[update]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The repository, `http://` or `https://`, without a slash at its end.
    pub url: String,
    /// Where the box tells what it does, if anywhere.
    pub centre: Option<String>,
    /// The channel that is followed.
    pub channel: String,
    /// What is done without being asked.
    pub policy: UpdatePolicy,
    /// When the box may restart by itself.
    pub window: Window,
    /// Most that a download takes of the line.
    pub rate_limit_kbit_s: Option<u32>,
}

/// What is done without being asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpdatePolicy {
    /// Releases of the same major version are fetched, and installed in the maintenance window.
    #[default]
    Automatic,
    /// They are fetched; an operator installs them.
    Download,
    /// Nothing but looking.
    Manual,
}
