//! Captured bytes in, the same bytes out; and what must be tolerated or refused.

use proptest::prelude::*;

use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

fn sample() -> Message {
    let mut message = Message::request(MessageType::Discover, 0x3903_f326, MAC);
    message.options.set(code::CLIENT_ID, vec![1, 0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    message.options.set(code::PARAMETER_REQUEST_LIST, vec![1, 3, 6, 15]);
    message
}

/// The same message with this option field and these overload fields.
fn raw(options: &[u8], sname: &[u8], file: &[u8]) -> Vec<u8> {
    let mut bytes = sample().encode(DEFAULT_MESSAGE_SIZE).unwrap();
    bytes.truncate(FIXED_SIZE);
    bytes[44..44 + sname.len()].copy_from_slice(sname);
    bytes[108..108 + file.len()].copy_from_slice(file);
    bytes.extend_from_slice(options);
    bytes
}

#[test]
fn bytes_survive_a_round_trip() {
    let bytes = sample().encode(DEFAULT_MESSAGE_SIZE).unwrap();
    assert_eq!(bytes.len(), 300);
    assert_eq!(bytes[..12], [1, 1, 6, 0, 0x39, 0x03, 0xf3, 0x26, 0, 0, 0, 0]);
    assert_eq!(bytes[28..34], MAC);
    assert_eq!(bytes[236..243], [99, 130, 83, 99, 53, 1, 1]);
    let decoded = Message::decode(&bytes).unwrap();
    assert_eq!(decoded, sample());
    assert_eq!(decoded.encode(DEFAULT_MESSAGE_SIZE).unwrap(), bytes);
}

#[track_caller]
fn refused(mutate: impl FnOnce(&mut Vec<u8>), expect: WireError) {
    let mut bytes = sample().encode(DEFAULT_MESSAGE_SIZE).unwrap();
    mutate(&mut bytes);
    assert_eq!(Message::decode(&bytes), Err(expect));
}

#[test]
fn what_is_not_dhcp_is_refused() {
    refused(|b| b.truncate(239), WireError::TooShort(239));
    refused(Vec::clear, WireError::TooShort(0));
    refused(|b| b[236] = 0, WireError::NoCookie);
    refused(|b| b[2] = 17, WireError::HardwareLength(17));
    refused(|b| b[2] = 255, WireError::HardwareLength(255));
    refused(|b| b[0] = 3, WireError::Op(3));
}

#[track_caller]
fn options(bytes: &[u8], expect: &[(u8, &[u8])]) {
    let decoded = Message::decode(bytes).unwrap();
    let got: Vec<(u8, &[u8])> = decoded.options.0.iter().map(|(tag, v)| (*tag, v.as_slice())).collect();
    assert_eq!(got, expect);
}

#[test]
fn options_are_tolerated_and_put_together() {
    options(&raw(&[], &[], &[]), &[]);
    options(&raw(&[53, 1, 1], &[], &[]), &[(53, &[1])]);
    options(&raw(&[0, 0, 53, 1, 1, 0, 255, 12, 1, 65], &[], &[]), &[(53, &[1])]);
    options(&raw(&[53, 1, 1, 12, 200, 65], &[], &[]), &[(53, &[1])]);
    options(&raw(&[53, 1, 1, 12], &[], &[]), &[(53, &[1])]);
    options(&raw(&[12, 1, 65, 53, 1, 1, 12, 2, 66, 67, 255], &[], &[]), &[(12, b"ABC"), (53, &[1])]);
    options(&raw(&[52, 1, 1, 255], &[12, 1, 90, 255], &[12, 1, 65, 255]), &[(12, b"A")]);
    options(&raw(&[52, 1, 3, 255], &[12, 1, 66, 255], &[12, 1, 65, 255]), &[(12, b"AB")]);
    options(&raw(&[52, 1, 2, 52, 0, 255], &[52, 1, 3, 12, 1, 66, 255], &[12, 1, 65]), &[(12, b"B")]);
}

#[test]
fn long_options_are_split_and_joined() {
    let mut message = sample();
    message.options.set(code::CLASSLESS_ROUTES, (0..=255).cycle().take(600).collect());
    let bytes = message.encode(1400).unwrap();
    assert_eq!(Message::decode(&bytes).unwrap(), message);
}

#[test]
fn what_does_not_fit_is_left_out_but_never_option_82() {
    let mut message = sample();
    message.options.set(code::DOMAIN_NAME, vec![b'x'; 250]);
    message.options.set(code::RELAY_AGENT_INFORMATION, vec![7; 40]);
    let bytes = message.encode(320).unwrap();
    assert!(bytes.len() <= 320);
    let decoded = Message::decode(&bytes).unwrap();
    assert_eq!(decoded.options.get(code::DOMAIN_NAME), None);
    assert_eq!(decoded.options.get(code::RELAY_AGENT_INFORMATION), Some([7; 40].as_slice()));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn any_option_field_round_trips(field in proptest::collection::vec(any::<u8>(), 0..400), hlen in 0u8..=16) {
        let mut bytes = raw(&field, &[], &[]);
        bytes[2] = hlen;
        let decoded = Message::decode(&bytes).unwrap();
        let again = decoded.encode(4096).unwrap();
        prop_assert_eq!(Message::decode(&again).unwrap(), decoded);
    }
}
