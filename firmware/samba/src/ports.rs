//! The ports that Samba is told. Which ones the office may reach stands in the component's declaration alone
//! (`rootfs/samba/component.toml`).

use std::ops::RangeInclusive;

/// Port of Samba's own DNS service, UDP and TCP. Only the box's own forwarder asks there: it is opened to no zone.
pub const DNS_PORT: u16 = 5300;

/// First and last port of RPC services without one of their own, over TCP. Three are in use; the kernel may have given a few
/// to connections of the box's own, which begin in the same range.
pub const RPC_PORTS: RangeInclusive<u16> = 49152..=49159;
