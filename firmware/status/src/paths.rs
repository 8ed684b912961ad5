//! Every run-time and state path of the firmware, in one place (the table in ARCHITECTURE.md).

/// Run-time directory (tmpfs); one sub-directory per daemon, owned by that daemon's user.
pub const RUN: &str = "/run/kontor";
/// The validated site text in force; written by `kontor site`, read by every daemon at start and on SIGHUP.
pub const SITE: &str = "/run/kontor/site/site.toml";
/// The board file in the base image.
pub const BOARD: &str = "/usr/share/kontor/board.toml";
/// [`crate::SiteStatus`]; written by `kontor site`.
pub const SITE_STATUS: &str = "/run/kontor/site/status.json";
/// [`crate::StorageStatus`]; written by `kontor storage`.
pub const STORAGE_STATUS: &str = "/run/kontor/storage/status.json";
/// [`crate::NetStatus`]; written by netd.
pub const NET_STATUS: &str = "/run/kontor/netd/status.json";
/// [`crate::DhcpStatus`]; written by dhcpd.
pub const DHCP_STATUS: &str = "/run/kontor/dhcpd/status.json";
/// [`crate::DnsStatus`]; written by dnsd.
pub const DNS_STATUS: &str = "/run/kontor/dnsd/status.json";
/// Unix stream socket of dnsd on which dhcpd announces names (JSON lines, see kontor's `dnsd::names`).
pub const DNS_NAMES_SOCKET: &str = "/run/kontor/dnsd/names.sock";
/// Control socket of PID 1 (root only).
pub const INIT_SOCKET: &str = "/run/kontor/init/control.sock";

/// Mount point of the `data` partition.
pub const DATA: &str = "/data";
/// Durable state, one sub-directory per daemon, owned by that daemon's user. Absent while the disk is not
/// (yet) there: every owner must work without it and pick it up when it appears.
pub const STATE: &str = "/data/kontor";
/// The operator's site file, durable.
pub const STATE_SITE: &str = "/data/kontor/site/site.toml";
/// The last site that validated and was applied.
pub const STATE_SITE_GOOD: &str = "/data/kontor/site/good.toml";
/// Lease journal of dhcpd.
pub const STATE_LEASES: &str = "/data/kontor/dhcpd/leases.journal";
/// WAN lease of netd, for INIT-REBOOT.
pub const STATE_WAN_LEASE: &str = "/data/kontor/netd/wan-lease.json";
/// Port pins of netd (name, PCI path, MAC).
pub const STATE_PORTS: &str = "/data/kontor/netd/ports.json";
