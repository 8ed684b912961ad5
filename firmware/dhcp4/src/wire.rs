//! DHCPv4 messages: bytes in, [`Message`] out, and back (RFC 2131 §2, RFC 2132, RFC 3396).
//!
//! The fixed header is read and written by dhcproto; the options are walked here, because real clients send
//! options that dhcproto's decoder stops at, overload (option 52) and repeated long options (RFC 3396) have
//! to be put together, and `hlen` above 16 must be refused before dhcproto's `chaddr()` is called (it
//! panics). Nothing in here panics on any input.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use dhcproto::v4::{self, borrowed};
use dhcproto::{Encodable, Encoder};

/// Option codes of RFC 2132 and later, by their names there.
pub mod code {
    #![allow(missing_docs, reason = "the names are the documentation: RFC 2132 and the IANA registry")]
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DOMAIN_NAME_SERVER: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const INTERFACE_MTU: u8 = 26;
    pub const BROADCAST_ADDRESS: u8 = 28;
    pub const NTP_SERVERS: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETER_REQUEST_LIST: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAXIMUM_MESSAGE_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const CLIENT_FQDN: u8 = 81;
    pub const RELAY_AGENT_INFORMATION: u8 = 82;
    pub const CLASSLESS_ROUTES: u8 = 121;
    pub const MS_CLASSLESS_ROUTES: u8 = 249;
    pub const END: u8 = 255;
}

/// UDP port of servers and relays.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// The largest DHCP message every client must accept: 576 octets of IP less 28 of headers (RFC 2131 §2).
pub const DEFAULT_MESSAGE_SIZE: usize = 548;

const FIXED_SIZE: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const MAGIC_RANGE: std::ops::Range<usize> = 236..240;
const SNAME_RANGE: std::ops::Range<usize> = 44..108;
const FILE_RANGE: std::ops::Range<usize> = 108..236;
/// BOOTP messages have at least 300 octets (RFC 1542 §2.1); some clients and relays drop shorter ones.
const MINIMUM_SENT: usize = 300;
/// The order in which options are written: what a client looks at first, first.
const LEADING: [u8; 5] =
    [code::MESSAGE_TYPE, code::SERVER_ID, code::LEASE_TIME, code::SUBNET_MASK, code::ROUTER];

/// Why bytes are not a DHCP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// Shorter than the fixed header and the magic cookie.
    TooShort(usize),
    /// No DHCP magic cookie: plain BOOTP or something else.
    NoCookie,
    /// `hlen` above the 16 octets of `chaddr`.
    HardwareLength(u8),
    /// `op` is neither request nor reply.
    Op(u8),
    /// The message cannot be written (an address or name field is too long).
    Unwritable,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(size) => write!(f, "{size} octets are too short for a DHCP message"),
            Self::NoCookie => f.write_str("no DHCP magic cookie"),
            Self::HardwareLength(hlen) => write!(f, "hardware address length {hlen} exceeds 16"),
            Self::Op(op) => write!(f, "op {op} is neither request nor reply"),
            Self::Unwritable => f.write_str("message cannot be written"),
        }
    }
}

impl std::error::Error for WireError {}

/// Direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// From a client (BOOTREQUEST).
    Request,
    /// From a server (BOOTREPLY).
    Reply,
}

/// Option 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "RFC 2132 §9.6 defines them")]
pub enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl MessageType {
    fn from_wire(value: u8) -> Option<Self> {
        use MessageType as M;
        let all = [M::Discover, M::Offer, M::Request, M::Decline, M::Ack, M::Nak, M::Release, M::Inform];
        all.into_iter().find(|candidate| *candidate as u8 == value)
    }
}

/// One DHCP message; field names as in RFC 2131.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Direction.
    pub op: Op,
    /// Hardware type; 1 is Ethernet.
    pub htype: u8,
    /// Octets of `chaddr` in use, at most 16.
    pub hlen: u8,
    /// Relays passed.
    pub hops: u8,
    /// Transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// The client cannot receive unicast before it has its address.
    pub broadcast: bool,
    /// The client's address, when it is sure of it.
    pub ciaddr: Ipv4Addr,
    /// "Your" address.
    pub yiaddr: Ipv4Addr,
    /// Next boot server.
    pub siaddr: Ipv4Addr,
    /// Relay agent.
    pub giaddr: Ipv4Addr,
    /// Client hardware address.
    pub chaddr: [u8; 16],
    /// Everything after the cookie.
    pub options: Options,
}

