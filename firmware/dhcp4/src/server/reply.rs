//! What replies say and where they go (RFC 2131 §4.1 and table 3).

use std::net::Ipv4Addr;

use crate::wire::{DEFAULT_MESSAGE_SIZE, Message, MessageType, code};

use super::{Action, Destination, NetworkConfig, Reply, Server};

/// IP and UDP headers, which option 57 includes.
const HEADERS: u16 = 28;
/// Ethernet's MTU: we send no fragments, whatever a client says it takes.
const MTU: u16 = 1500;
/// Link selection sub-option of option 82 (RFC 3527).
const LINK_SELECTION: u8 = 5;

impl Server {
    /// An OFFER or ACK of `address`.
    pub(super) fn send_lease(
        &mut self,
        index: usize,
        arrived_on: usize,
        message: &Message,
        message_type: MessageType,
        address: Ipv4Addr,
        name: Option<&str>,
    ) {
        let config = &self.networks[index].config;
        let mut reply = message.reply(message_type);
        reply.yiaddr = address;
        let lease_s = config.lease_time_s;
        reply.options.set_u32(code::LEASE_TIME, lease_s);
        reply.options.set_u32(code::RENEWAL_TIME, lease_s / 2);
        reply.options.set_u32(code::REBINDING_TIME, lease_s - lease_s / 8);
        self.add_configuration(&mut reply, config, message);
        if let Some(name) = name {
            self.add_name(&mut reply, message, name);
        }
        if message_type == MessageType::Ack {
            reply.ciaddr = message.ciaddr;
        }
        self.send(index, arrived_on, message, reply);
    }

    /// The answer to INFORM: configuration only, to the address the client has (RFC 2131 §4.3.5).
    pub(super) fn inform(&mut self, index: usize, arrived_on: usize, message: &Message) {
        let config = &self.networks[index].config;
        if !config.address.contains(&message.ciaddr) {
            return;
        }
        let mut reply = message.reply(MessageType::Ack);
        reply.ciaddr = message.ciaddr;
        self.add_configuration(&mut reply, config, message);
        self.send(index, arrived_on, message, reply);
    }

    pub(super) fn send_nak(&mut self, index: usize, arrived_on: usize, message: &Message) {
        let mut reply = message.reply(MessageType::Nak);
        // A relay must broadcast it: the client may not be where it believes it is.
        reply.broadcast = reply.broadcast || !message.giaddr.is_unspecified();
        reply.options.set(code::MESSAGE, b"address is not valid here".to_vec());
        self.send(index, arrived_on, message, reply);
    }

    fn add_configuration(&self, reply: &mut Message, config: &NetworkConfig, message: &Message) {
        let wants = Wanted(message.options.get(code::PARAMETER_REQUEST_LIST));
        let own = config.address.addr();
        // Mask and router even if not asked for: some clients forget, and no client is hurt by them.
        reply.options.set_address(code::SUBNET_MASK, config.address.netmask());
        reply.options.set_address(code::ROUTER, own);
        if wants.code(code::BROADCAST_ADDRESS) {
            reply.options.set_address(code::BROADCAST_ADDRESS, config.address.broadcast());
        }
        if wants.code(code::DOMAIN_NAME_SERVER) {
            reply.options.set_addresses(code::DOMAIN_NAME_SERVER, &config.dns_servers);
        }
        if wants.code(code::NTP_SERVERS) {
            reply.options.set_addresses(code::NTP_SERVERS, &config.ntp_servers);
        }
        if wants.code(code::DOMAIN_NAME) && !self.domain.is_empty() {
            reply.options.set(code::DOMAIN_NAME, self.domain.clone().into_bytes());
        }
    }

    /// Tells the client its name in DNS: option 81 if it sent one (RFC 4702 §4), option 12 if it asks.
    fn add_name(&self, reply: &mut Message, message: &Message, name: &str) {
        if let Some(flags) = message.options.get(code::CLIENT_FQDN).and_then(|value| value.first()) {
            let server_updates = 1;
            let overridden = if flags & 1 == 0 { 2 } else { 0 };
            let encoded = flags & 4;
            let mut value = vec![server_updates | overridden | encoded, 255, 255];
            let full = format!("{name}.{}", self.domain);
            if encoded == 0 {
                value.extend_from_slice(full.as_bytes());
            } else {
                value.extend(wire_name(&full));
            }
            reply.options.set(code::CLIENT_FQDN, value);
        }
        let asked = message.options.get(code::PARAMETER_REQUEST_LIST).unwrap_or_default();
        if asked.contains(&code::HOST_NAME) {
            reply.options.set(code::HOST_NAME, name.as_bytes().to_vec());
        }
    }

    fn send(&mut self, index: usize, arrived_on: usize, message: &Message, mut reply: Message) {
        let source = self.networks[index].config.address.addr();
        reply.options.set_address(code::SERVER_ID, source);
        // RFC 6842: a client that shares its hardware address with another must recognise its answer.
        for echoed in [code::CLIENT_ID, code::RELAY_AGENT_INFORMATION] {
            if let Some(value) = message.options.get(echoed) {
                reply.options.set(echoed, value.to_vec());
            }
        }
        let destination = destination(message, &reply);
        let limit = size_limit(message);
        self.actions.push_back(Action::Send(Reply {
            network: arrived_on,
            source,
            destination,
            message: reply,
            limit,
        }));
    }
}

/// RFC 2131 §4.1: relay, configured client, broadcast if it must be, else straight to the hardware.
fn destination(message: &Message, reply: &Message) -> Destination {
    let nak = reply.message_type() == Some(MessageType::Nak);
    if !message.giaddr.is_unspecified() {
        return Destination::Relay(message.giaddr);
    }
    if nak {
        return Destination::Broadcast;
    }
    if !message.ciaddr.is_unspecified() {
        return Destination::Address(message.ciaddr);
    }
    match reply.mac() {
        Some(mac) if !message.broadcast => Destination::Hardware { mac, address: reply.yiaddr },
        _ => Destination::Broadcast,
    }
}

/// The largest payload for this client: option 57, within what every client and every link takes.
fn size_limit(message: &Message) -> usize {
    let announced = message.options.u16(code::MAXIMUM_MESSAGE_SIZE);
    let payload = announced.map(|size| usize::from(size.min(MTU).saturating_sub(HEADERS)));
    payload.unwrap_or(0).max(DEFAULT_MESSAGE_SIZE)
}

/// The network a relay wants served (RFC 3527), if it says so.
pub(super) fn link_selection(message: &Message) -> Option<Ipv4Addr> {
    let mut rest = message.options.get(code::RELAY_AGENT_INFORMATION)?;
    while let Some((&[tag, length], after)) = rest.split_first_chunk::<2>() {
        let (value, next) = after.split_at_checked(usize::from(length))?;
        if tag == LINK_SELECTION {
            return value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
        }
        rest = next;
    }
    None
}

/// Which options a client wants: those it lists, or all when it lists none.
struct Wanted<'a>(Option<&'a [u8]>);

impl Wanted<'_> {
    fn code(&self, code: u8) -> bool {
        self.0.is_none_or(|list| list.is_empty() || list.contains(&code))
    }
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap_or(63));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}
