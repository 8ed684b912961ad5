//! Frames that are wrong on the link and in the IP header.

use super::Noise;

/// ARP with wrong sizes, operations and lengths, and gratuitous claims.
pub(super) fn arp(noise: &mut Noise) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(noise.sender_mac());
    packet.extend(noise.sender().octets());
    packet.extend(noise.bytes(6));
    packet.extend(noise.target.address.octets());
    for _ in 0..noise.below(3) {
        let at = noise.below(8);
        packet[at] = noise.byte();
    }
    if noise.below(3) == 0 {
        packet.truncate(noise.below(28));
    }
    noise.ethernet(0x0806, &packet)
}

/// Shorter than an Ethernet header, or with nothing behind it.
pub(super) fn runt(noise: &mut Noise) -> Vec<u8> {
    let length = 1 + noise.below(20);
    noise.bytes(length)
}

/// Longer than the port takes.
pub(super) fn jumbo(noise: &mut Noise) -> Vec<u8> {
    let length = 1501 + noise.below(7500);
    let payload = noise.bytes(length);
    noise.ethernet(0x0800, &payload)
}

/// One to four VLAN tags around anything, also around nothing.
pub(super) fn vlan(noise: &mut Noise) -> Vec<u8> {
    let mut tagged = Vec::new();
    for _ in 0..noise.below(4) {
        tagged.extend(noise.word().to_be_bytes());
        tagged.extend(noise.pick(&[0x8100_u16, 0x88a8, 0x9100]).to_be_bytes());
    }
    tagged.extend(noise.word().to_be_bytes());
    tagged.extend(noise.pick(&[0x0800_u16, 0x0806, 0x86dd, 0x0003, 0xffff]).to_be_bytes());
    tagged.extend(noise.some_bytes(100));
    noise.ethernet(0x8100, &tagged)
}

/// Spanning tree and other 802.2 frames, with lengths that do not fit.
pub(super) fn spanning_tree(noise: &mut Noise) -> Vec<u8> {
    let length = noise.pick(&[38_u16, 3, 0, 1500, 0x05ff]);
    let payload = [&[0x42, 0x42, 3, 0, 0][..], &noise.some_bytes(60)].concat();
    let mut frame = noise.ethernet(length, &payload);
    frame.splice(..6, [1, 0x80, 0xc2, 0, 0, 0]);
    frame
}

/// LLDP with lengths beyond its end.
pub(super) fn lldp(noise: &mut Noise) -> Vec<u8> {
    let mut payload = Vec::new();
    for _ in 0..noise.below(8) {
        payload.extend(noise.word().to_be_bytes());
        payload.extend(noise.some_bytes(20));
    }
    let mut frame = noise.ethernet(0x88cc, &payload);
    frame.splice(..6, [1, 0x80, 0xc2, 0, 0, 0x0e]);
    frame
}

/// Types that nobody here speaks, and the box's own for probing its cables.
pub(super) fn other_types(noise: &mut Noise) -> Vec<u8> {
    let random = noise.word();
    let ether_type = noise.pick(&[0x88b5, 0x8863, 0x8864, 0x888e, 0x8847, 0x9000, 0x88f7, 0x0842, random]);
    let start = noise.pick(&[&b"kontor loop\n"[..], b"", &[0x11, 0, 0, 1]]);
    let payload = [start, &noise.some_bytes(200)].concat();
    noise.ethernet(ether_type, &payload)
}

/// Wrong version, header length, total length, options, checksum.
pub(super) fn ipv4_header(noise: &mut Noise) -> Vec<u8> {
    let protocol = noise.byte();
    let payload = noise.some_bytes(100);
    let mut frame = noise.ipv4(protocol, &payload);
    match noise.below(4) {
        0 => frame[14] = noise.byte(),
        1 => frame[16..18].copy_from_slice(&noise.word().to_be_bytes()),
        2 => {
            // Options: record route, source routes, time stamps, with any length.
            frame[14] = 0x40 | u8::try_from(5 + noise.below(11)).unwrap_or(5);
            let options: Vec<u8> = (0..10)
                .flat_map(|_| [noise.pick(&[7, 131, 137, 68, 1, 148]), noise.byte(), noise.byte()])
                .collect();
            frame.splice(34..34, options);
            fix_sum(&mut frame);
        }
        _ => frame[24] ^= 0x55,
    }
    frame
}

/// Chains of extension headers with any length.
pub(super) fn ipv6_header(noise: &mut Noise) -> Vec<u8> {
    let mut payload = Vec::new();
    for _ in 0..noise.below(12) {
        let next = noise.pick(&[0_u8, 43, 44, 51, 60, 135, 59, 58, 17]);
        payload.extend([next, noise.pick(&[0_u8, 0, 1, 255])]);
        payload.extend(noise.bytes(6));
    }
    let first = noise.pick(&[0_u8, 43, 44, 51, 60, 135]);
    let hops = noise.byte();
    let mut frame = noise.ipv6(first, hops, &payload);
    if noise.below(4) == 0 {
        frame[18..20].copy_from_slice(&noise.word().to_be_bytes());
    }
    frame
}

fn fix_sum(frame: &mut [u8]) {
    let end = 14 + usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    if let Some(header) = frame.get(14..end) {
        let sum = super::checksum(header).to_be_bytes();
        frame[24..26].copy_from_slice(&sum);
    }
}
