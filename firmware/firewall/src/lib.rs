//! The site rendered as one nftables table, and the kernel settings that belong to it.
//!
//! Pure functions from [`Site`] (and the ports of components, [`Openings`]) to text: no clock, no files, no sockets. The whole firewall is the table
//! `inet kontor`, replaced in one transaction, so that there is never a moment without rules and open
//! connections (conntrack) survive. One ruleset serves all zones: interfaces are elements of sets and
//! verdict maps, so a new network adds elements, not rules.
//!
//! Decisions, with their reasons:
//! - Unsolicited packets from outside get nothing, not even an echo reply: the box does not answer to
//!   scans. Errors that belong to a connection (path MTU, unreachable) pass as `related`.
//! - ICMPv6 that a link cannot live without (RFC 4890, section 4.4: neighbour discovery, router
//!   advertisements, multicast listener discovery) is accepted from every zone, but only with the hop
//!   limit or source that proves it comes from the link itself.
//! - Internal sources are exact pairs of interface and network, checked before conntrack: a packet that
//!   claims to be from the office but comes from outside, or from another internal network, is dropped.
//! - The external network may itself be private (behind the provider's router), so private sources from
//!   outside are not refused as such; only our own networks, and addresses nobody may have, are.
//! - Components are reached from inside alone: their ports are sets, and there is no rule for them where there is no port.
//! - A tunnel joins two offices: from its other end the box and the internal networks are reached as from an internal
//!   network, but for DHCP; nothing goes from one tunnel into another or to the outside. What is addressed to a network
//!   behind a tunnel never leaves by another way, also when the tunnel is not there. A packet from outside that claims to
//!   be from there is refused by the strict reverse path (`rp_filter`), not here: where the provider's own network has the
//!   same numbers, its router must still be heard.
//! - From inside, what the box does not offer is refused rather than ignored, so that nobody waits.
//! - The kernel asks for the modules it needs by alias: `nf_tables nft_ct nft_chain_nat nft_masq
//!   nft_reject_inet` and what they depend on.

mod ruleset;
mod sysctl;

pub use ruleset::{Openings, TABLE, render};
pub use sysctl::sysctls;

pub(crate) use kontor_config::site::{Site, Zone};
