//! Whatever decodes must encode and decode to the same message.
#![no_main]

use kontor_dhcp4::{Message, frame, lease};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (frame::parse_udp(bytes), frame::parse_arp(bytes), lease::replay(bytes));
    if let Ok(message) = Message::decode(bytes) {
        let again = message.encode(1 << 20).expect("what decoded can be encoded");
        assert_eq!(Message::decode(&again).expect("what we encode decodes"), message);
    }
});