impl Message {
    /// An empty message of a client with this Ethernet address.
    #[must_use]
    pub fn request(message_type: MessageType, xid: u32, mac: [u8; 6]) -> Self {
        let mut chaddr = [0; 16];
        chaddr[..6].copy_from_slice(&mac);
        let mut options = Options::default();
        options.set(code::MESSAGE_TYPE, vec![message_type as u8]);
        Self {
            op: Op::Request,
            htype: 1,
            hlen: 6,
            hops: 0,
            xid,
            secs: 0,
            broadcast: false,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr,
            options,
        }
    }

    /// An empty reply to this message, with the fields of RFC 2131 table 3 that are copied.
    #[must_use]
    pub fn reply(&self, message_type: MessageType) -> Self {
        let mut options = Options::default();
        options.set(code::MESSAGE_TYPE, vec![message_type as u8]);
        Self {
            op: Op::Reply,
            hops: 0,
            secs: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            options,
            ..self.clone()
        }
    }

    /// Option 53; without it the message is BOOTP.
    #[must_use]
    pub fn message_type(&self) -> Option<MessageType> {
        self.options.get(code::MESSAGE_TYPE).and_then(|value| MessageType::from_wire(*value.first()?))
    }

    /// The client's hardware address when it has six octets, whatever `htype` says (some clients send 6,
    /// IEEE 802, on Ethernet).
    #[must_use]
    pub fn mac(&self) -> Option<[u8; 6]> {
        let [a, b, c, d, e, f, ..] = self.chaddr;
        (self.hlen == 6).then_some([a, b, c, d, e, f])
    }

    /// Reads one UDP payload.
    ///
    /// A malformed option ends the option field it is in; what came before it counts (common clients send
    /// such messages and must be served).
    ///
    /// # Errors
    /// [`WireError`] when the fixed part is not a DHCP message's.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let header = borrowed::Message::new(bytes).map_err(|_| WireError::TooShort(bytes.len()))?;
        if bytes.get(MAGIC_RANGE) != Some(&MAGIC) {
            return Err(WireError::NoCookie);
        }
        if header.hlen() > 16 {
            return Err(WireError::HardwareLength(header.hlen()));
        }
        let op = match header.opcode() {
            v4::Opcode::BootRequest => Op::Request,
            v4::Opcode::BootReply => Op::Reply,
            v4::Opcode::Unknown(other) => return Err(WireError::Op(other)),
        };
        let mut chaddr = [0; 16];
        let used = usize::from(header.hlen());
        chaddr[..used].copy_from_slice(header.chaddr());
        Ok(Self {
            op,
            htype: header.htype().into(),
            hlen: header.hlen(),
            hops: header.hops(),
            xid: header.xid(),
            secs: header.secs(),
            broadcast: header.flags().broadcast(),
            ciaddr: header.ciaddr(),
            yiaddr: header.yiaddr(),
            siaddr: header.siaddr(),
            giaddr: header.giaddr(),
            chaddr,
            options: Options::decode(bytes),
        })
    }

    /// Writes a UDP payload of at most `limit` octets (never less than 300), padded to BOOTP's minimum.
    /// Options that no longer fit are left out, the least important first.
    ///
    /// # Errors
    /// [`WireError::Unwritable`] if dhcproto refuses the header.
    pub fn encode(&self, limit: usize) -> Result<Vec<u8>, WireError> {
        let mut header = v4::Message::default();
        let opcode = match self.op {
            Op::Request => v4::Opcode::BootRequest,
            Op::Reply => v4::Opcode::BootReply,
        };
        let flags = if self.broadcast { v4::Flags::default().set_broadcast() } else { v4::Flags::default() };
        let used = usize::from(self.hlen.min(16));
        header
            .set_opcode(opcode)
            .set_htype(self.htype.into())
            .set_hops(self.hops)
            .set_xid(self.xid)
            .set_secs(self.secs)
            .set_flags(flags)
            .set_ciaddr(self.ciaddr)
            .set_yiaddr(self.yiaddr)
            .set_siaddr(self.siaddr)
            .set_giaddr(self.giaddr)
            .set_chaddr(self.chaddr.get(..used).unwrap_or_default());
        let mut bytes = Vec::with_capacity(DEFAULT_MESSAGE_SIZE);
        header.encode(&mut Encoder::new(&mut bytes)).map_err(|_| WireError::Unwritable)?;
        // dhcproto writes no End for an empty option set; make sure of it.
        bytes.truncate(FIXED_SIZE);
        self.options.encode(&mut bytes, limit.max(MINIMUM_SENT));
        bytes.resize(bytes.len().max(MINIMUM_SENT), code::PAD);
        Ok(bytes)
    }
}

