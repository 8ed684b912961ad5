//! The ports on which the office reaches Samba.

use std::ops::RangeInclusive;

use crate::SambaRole;

/// Port of Samba's own DNS service, UDP and TCP. Only the box's own forwarder asks there: it is not opened
/// to any zone, and not among [`ports`].
pub const DNS_PORT: u16 = 5300;

/// First and last port of RPC services without one of their own. Three are in use; the rest is for services
/// that a later Samba separates.
pub(crate) const RPC_PORTS: RangeInclusive<u16> = 49152..=49167;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

use Protocol::{Tcp, Udp};

/// Of a domain controller, writable or not.
const DOMAIN_CONTROLLER: &[(Protocol, RangeInclusive<u16>)] = &[
    (Tcp, 88..=88),     // Kerberos
    (Udp, 88..=88),     //
    (Tcp, 135..=135),   // RPC endpoint mapper
    (Udp, 137..=137),   // NetBIOS names
    (Udp, 138..=138),   // NetBIOS datagrams
    (Tcp, 139..=139),   // SMB over NetBIOS
    (Tcp, 389..=389),   // LDAP
    (Udp, 389..=389),   // LDAP without connection: how clients find a domain controller
    (Tcp, 445..=445),   // SMB
    (Tcp, 464..=464),   // Kerberos, change of passwords
    (Udp, 464..=464),   //
    (Tcp, 636..=636),   // LDAP over TLS
    (Tcp, 3268..=3269), // global catalogue, without and with TLS
    (Tcp, RPC_PORTS),
];

const MEMBER: &[(Protocol, RangeInclusive<u16>)] = &[
    (Tcp, 445..=445), // SMB
];

/// The ports to open to internal networks, without [`DNS_PORT`].
#[must_use]
pub fn ports(role: SambaRole) -> &'static [(Protocol, RangeInclusive<u16>)] {
    match role {
        SambaRole::Dc | SambaRole::Rodc => DOMAIN_CONTROLLER,
        SambaRole::Member => MEMBER,
    }
}
