//! Datagrams that reach a daemon and are nonsense there.

use super::Noise;

const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// DHCP requests with options that are cut, too long, repeated, overloaded or of the wrong size.
pub(super) fn dhcp_options(noise: &mut Noise) -> Vec<u8> {
    let mut message = dhcp(noise, 1);
    message.extend([53, 1, noise.pick(&[1_u8, 3, 4, 7, 8, 0, 99])]);
    for _ in 0..noise.below(12) {
        let code = noise.pick(&[12_u8, 50, 51, 52, 54, 55, 57, 60, 61, 81, 82, 90, 118, 119, 121, 0]);
        let length = noise.pick(&[0_u8, 1, 3, 4, 5, 16, 255]);
        message.extend([code, length]);
        message.extend(noise.some_bytes(usize::from(length)));
    }
    if noise.below(2) == 0 {
        message.push(255);
    }
    noise.udp(68, 67, &message)
}

/// BOOTP and DHCP headers with any operation, hardware type, address length, hops, relay and cookie.
pub(super) fn dhcp_header(noise: &mut Noise) -> Vec<u8> {
    let mut message = dhcp(noise, 1);
    message.extend([53, 1, 1, 255]);
    for _ in 0..=noise.below(4) {
        let at = noise.pick(&[0_usize, 1, 2, 3, 10, 12, 16, 20, 24, 236, 237]);
        message[at] = noise.byte();
    }
    if noise.below(3) == 0 {
        message.truncate(noise.below(300));
    }
    noise.udp(68, 67, &message)
}

/// Answers of servers nobody asked, with leases that make no sense.
pub(super) fn dhcp_reply(noise: &mut Noise) -> Vec<u8> {
    let mut message = dhcp(noise, 2);
    let mac = noise.target.mac;
    message.splice(28..34, mac);
    message.extend([53, 1, noise.pick(&[2_u8, 5, 6, 9])]);
    for code in [54_u8, 51, 1, 3, 6, 121, 26, 58, 59] {
        let length = noise.pick(&[4_u8, 4, 4, 0, 1, 7]);
        message.extend([code, length]);
        message.extend(noise.bytes(usize::from(length)));
    }
    noise.udp(67, 68, &message)
}

/// DHCPv6 messages of both directions.
pub(super) fn dhcpv6(noise: &mut Noise) -> Vec<u8> {
    let mut message = vec![noise.byte()];
    message.extend(noise.bytes(3));
    for _ in 0..noise.below(8) {
        message.extend(noise.pick(&[1_u16, 2, 3, 6, 8, 25, 39]).to_be_bytes());
        message.extend(noise.pick(&[0_u16, 2, 12, 0xffff]).to_be_bytes());
        message.extend(noise.some_bytes(20));
    }
    let ports = noise.pick(&[(546_u16, 547_u16), (547, 546)]);
    let datagram = super::udp_datagram(ports.0, ports.1, &message);
    noise.ipv6(17, 1, &datagram)
}

/// Any bytes to and from port 53.
pub(super) fn dns_garbage(noise: &mut Noise) -> Vec<u8> {
    let message = noise.some_bytes(600);
    let (from, to) = noise.pick(&[(4000_u16, 53_u16), (53, 4000), (53, 53)]);
    noise.udp(from, to, &message)
}

/// Names whose compression pointers go round, forward or beyond the end.
pub(super) fn dns_pointers(noise: &mut Noise) -> Vec<u8> {
    let mut message = dns(noise, 1);
    for _ in 0..noise.below(40) {
        message.extend(noise.pick(&[
            &[0xc0, 12][..],
            &[0xc0, 13],
            &[1, b'a'],
            &[0xff, 0xff],
            &[63],
            &[0x40, 1],
            &[0],
        ]));
    }
    message.extend([0, 0, 1, 0, 1]);
    noise.udp(4000, 53, &message)
}

/// Counts without records, records without counts, answers as questions, all opcodes.
pub(super) fn dns_counts(noise: &mut Noise) -> Vec<u8> {
    let questions = noise.pick(&[0_u16, 1, 2, 0xffff]);
    let mut message = dns(noise, questions);
    for at in [6, 8, 10] {
        let count = noise.pick(&[0_u8, 0, 1, 2, 255]);
        message[at + 1] = count;
    }
    message[2] = noise.byte();
    message.extend(b"\x03www\x07example\x00");
    message.extend(noise.pick(&[1_u16, 16, 41, 250, 251, 252, 255, 0]).to_be_bytes());
    message.extend([0, 1]);
    message.extend(noise.some_bytes(80));
    noise.udp(4000, 53, &message)
}

/// Time and tunnel packets of wrong sizes and types.
pub(super) fn ntp_and_wireguard(noise: &mut Noise) -> Vec<u8> {
    let mut message = noise.some_bytes(200);
    let kind = noise.pick(&[0xe3_u8, 0x16, 0x17, 1, 2, 3, 4]);
    if let Some(first) = message.first_mut() {
        *first = kind;
    }
    let port = noise.pick(&[123_u16, 323, 51_820, 1194, 500]);
    noise.udp(port, port, &message)
}

/// A BOOTP header with the cookie, without options. The client has no address yet.
fn dhcp(noise: &mut Noise, op: u8) -> Vec<u8> {
    let mut message = vec![op, 1, 6, 0];
    message.extend(noise.bytes(4));
    message.extend([0; 20]);
    message.extend(noise.sender_mac());
    message.extend([0; 10]);
    // The server name and boot file, where overloaded options are looked for.
    message.extend(noise.bytes(192));
    message.extend(COOKIE);
    message
}

fn dns(noise: &mut Noise, questions: u16) -> Vec<u8> {
    let mut message = noise.bytes(2);
    message.extend([1, 0]);
    message.extend(questions.to_be_bytes());
    message.extend([0; 6]);
    message
}
