//! Installing a box that runs from a stick to the machine's own disk.

use serde::{Deserialize, Serialize};

/// Published by who installs, or offers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallStatus {
    /// What is going on or was done, or what is offered, for people.
    pub phase: String,
    /// Bytes done and to be done of this phase, and bytes in a second.
    pub progress: Option<Progress>,
    /// Why it does not go on.
    pub problem: Option<String>,
}

/// How far one pass over a disk has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes to be done.
    pub total: u64,
    /// Bytes in a second, on average; 0 while that is not known.
    pub rate: u64,
}
