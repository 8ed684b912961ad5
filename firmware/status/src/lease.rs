//! Leases of the office network.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What dhcpd knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpStatus {
    /// Current leases, by address.
    pub leases: Vec<LeaseStatus>,
    /// Whether leases survive a power cut right now (the journal is on the state partition).
    pub durable: bool,
    /// What is wrong, for people.
    pub problems: Vec<String>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Leased address.
    pub address: Ipv4Addr,
    /// Hardware address, colon-separated.
    pub mac: String,
    /// Name in DNS (one label), if any.
    pub name: Option<String>,
    /// Network of the site file.
    pub network: String,
    /// Kind of lease.
    pub state: LeaseState,
    /// Seconds left.
    pub remaining_s: u64,
}

/// Kind of lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// From a pool.
    Dynamic,
    /// From a reservation.
    Reserved,
    /// Declined by a client: in use by somebody unknown.
    Declined,
}
