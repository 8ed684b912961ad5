//! Services, site, slots and storage.

use serde::{Deserialize, Serialize};

/// What PID 1 answers to `status` on its control socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitStatus {
    /// Firmware version.
    pub version: String,
    /// Board name.
    pub board: String,
    /// Seconds since kernel start.
    pub uptime_s: u64,
    /// Services, in start order.
    pub services: Vec<ServiceStatus>,
    /// The last errors, newest last (bounded).
    pub errors: Vec<String>,
}

/// One supervised service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name.
    pub name: String,
    /// State.
    pub state: ServiceState,
    /// Process id while running.
    pub pid: Option<u32>,
    /// Restarts since boot.
    pub restarts: u32,
    /// Its own words (sd_notify STATUS=), or how it ended last.
    pub detail: String,
}

/// State of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// Waits for what it is ordered after.
    Waiting,
    /// Started, not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Failed; waits for its next start.
    Backoff,
    /// Being stopped.
    Stopping,
    /// Ended and not wanted (or a one-shot that finished).
    Done,
    /// A one-shot that failed.
    Failed,
}

/// Where the site in force came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteOrigin {
    /// Built in: no site file was found.
    #[default]
    Default,
    /// The operator's site file.
    File,
    /// The last good site file, because the operator's has an error.
    LastGood,
}

/// The site in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// Where it came from.
    pub origin: SiteOrigin,
    /// Office name.
    pub office: String,
    /// Increases with every applied change.
    pub revision: u64,
    /// The rendered error report of the newest file that was refused, if any.
    pub error: Option<String>,
}

/// Slots as the boot loader left them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Slot we run from (`a` or `b`), from the kernel command line.
    pub booted: Option<String>,
    /// Whether this boot has been marked good.
    pub good: bool,
    /// Tries left of slot a and b.
    pub tries: [u8; 2],
    /// Why the boot state could not be read, if so.
    pub problem: Option<String>,
}

/// Disks and partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// Whether `state` is mounted read-write: what daemons keep is durable.
    pub state_mounted: bool,
    /// Whether `data` is mounted read-write.
    pub data_mounted: bool,
    /// Whether `system` is mounted.
    pub system_mounted: bool,
    /// The slots.
    pub slot: SlotStatus,
    /// The last factory reset, if there was one.
    pub reset: Option<ResetStatus>,
    /// What is wrong, for people.
    pub problems: Vec<String>,
}

/// A factory reset that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetStatus {
    /// When, in seconds since 1970.
    pub at: u64,
    /// Whether the `data` partition was kept.
    pub data_kept: bool,
}
