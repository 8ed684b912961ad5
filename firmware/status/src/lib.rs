//! What the daemons publish about themselves, and where.
//!
//! Each daemon writes one JSON file under [`paths::RUN`], atomically, whenever it changes; `kontor ctl`,
//! the console and the other daemons read it. This crate owns the shapes and the paths, nothing else.

pub mod paths;

mod install;
mod lease;
mod name;
mod net;
mod service;
mod update;

pub use install::{InstallStatus, Progress as InstallProgress};
pub use lease::{DhcpStatus, LeaseState, LeaseStatus};
pub use name::DnsStatus;
pub use net::{LinkStatus, NetStatus, TunnelPeerStatus, TunnelStatus, WanLease, WanState};
pub use service::{
    InitStatus, ResetStatus, ServiceState, ServiceStatus, SiteOrigin, SiteStatus, SlotStatus, StorageStatus,
};
pub use update::UpdateStatus;
