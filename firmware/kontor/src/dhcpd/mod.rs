//! The `dhcpd` applet: DHCPv4 for the internal networks (`docs/dhcp.md`).
//!
//! Owns the sockets, the clock, the lease journal and the line to dnsd; decisions are in
//! [`kontor_dhcp4::server`]. One thread polls; a second one does nothing but write the journal, so that a
//! hanging disk cannot stop the leases. Messages read in one round share one fdatasync (group commit), and
//! no answer leaves before the records and names it stands on are safe: lease = name.
//! It never answers on an external interface: it has no socket there.

use kontor_status::paths::Paths;

mod clock;
mod daemon;
mod link;
mod names;
mod settings;
mod status;
mod store;

/// Runs until SIGTERM. `--run DIR --state DIR --site FILE --board FILE` move its paths.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    daemon::Daemon::new(Paths::from_args(args))?.run()
}
