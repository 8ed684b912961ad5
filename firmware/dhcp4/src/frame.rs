//! The packets around DHCP: IPv4 with UDP, and ARP, as bytes (RFC 791, RFC 768, RFC 826, RFC 5227).
//!
//! Needed because one end of a DHCP exchange has no address yet, so that the kernel's UDP cannot carry it.
//! Everything starts at the IP or ARP header; the kernel's packet sockets add Ethernet's.

use std::net::Ipv4Addr;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
const TTL: u8 = 64;

/// One end of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv4 address.
    pub address: Ipv4Addr,
    /// UDP port.
    pub port: u16,
}

/// A received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Sender.
    pub source: Endpoint,
    /// Receiver.
    pub destination: Endpoint,
    /// Payload.
    pub payload: &'a [u8],
}

/// Writes an IPv4 packet with one UDP datagram, both checksums set. Payloads longer than a packet can
/// carry are cut (DHCP's never are).
#[must_use]
pub fn udp_packet(source: Endpoint, destination: Endpoint, payload: &[u8]) -> Vec<u8> {
    let payload =
        payload.get(..payload.len().min(usize::from(u16::MAX) - IP_HEADER - UDP_HEADER)).unwrap_or_default();
    let udp_length = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(u16::MAX);
    let total_length = udp_length.saturating_add(20);
    let mut packet = Vec::with_capacity(usize::from(total_length));
    // Version 4, five words; DSCP CS6: network control, so that a busy switch does not delay it.
    packet.extend_from_slice(&[0x45, 0xc0]);
    packet.extend_from_slice(&total_length.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, TTL, UDP, 0, 0]);
    packet.extend_from_slice(&source.address.octets());
    packet.extend_from_slice(&destination.address.octets());
    let header_sum = fold(sum(&packet));
    if let Some(field) = packet.get_mut(10..12) {
        field.copy_from_slice(&header_sum.to_be_bytes());
    }
    let mut udp = Vec::with_capacity(usize::from(udp_length));
    udp.extend_from_slice(&source.port.to_be_bytes());
    udp.extend_from_slice(&destination.port.to_be_bytes());
    udp.extend_from_slice(&udp_length.to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(payload);
    let checksum = match udp_checksum(source.address, destination.address, &udp) {
        0 => u16::MAX,
        other => other,
    };
    if let Some(field) = udp.get_mut(6..8) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    packet.extend_from_slice(&udp);
    packet
}

/// Reads an IPv4 packet with one whole UDP datagram; `None` for anything else. The UDP checksum is not
/// checked: packet sockets also see packets whose checksum the hardware has yet to fill in (virtual
/// interfaces), and Ethernet's own has been checked.
#[must_use]
pub fn parse_udp(packet: &[u8]) -> Option<Datagram<'_>> {
    let header_length = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes(*packet.get(2..4)?.first_chunk()?));
    let fragment = u16::from_be_bytes(*packet.get(6..8)?.first_chunk()?) & 0x3fff;
    if packet.first()? >> 4 != 4 || header_length < IP_HEADER || fragment != 0 || *packet.get(9)? != UDP {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..at + 4)?.first_chunk::<4>()?));
    let udp = packet.get(header_length..total)?;
    let port = |at: usize| Some(u16::from_be_bytes(*udp.get(at..at + 2)?.first_chunk()?));
    let udp_length = usize::from(port(4)?);
    Some(Datagram {
        source: Endpoint { address: address(12)?, port: port(0)? },
        destination: Endpoint { address: address(16)?, port: port(2)? },
        payload: udp.get(UDP_HEADER..udp_length)?,
    })
}

/// An ARP probe (RFC 5227 §2.1.1): who has `target`? Sender address 0.0.0.0, so that no cache changes.
#[must_use]
pub fn arp_probe(own_mac: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend_from_slice(&own_mac);
    packet.extend_from_slice(&[0; 10]);
    packet.extend_from_slice(&target.octets());
    packet
}

/// An ARP announcement (RFC 5227 §2.3): `address` is ours. Everybody's cache is set right.
#[must_use]
pub fn arp_announcement(own_mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut packet = arp_probe(own_mac, address);
    if let Some(sender) = packet.get_mut(14..18) {
        sender.copy_from_slice(&address.octets());
    }
    packet
}

/// Who says it has which address: the sender fields of an ARP packet for IPv4 over Ethernet. Probes of
/// others (sender 0.0.0.0) say nothing.
#[must_use]
pub fn parse_arp(packet: &[u8]) -> Option<([u8; 6], Ipv4Addr)> {
    if packet.get(..6)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let mac = *packet.get(8..14)?.first_chunk::<6>()?;
    let address = Ipv4Addr::from(*packet.get(14..18)?.first_chunk::<4>()?);
    (!address.is_unspecified()).then_some((mac, address))
}

fn udp_checksum(source: Ipv4Addr, destination: Ipv4Addr, udp: &[u8]) -> u16 {
    let pseudo = [source.octets(), destination.octets()].concat();
    let length = u32::try_from(udp.len()).unwrap_or(u32::MAX);
    fold(sum(&pseudo) + u32::from(UDP) + length + sum(udp))
}

/// Sum of big-endian 16-bit words (at most 2^15 of them, so it cannot overflow).
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    bytes.chunks(2).map(word).fold(0, u32::wrapping_add)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Endpoint = Endpoint { address: Ipv4Addr::new(192, 168, 77, 1), port: 67 };
    const B: Endpoint = Endpoint { address: Ipv4Addr::BROADCAST, port: 68 };

    #[test]
    fn known_bytes() {
        let packet = udp_packet(A, B, b"hi!");
        assert_eq!(packet.len(), 31);
        assert_eq!(fold(sum(&packet[..20])), 0);
        assert_eq!(udp_checksum(A.address, B.address, &packet[20..]), 0);
        assert_eq!(packet[20..26], [0, 67, 0, 68, 0, 11]);
        let probe = arp_probe([2, 0, 0, 0, 0, 1], A.address);
        assert_eq!(probe.len(), 28);
        assert_eq!(parse_arp(&probe), None);
        let reply = arp_announcement([2, 0, 0, 0, 0, 1], A.address);
        assert_eq!(parse_arp(&reply), Some(([2, 0, 0, 0, 0, 1], A.address)));
    }

    proptest! {
        #[test]
        fn datagrams_round_trip(payload in proptest::collection::vec(any::<u8>(), 0..600)) {
            let packet = udp_packet(A, B, &payload);
            prop_assert_eq!(parse_udp(&packet), Some(Datagram { source: A, destination: B, payload: &payload }));
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (parse_udp(&bytes), parse_arp(&bytes));
        }
    }
}
