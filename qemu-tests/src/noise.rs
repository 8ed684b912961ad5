//! Malformed frames of every kind, from a seed: what broken devices and attackers put on a wire.
//!
//! Most have a correct Ethernet and IP header, so that the mistake is met by the parser behind. The kinds take turns,
//! so that a few thousand frames hold hundreds of each. The same seed gives the same frames.

mod application;
mod link;
mod transport;

use std::net::Ipv4Addr;

/// Whom the frames are for, and what they look like they come from.
#[derive(Debug, Clone)]
pub struct Target {
    /// Hardware address of the box's port.
    pub mac: [u8; 6],
    /// The box's address there.
    pub address: Ipv4Addr,
    /// First of 16 addresses of that network that nobody uses: the senders.
    pub senders: Ipv4Addr,
}

/// The generator.
#[derive(Debug)]
pub struct Noise {
    state: u64,
    turn: usize,
    target: Target,
    /// Frames of a normal session, to be mutated.
    samples: Vec<Vec<u8>>,
}

type Kind = fn(&mut Noise) -> Vec<u8>;

/// Every kind there is.
const KINDS: &[Kind] = &[
    link::arp,
    link::runt,
    link::jumbo,
    link::vlan,
    link::spanning_tree,
    link::lldp,
    link::other_types,
    link::ipv4_header,
    link::ipv6_header,
    transport::fragment,
    transport::udp_lengths,
    transport::tcp,
    transport::icmp,
    transport::icmpv6,
    transport::igmp,
    transport::tunnels,
    application::dhcp_options,
    application::dhcp_header,
    application::dhcp_reply,
    application::dhcpv6,
    application::dns_garbage,
    application::dns_pointers,
    application::dns_counts,
    application::ntp_and_wireguard,
    Noise::mutant,
];

impl Noise {
    /// A generator; without samples nothing is mutated.
    #[must_use]
    pub fn new(seed: u64, target: Target, samples: Vec<Vec<u8>>) -> Self {
        Self { state: seed, turn: 0, target, samples }
    }

    /// The next frame, without its checksum sequence.
    pub fn frame(&mut self) -> Vec<u8> {
        let kind = KINDS[self.turn % KINDS.len()];
        self.turn += 1;
        kind(self)
    }

    /// A real frame with a few bytes changed, cut, or extended.
    fn mutant(&mut self) -> Vec<u8> {
        if self.samples.is_empty() {
            return self.bytes(60);
        }
        let chosen = self.below(self.samples.len());
        let mut frame = self.samples[chosen].clone();
        // Still for the box.
        frame.splice(..6.min(frame.len()), self.target.mac);
        for _ in 0..=self.below(6) {
            let at = 12 + self.below(frame.len().saturating_sub(12).max(1));
            let value = self.byte();
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        match self.below(4) {
            0 => frame.truncate(14 + self.below(frame.len())),
            1 => frame.extend(self.some_bytes(200)),
            _ => {}
        }
        frame
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn word(&mut self) -> u16 {
        let [a, b, ..] = self.next().to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// Up to `limit` bytes.
    fn some_bytes(&mut self, limit: usize) -> Vec<u8> {
        let count = self.below(limit + 1);
        self.bytes(count)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of a few: thousands would be a flood, which is another test.
    fn sender_mac(&mut self) -> [u8; 6] {
        [2, 0, 0, 0, 0xee, u8::try_from(self.below(8)).unwrap_or(0)]
    }

    fn sender(&mut self) -> Ipv4Addr {
        let offset = u32::try_from(self.below(16)).unwrap_or(0);
        Ipv4Addr::from(u32::from(self.target.senders) + offset)
    }

    /// An Ethernet frame for the box or for all.
    fn ethernet(&mut self, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let to = if self.below(3) == 0 { [0xff; 6] } else { self.target.mac };
        let from = self.sender_mac();
        [&to[..], &from, &ether_type.to_be_bytes(), payload].concat()
    }

    /// An IPv4 packet with a correct header around `payload`.
    fn ipv4(&mut self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let to = if self.below(4) == 0 { Ipv4Addr::BROADCAST } else { self.target.address };
        let from = self.sender();
        let id = self.word();
        let packet = ipv4_packet(from, to, id, 0, protocol, payload);
        self.ethernet(0x0800, &packet)
    }

    /// A datagram without a checksum, so that only its content can be wrong.
    fn udp(&mut self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let datagram = udp_datagram(from, to, payload);
        self.ipv4(17, &datagram)
    }

    /// An IPv6 packet from a link-local address to the box's group of all nodes.
    fn ipv6(&mut self, next_header: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        packet.extend([next_header, hop_limit]);
        let host = self.byte();
        packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, host]);
        packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        packet.extend(payload);
        self.ethernet(0x86dd, &packet)
    }
}

fn ipv4_packet(
    from: Ipv4Addr,
    to: Ipv4Addr,
    id: u16,
    fragment: u16,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut header = vec![0x45, 0];
    header.extend(total.to_be_bytes());
    header.extend(id.to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header).to_be_bytes();
    header.splice(10..12, sum);
    header.extend(payload);
    header
}

fn udp_datagram(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64) -> Noise {
        let target = Target {
            mac: [2, 0, 0, 0, 0, 9],
            address: Ipv4Addr::new(192, 168, 77, 1),
            senders: Ipv4Addr::new(192, 168, 77, 224),
        };
        Noise::new(seed, target, vec![vec![7; 60]])
    }

    #[test]
    fn a_seed_gives_the_same_frames_and_another_one_others() {
        let (mut a, mut b, mut c) = (noise(1), noise(1), noise(2));
        let take = |noise: &mut Noise| (0..1000).map(|_| noise.frame()).collect::<Vec<_>>();
        let frames = take(&mut a);
        assert_eq!(frames, take(&mut b));
        assert_ne!(frames, take(&mut c));
        assert!(frames.iter().all(|frame| frame.len() <= 9100));
        assert!(frames.iter().any(|frame| frame.len() < 14) && frames.iter().any(|frame| frame.len() > 1514));
    }

    #[test]
    fn headers_around_the_mistakes_are_right() {
        let packet =
            ipv4_packet(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), 7, 0, 17, &[1, 2, 3]);
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(packet.len(), 23);
        assert_eq!(udp_datagram(1, 2, &[9])[4..6], [0, 9]);
    }
}
