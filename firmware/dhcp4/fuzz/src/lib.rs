//! What the targets share.

use kontor_dhcp4::Message;
use kontor_dhcp4::wire::code;

/// Octets of a message in front of its first option (RFC 2131, figure 1, and the cookie).
const HEADER: usize = 240;

/// `message` as the wire would bring it with the fuzzer's octets in place of End and padding; an option that they
/// repeat is appended to ours (RFC 3396).
pub fn with_options(message: &Message, options: &[u8]) -> Option<Message> {
    let mut bytes = message.encode(1 << 16).expect("our own message");
    let end = HEADER + bytes.get(HEADER..)?.iter().rposition(|octet| *octet == code::END)?;
    bytes.truncate(end);
    bytes.extend_from_slice(options);
    Message::decode(&bytes).ok()
}
