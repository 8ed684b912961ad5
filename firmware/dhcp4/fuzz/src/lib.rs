//! What the targets share.

use kontor_dhcp4::Message;
use kontor_dhcp4::wire::{Op, code};

/// Octets of a message in front of its first option (RFC 2131, figure 1, and the cookie).
const HEADER: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// `message` as the wire would bring it with the fuzzer's octets in place of End and padding; an option that they
/// repeat is appended to ours (RFC 3396).
///
/// Written by hand: the library's encoder puts one octet after the other, which under the fuzzer's instruments takes longer
/// than all the rest of a step.
pub fn with_options(message: &Message, options: &[u8]) -> Option<Message> {
    let mut bytes = Vec::with_capacity(HEADER + 64 + options.len());
    let op = match message.op {
        Op::Request => 1,
        Op::Reply => 2,
    };
    bytes.extend([op, message.htype, message.hlen, message.hops]);
    bytes.extend(message.xid.to_be_bytes());
    bytes.extend(message.secs.to_be_bytes());
    bytes.extend([u8::from(message.broadcast) << 7, 0]);
    for address in [message.ciaddr, message.yiaddr, message.siaddr, message.giaddr] {
        bytes.extend(address.octets());
    }
    bytes.extend(message.chaddr);
    bytes.resize(HEADER - COOKIE.len(), 0);
    bytes.extend(COOKIE);
    for tag in [code::MESSAGE_TYPE]
        .into_iter()
        .chain(message.options.codes().filter(|tag| *tag != code::MESSAGE_TYPE))
    {
        let value = message.options.get(tag).filter(|value| value.len() < 256)?;
        bytes.extend([tag, value.len() as u8]);
        bytes.extend_from_slice(value);
    }
    bytes.extend_from_slice(options);
    Message::decode(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use kontor_dhcp4::wire::MessageType;

    use super::*;

    #[test]
    fn a_message_is_written_as_the_library_writes_it() {
        let mut message = Message::request(MessageType::Request, 7, [2, 0, 0, 0, 0, 1]);
        (message.broadcast, message.secs, message.giaddr) = (true, 9, [192, 168, 77, 9].into());
        message.options.set_address(code::REQUESTED_ADDRESS, [192, 168, 77, 100].into());
        assert_eq!(with_options(&message, &[]), Message::decode(&message.encode(1 << 16).unwrap()).ok());
    }
}
