//! Releases: what runs, what is on its way, what happened.

use serde::{Deserialize, Serialize};

/// Published by updated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// The version that runs.
    pub running: String,
    /// Whether its releases are signed with keys of a development machine.
    pub development: bool,
    /// The schema of what the box keeps, and which ones the release reads; for people.
    #[serde(default)]
    pub state: Option<String>,
    /// Where releases come from; nothing when the site file names no place.
    pub repository: Option<String>,
    /// The channel followed there.
    pub channel: Option<String>,
    /// Who is told what happens, if the site file names anybody.
    #[serde(default)]
    pub centre: Option<String>,
    /// Why the centre was not told the last time.
    #[serde(default)]
    pub not_told: Option<String>,
    /// What is going on, for people.
    pub phase: String,
    /// The version that is on its way, or waits.
    pub version: Option<String>,
    /// Bytes that have come, and bytes that are needed.
    pub progress: Option<(u64, u64)>,
    /// When the repository was last looked at with success, in seconds since 1970.
    pub looked_at: Option<u64>,
    /// When it looks next by itself, by the clock that starts with the kernel (`CLOCK_MONOTONIC`), in seconds: the time of day may be
    /// wrong until it has been asked for.
    #[serde(default)]
    pub looks_at_s: Option<u64>,
    /// Why the last attempt came to nothing, or what the channel says.
    pub outcome: Option<String>,
    /// What has to be done before long: metadata that expires.
    pub warnings: Vec<String>,
    /// Releases that did not work here, and why.
    pub failed: Vec<(String, String)>,
    /// What happened, newest last: seconds since 1970, and what.
    pub story: Vec<(u64, String)>,
}
