//! Name service.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What dnsd knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Upstream resolvers in use.
    pub upstreams: Vec<IpAddr>,
    /// Names from leases and reservations.
    pub local_names: usize,
    /// Entries in the cache.
    pub cache_entries: usize,
    /// Queries since start.
    pub queries: u64,
    /// Of these, answered from the cache.
    pub cache_hits: u64,
    /// Upstream queries that timed out.
    pub upstream_timeouts: u64,
    /// What is wrong, for people.
    pub problems: Vec<String>,
}
