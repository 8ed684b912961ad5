//! How much a repository may send.
//!
//! Our metadata has some KiB; the limits leave room for years of releases and keep a hostile server from filling a small box.

/// Upper limits. [`Limits::default`] is what boxes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of each root, timestamp and snapshot.
    pub metadata_bytes: u64,
    /// Of the list of targets: 1 MiB is three thousand releases.
    pub targets_bytes: u64,
    /// Of a target.
    pub target_bytes: u64,
    /// New roots at once; one a year would be many.
    pub root_updates: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { metadata_bytes: 256 << 10, targets_bytes: 1 << 20, target_bytes: 1 << 20, root_updates: 64 }
    }
}

impl From<Limits> for tough::Limits {
    fn from(limits: Limits) -> Self {
        Self {
            max_root_size: limits.metadata_bytes,
            max_targets_size: limits.targets_bytes,
            max_timestamp_size: limits.metadata_bytes,
            max_snapshot_size: limits.metadata_bytes,
            max_root_updates: limits.root_updates,
        }
    }
}