/// Options by code, long and repeated ones already put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    /// The raw value.
    #[must_use]
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    /// Sets or replaces a value.
    pub fn set(&mut self, code: u8, value: Vec<u8>) {
        self.0.insert(code, value);
    }

    /// Removes a value.
    pub fn remove(&mut self, code: u8) {
        self.0.remove(&code);
    }

    /// All codes present, ascending.
    pub fn codes(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.keys().copied()
    }

    /// One IPv4 address: the first four octets, so that a repeated option still means something.
    #[must_use]
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.get(code)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
    }

    /// A list of IPv4 addresses; an incomplete last one is dropped.
    #[must_use]
    pub fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let value = self.get(code).unwrap_or_default();
        value.chunks_exact(4).filter_map(|c| c.first_chunk::<4>()).map(|c| Ipv4Addr::from(*c)).collect()
    }

    /// A 32-bit number.
    #[must_use]
    pub fn u32(&self, code: u8) -> Option<u32> {
        self.get(code)?.first_chunk::<4>().map(|octets| u32::from_be_bytes(*octets))
    }

    /// A 16-bit number.
    #[must_use]
    pub fn u16(&self, code: u8) -> Option<u16> {
        self.get(code)?.first_chunk::<2>().map(|octets| u16::from_be_bytes(*octets))
    }

    /// Text without the trailing NULs some senders add; anything but printable ASCII is dropped.
    #[must_use]
    pub fn text(&self, code: u8) -> Option<String> {
        let text: String =
            self.get(code)?.iter().filter(|b| b.is_ascii_graphic()).map(|b| char::from(*b)).collect();
        (!text.is_empty()).then_some(text)
    }

    /// Sets one address.
    pub fn set_address(&mut self, code: u8, address: Ipv4Addr) {
        self.set(code, address.octets().to_vec());
    }

    /// Sets a list of addresses; an empty list sets nothing.
    pub fn set_addresses(&mut self, code: u8, addresses: &[Ipv4Addr]) {
        if !addresses.is_empty() {
            self.set(code, addresses.iter().flat_map(Ipv4Addr::octets).collect());
        }
    }

    /// Sets a 32-bit number.
    pub fn set_u32(&mut self, code: u8, value: u32) {
        self.set(code, value.to_be_bytes().to_vec());
    }

    fn decode(message: &[u8]) -> Self {
        let mut options = Self::default();
        options.append(message.get(FIXED_SIZE..).unwrap_or_default());
        // Option overload, RFC 2132 §9.3; RFC 3396 §5 puts `file` before `sname`.
        let overload = options.get(code::OVERLOAD).and_then(|value| value.first().copied()).unwrap_or(0);
        options.remove(code::OVERLOAD);
        if overload & 1 != 0 {
            options.append(message.get(FILE_RANGE).unwrap_or_default());
        }
        if overload & 2 != 0 {
            options.append(message.get(SNAME_RANGE).unwrap_or_default());
        }
        options.remove(code::OVERLOAD);
        options
    }

    /// Reads one option field; stops at End, at its end, or at the first option that overruns it.
    fn append(&mut self, mut field: &[u8]) {
        while let Some((&tag, rest)) = field.split_first() {
            if tag == code::PAD {
                field = rest;
                continue;
            }
            if tag == code::END {
                return;
            }
            let Some((&length, rest)) = rest.split_first() else { return };
            let Some((value, rest)) = rest.split_at_checked(usize::from(length)) else { return };
            self.0.entry(tag).or_default().extend_from_slice(value);
            field = rest;
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>, limit: usize) {
        // RFC 3046 §2.2 wants option 82 last, and it must not be lost: keep room for it and for End.
        let relay = self.get(code::RELAY_AGENT_INFORMATION);
        let room = limit.saturating_sub(1 + relay.map_or(0, |value| encoded_size(value.len())));
        let special = |tag: &u8| LEADING.contains(tag) || *tag == code::RELAY_AGENT_INFORMATION;
        let order = LEADING.into_iter().chain(self.codes().filter(|tag| !special(tag)));
        for tag in order {
            let Some(value) = self.get(tag) else { continue };
            if bytes.len() + encoded_size(value.len()) <= room {
                encode_option(bytes, tag, value);
            }
        }
        if let Some(value) = relay {
            encode_option(bytes, code::RELAY_AGENT_INFORMATION, value);
        }
        bytes.push(code::END);
    }
}

fn encoded_size(length: usize) -> usize {
    length + 2 * length.div_ceil(255).max(1)
}

/// Writes one option, split as RFC 3396 prescribes when it is longer than 255 octets.
fn encode_option(bytes: &mut Vec<u8>, tag: u8, value: &[u8]) {
    if value.is_empty() {
        bytes.extend_from_slice(&[tag, 0]);
    }
    for chunk in value.chunks(255) {
        let length = u8::try_from(chunk.len()).unwrap_or(u8::MAX);
        bytes.extend_from_slice(&[tag, length]);
        bytes.extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests;
