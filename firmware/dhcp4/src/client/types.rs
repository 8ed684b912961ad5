//! What goes into the client machine and what comes out.

use std::net::Ipv4Addr;

use crate::wire::Message;

use super::Lease;

/// Who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Ethernet address of the interface.
    pub mac: [u8; 6],
    /// Option 61; empty: none is sent, and the server goes by the hardware address.
    pub client_id: Vec<u8>,
    /// Option 12, if any.
    pub host_name: Option<String>,
}

impl ClientConfig {
    /// The usual identity: client identifier = hardware type and address.
    #[must_use]
    pub fn for_mac(mac: [u8; 6]) -> Self {
        let client_id = std::iter::once(1).chain(mac).collect();
        Self { mac, client_id, host_name: None }
    }
}

/// The states of RFC 2131 figure 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "RFC 2131 §4.4 defines them")]
pub enum State {
    Init,
    Selecting,
    Requesting,
    Bound,
    Renewing,
    Rebinding,
    InitReboot,
    Rebooting,
}

impl State {
    /// The state's name in RFC 2131.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Selecting => "SELECTING",
            Self::Requesting => "REQUESTING",
            Self::Bound => "BOUND",
            Self::Renewing => "RENEWING",
            Self::Rebinding => "REBINDING",
            Self::InitReboot => "INIT-REBOOT",
            Self::Rebooting => "REBOOTING",
        }
    }
}

/// A change the caller has to make real.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Use this lease from now on (new, renewed or changed); store it.
    Configured(Lease),
    /// The lease is gone (also one that was only restored); take the address away and forget what was stored.
    Deconfigured,
}

/// Where a message goes. Port 67; source port 68.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// From 0.0.0.0 (or our address, in Rebinding) to 255.255.255.255.
    Broadcast {
        /// Source address to use.
        source: Ipv4Addr,
    },
    /// To the server that gave the lease, from our own address.
    Unicast {
        /// Our address.
        source: Ipv4Addr,
        /// The server's.
        server: Ipv4Addr,
    },
}

/// One message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The message.
    pub message: Message,
    /// Where to.
    pub destination: Destination,
}
