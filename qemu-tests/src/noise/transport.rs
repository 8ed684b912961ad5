//! Frames whose IP header is right and whose transport is not.

use super::{Noise, checksum, ipv4_packet, udp_datagram};

/// Fragments that overlap, repeat, end early, reach beyond 64 KiB or never become whole.
pub(super) fn fragment(noise: &mut Noise) -> Vec<u8> {
    // Few ids, so that fragments of different frames meet.
    let id = u16::try_from(noise.below(8)).unwrap_or(0);
    let offset = noise.pick(&[0_u16, 1, 2, 3, 8, 64, 0x1fff]);
    let more = noise.pick(&[0_u16, 0x2000, 0x2000, 0x2000]);
    let port = noise.pick(&[53_u16, 67, 68, 123]);
    let payload = match offset {
        0 => udp_datagram(4000, port, &noise.some_bytes(64)),
        _ => noise.some_bytes(80),
    };
    let protocol = noise.pick(&[17_u8, 17, 6, 1]);
    let (from, to) = (noise.sender(), noise.target.address);
    let packet = ipv4_packet(from, to, id, offset | more, protocol, &payload);
    noise.ethernet(0x0800, &packet)
}

/// UDP lengths and checksums that are wrong, to ports where somebody listens.
pub(super) fn udp_lengths(noise: &mut Noise) -> Vec<u8> {
    let port = noise.pick(&[53_u16, 67, 68, 123, 500, 4500, 5353]);
    let payload = noise.some_bytes(300);
    let mut datagram = udp_datagram(noise.word(), port, &payload);
    match noise.below(4) {
        0 => datagram[4..6].copy_from_slice(&noise.word().to_be_bytes()),
        1 => datagram[6..8].copy_from_slice(&noise.word().to_be_bytes()),
        2 => datagram.truncate(noise.below(8)),
        _ => datagram[4..6].copy_from_slice(&[0, 7]),
    }
    noise.ipv4(17, &datagram)
}

/// Any flags, offsets and options.
pub(super) fn tcp(noise: &mut Noise) -> Vec<u8> {
    let mut segment = noise.word().to_be_bytes().to_vec();
    segment.extend(noise.pick(&[53_u16, 22, 80, 443, 0]).to_be_bytes());
    segment.extend(noise.bytes(8));
    segment.push(noise.pick(&[0x50_u8, 0x00, 0xf0, 0x80]));
    segment.push(noise.byte());
    segment.extend(noise.bytes(6));
    segment.extend(noise.some_bytes(80));
    if noise.below(8) == 0 {
        segment.truncate(noise.below(20));
    }
    noise.ipv4(6, &segment)
}

/// Errors about packets nobody sent, redirects, time stamps, and lengths that do not fit.
pub(super) fn icmp(noise: &mut Noise) -> Vec<u8> {
    let mut message = vec![noise.pick(&[3_u8, 3, 4, 5, 8, 9, 10, 11, 12, 13, 17]), noise.byte(), 0, 0];
    message.extend(noise.bytes(4));
    let (from, to) = (noise.target.address, noise.sender());
    let inner = noise.some_bytes(40);
    let mut quoted = ipv4_packet(from, to, 1, 0, noise.pick(&[1_u8, 6, 17, 50]), &inner);
    quoted.truncate(noise.below(quoted.len() + 1));
    message.extend(quoted);
    let sum = checksum(&message).to_be_bytes();
    message.splice(2..4, sum);
    noise.ipv4(1, &message)
}

/// Router and neighbour discovery with options of length 0, MLD, and errors; the checksum is right now and then.
pub(super) fn icmpv6(noise: &mut Noise) -> Vec<u8> {
    let kind = noise.pick(&[134_u8, 134, 135, 136, 137, 130, 131, 143, 1, 2, 3, 4, 128]);
    let mut message = vec![kind, 0, 0, 0];
    message.extend(noise.bytes(12));
    for _ in 0..noise.below(6) {
        message.extend([noise.pick(&[1_u8, 2, 3, 5, 24, 25, 31]), noise.pick(&[0_u8, 1, 4, 255])]);
        message.extend(noise.some_bytes(32));
    }
    let hops = noise.pick(&[255_u8, 255, 255, 1]);
    let mut frame = noise.ipv6(58, hops, &message);
    let length = u8::try_from(message.len() & 0xff).unwrap_or(0);
    let pseudo =
        [&frame[22..54], &[0, 0, u8::try_from(message.len() >> 8).unwrap_or(0), length, 0, 0, 0, 58]]
            .concat();
    let sum = checksum(&[pseudo, message].concat()).to_be_bytes();
    frame.splice(56..58, sum);
    frame
}

/// IGMP of all versions, with counts that do not fit.
pub(super) fn igmp(noise: &mut Noise) -> Vec<u8> {
    let mut message = vec![noise.pick(&[0x11_u8, 0x12, 0x16, 0x17, 0x22, 0xff]), noise.byte(), 0, 0];
    message.extend(noise.some_bytes(60));
    let sum = checksum(&message).to_be_bytes();
    message.splice(2..4, sum);
    noise.ipv4(2, &message)
}

/// IPsec, GRE, IP in IP, SCTP, L2TP and protocols without a name.
pub(super) fn tunnels(noise: &mut Noise) -> Vec<u8> {
    let random = noise.byte();
    let protocol = noise.pick(&[50_u8, 51, 47, 4, 41, 132, 115, 108, random]);
    let payload = noise.some_bytes(200);
    noise.ipv4(protocol, &payload)
}
