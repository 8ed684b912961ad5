//! One end of a WireGuard tunnel, independent of the kernel's: datagrams in, packets out, and back; no socket, no wire.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

/// The largest datagram there is.
const BUFFER: usize = 65_535;
/// First octet of a message that answers a handshake (WireGuard paper, section 5.4.3).
const RESPONSE: u8 = 2;

/// What an end has for the others.
#[derive(Debug, Default)]
pub struct Output {
    /// For the other end, encrypted.
    pub datagrams: Vec<Vec<u8>>,
    /// Packets that came through the tunnel.
    pub packets: Vec<Vec<u8>>,
}

/// One end of a tunnel.
pub struct TunnelEnd {
    /// Handshakes completed, whichever end began them.
    pub handshakes: usize,
    /// Packets that came through, of any kind.
    pub received: usize,
    tunn: Tunn,
    keys: ([u8; 32], [u8; 32]),
}

impl TunnelEnd {
    /// An end with this private key, for a peer with that public key.
    #[must_use]
    pub fn new(private: [u8; 32], peer: [u8; 32]) -> Self {
        let (secret, public) = (StaticSecret::from(private), PublicKey::from(peer));
        let tunn = Tunn::new(secret, public, None, None, 1, None);
        Self { handshakes: 0, received: 0, tunn, keys: (private, peer) }
    }

    /// Takes a datagram; whether it was the peer's.
    pub fn receive(&mut self, from: IpAddr, datagram: &[u8], output: &mut Output) -> bool {
        let mut buffer = vec![0; BUFFER];
        let mut result = self.tunn.decapsulate(Some(from), datagram, &mut buffer);
        if datagram.first() == Some(&RESPONSE) && !matches!(result, TunnResult::Err(_)) {
            self.handshakes += 1;
        }
        loop {
            match result {
                TunnResult::Done => return true,
                TunnResult::Err(_) => return false,
                TunnResult::WriteToNetwork(answer) => {
                    if answer.first() == Some(&RESPONSE) {
                        self.handshakes += 1;
                    }
                    output.datagrams.push(answer.to_vec());
                    // What waited for the handshake follows it.
                    result = self.tunn.decapsulate(None, &[], &mut buffer);
                }
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    self.received += 1;
                    output.packets.push(packet.to_vec());
                    return true;
                }
            }
        }
    }

    /// Sends a packet through the tunnel; one that there is no session for waits for the handshake.
    pub fn send(&mut self, packet: &[u8], output: &mut Output) {
        let mut buffer = vec![0; BUFFER];
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(packet, &mut buffer) {
            output.datagrams.push(datagram.to_vec());
        }
    }

    /// Does what is due: handshakes again, signs of life.
    pub fn tick(&mut self, output: &mut Output) {
        let mut buffer = vec![0; BUFFER];
        match self.tunn.update_timers(&mut buffer) {
            TunnResult::WriteToNetwork(datagram) => output.datagrams.push(datagram.to_vec()),
            // After a long silence it gives up for ever; an end that somebody may call again does not.
            TunnResult::Err(WireGuardError::ConnectionExpired) => self.restart(),
            _ => {}
        }
    }

    /// Forgets every session, as a restart of this end does.
    pub fn restart(&mut self) {
        let (private, peer) = self.keys;
        self.tunn = Self::new(private, peer).tunn;
    }

    /// The age of the session in use.
    #[must_use]
    pub fn since_handshake(&self) -> Option<Duration> {
        self.tunn.time_since_last_handshake()
    }
}

/// The public key of a private one.
#[must_use]
pub fn public_key(private: [u8; 32]) -> [u8; 32] {
    *PublicKey::from(&StaticSecret::from(private)).as_bytes()
}

/// A key as configurations have it.
#[must_use]
pub fn to_text(key: [u8; 32]) -> String {
    STANDARD.encode(key)
}

/// A key out of a configuration; nothing when it is none.
#[must_use]
pub fn from_text(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Carries datagrams to and fro until there are none; what came out at either end.
    fn carry(a: &mut TunnelEnd, b: &mut TunnelEnd, first: Output) -> Vec<Vec<u8>> {
        let (mut output, mut packets) = (first, Vec::new());
        let mut ends = [b, a];
        while !output.datagrams.is_empty() {
            let mut next = Output::default();
            for datagram in &output.datagrams {
                assert!(ends[0].receive(FROM, datagram, &mut next));
            }
            packets.append(&mut next.packets);
            output = next;
            ends.swap(0, 1);
        }
        packets
    }

    /// An IPv4 header without anything behind it.
    fn packet() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet
    }

    #[test]
    fn a_packet_waits_for_the_handshake_and_comes_out_at_the_other_end() {
        let keys = [[1; 32], [2; 32]];
        let mut a = TunnelEnd::new(keys[0], public_key(keys[1]));
        let mut b = TunnelEnd::new(keys[1], public_key(keys[0]));
        let mut output = Output::default();
        a.send(&packet(), &mut output);
        assert_eq!(output.datagrams[0][0], 1, "a handshake comes first");
        assert_eq!(carry(&mut a, &mut b, output), [packet()]);
        assert_eq!((a.handshakes, b.handshakes), (1, 1));

        let mut output = Output::default();
        b.send(&packet(), &mut output);
        assert!(!output.datagrams[0].windows(20).any(|window| window == packet()), "it is in clear");
        assert_eq!(carry(&mut b, &mut a, output), [packet()]);
        assert_eq!((a.handshakes, a.received, b.received), (1, 1, 1));
    }

    #[test]
    fn strangers_get_no_answer() {
        let mut end = TunnelEnd::new([1; 32], public_key([2; 32]));
        let mut stranger = TunnelEnd::new([3; 32], public_key([1; 32]));
        let mut output = Output::default();
        stranger.send(&packet(), &mut output);
        let mut answer = Output::default();
        assert!(!end.receive(FROM, &output.datagrams[0], &mut answer));
        assert!(answer.datagrams.is_empty() && end.handshakes == 0);
    }

    /// The pair of RFC 7748, section 6.1.
    #[test]
    fn keys_are_those_of_the_standard() {
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        let private = from_text(private).unwrap();
        assert_eq!(to_text(public_key(private)), public);
        assert_eq!(from_text("short="), None);
    }
}
