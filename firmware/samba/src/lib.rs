//! The site rendered as what Samba 4.22 needs: its files and the commands of its first start.
//!
//! Pure functions from [`Site`] and [`Samba`] to text: no clock, no files, no sockets, and no secrets;
//! passwords reach Samba's tools by other ways than their arguments. Everything that comes from the site
//! has been validated: no value has a line break, `%` (which Samba replaces) or `\` (which joins lines),
//! and names of users and groups have no quotation mark.
//!
//! Decisions, with their reasons:
//! - A box is one of three things: the first domain controller of a domain of its own, a read-only one (RODC)
//!   of the headquarters' domain, or a file server in that domain (member).
//! - Samba's own DNS service serves the realm on [`DNS_PORT`], because port 53 belongs to the office's DNS
//!   service. That one forwards the realm there (on a member: to headquarters), and Samba forwards
//!   everything else to it.
//! - Samba listens on loopback and the internal networks, on the addresses of the site file: never outside.
//! - SMB 3 is the oldest dialect: SMB 1 is broken, and SMB 2 cannot encrypt. Every supported Windows speaks
//!   it. Everything is signed, and files are encrypted wherever the client can.
//! - The lists of a share decide who may use it. Its files are open to whoever gets in, until somebody sets
//!   permissions in Windows; these are kept in `user.NTACL`, because `security.NTACL` needs `CAP_SYS_ADMIN`.
//!   Nobody but Samba reaches these files, so POSIX permissions have no say in it.
//! - Names of domain controllers in DNS are the box's business, not Samba's: on a slow machine Samba ends its own command for
//!   it before it is done.
//! - Snapshots lie beside the shares, not in them, so that no user sees, renames or searches them.

mod backup;
mod join_failure;
pub mod ldif;
mod ports;
mod records;
mod resolution;
mod reverse;
mod section;
mod setup;
mod share;
mod sites;
mod smb_conf;

pub use backup::{BACKUPS, database_of, keep_words, restore_words};
pub use join_failure::JoinFailure;
pub use ports::{DNS_PORT, RPC_PORTS};
pub use records::{CONTROLLERS_FILTER, read_only_records, update_words, without_addresses};
pub use resolution::{hosts, krb5_conf, nsswitch_conf, resolv_conf};
pub use reverse::{private_reverse_zones, reverse_zones};
pub use setup::{
    NO_COMPUTER, clock_offset_s, info_arguments, join_arguments, name_arguments, name_in_info,
    name_server_arguments, provision_arguments, time_arguments, zone_arguments,
};
pub use share::{Directory, SNAPSHOT_NAME, directories};
pub use sites::{Changes, SITES_FILTER, Sites, changes, sites_base};
pub use smb_conf::smb_conf;

pub(crate) use kontor_config::site::{Samba, SambaRole, Share, Site};

use ipnet::Ipv4Net;
use kontor_config::site::Zone;

/// Brings DNS to what it is to have of a domain controller.
const SAMBA_DNSUPDATE: &str = "/usr/sbin/samba_dnsupdate";

/// The box's own addresses in the internal networks, in file order; a validated site has at least one.
fn internal_addresses(site: &Site) -> impl Iterator<Item = Ipv4Net> {
    site.networks_in(Zone::Internal).filter_map(|network| network.static_address())
}

/// Value of `interfaces`: addresses rather than names, so that Samba and its tools need no interface list.
fn interfaces(site: &Site) -> String {
    internal_addresses(site).fold("lo".to_owned(), |list, address| format!("{list} {address}"))
}

/// The realm as Kerberos writes it.
fn realm(samba: &Samba) -> String {
    samba.realm.to_ascii_uppercase()
}

/// The box's NetBIOS name.
#[must_use]
pub fn netbios_name(site: &Site) -> String {
    site.office.host_name.to_ascii_uppercase()
}
