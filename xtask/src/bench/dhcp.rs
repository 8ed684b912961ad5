//! The office PC of the benchmarks: DHCP (RFC 2131) in whole Ethernet frames, no more than a first lease needs.
//!
//! Independent of the firmware's own code, and of any socket: frames in, frames out.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

/// RFC 951: shorter messages are dropped by some relays.
const BOOTP_MIN: usize = 300;
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const PAYLOAD: usize = ETHERNET + IPV4 + UDP;

const OFFER: u8 = 2;
const ACK: u8 = 5;

/// A PC without an address that wants one.
#[derive(Debug, Clone)]
pub struct Client {
    mac: [u8; 6],
    xid: u32,
    offer: Option<(Ipv4Addr, [u8; 4])>,
    lease: Option<Ipv4Addr>,
}

impl Client {
    /// A PC with this hardware address; `xid` tells its messages from those of an earlier try.
    #[must_use]
    pub fn new(mac: [u8; 6], xid: u32) -> Self {
        Self { mac, xid, offer: None, lease: None }
    }

    /// The address it was given.
    #[must_use]
    pub fn lease(&self) -> Option<Ipv4Addr> {
        self.lease
    }

    /// What it says now: DISCOVER, or REQUEST once it has an offer.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut options = COOKIE.to_vec();
        match self.offer {
            None => options.extend([53, 1, 1]),
            Some((address, server)) => {
                options.extend([53, 1, 3, 50, 4]);
                options.extend(address.octets());
                options.extend([54, 4]);
                options.extend(server);
            }
        }
        options.extend([55, 3, 1, 3, 6, 255]);
        let mut message = vec![0; FIXED];
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[4..8].copy_from_slice(&self.xid.to_be_bytes());
        message[28..34].copy_from_slice(&self.mac);
        message.extend(options);
        message.resize(message.len().max(BOOTP_MIN), 0);
        self.wrapped(&message)
    }

    /// Takes a frame from the wire; true when it is an answer that moved the client on.
    pub fn take(&mut self, frame: &[u8]) -> bool {
        let Some(answer) = Answer::parse(frame) else { return false };
        if answer.xid != self.xid || answer.mac != self.mac {
            return false;
        }
        match (answer.kind, self.offer) {
            (OFFER, None) => self.offer = answer.server.map(|server| (answer.address, server)),
            (ACK, Some(_)) => self.lease = Some(answer.address),
            _ => return false,
        }
        true
    }

    /// Broadcast from 0.0.0.0:68 to 255.255.255.255:67; the UDP checksum is left out, as IPv4 allows.
    fn wrapped(&self, message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(self.mac);
        frame.extend([8, 0]);
        let length = |size: usize| (size as u16).to_be_bytes();
        let mut ip = vec![0x45, 0];
        ip.extend(length(IPV4 + UDP + message.len()));
        ip.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
        let sum = checksum(&ip).to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        frame.extend(ip);
        frame.extend([0, 68, 0, 67]);
        frame.extend(length(UDP + message.len()));
        frame.extend([0, 0]);
        frame.extend(message);
        frame
    }
}

/// What matters of a server's message.
struct Answer {
    kind: u8,
    xid: u32,
    mac: [u8; 6],
    address: Ipv4Addr,
    server: Option<[u8; 4]>,
}

impl Answer {
    fn parse(frame: &[u8]) -> Option<Self> {
        let is_reply = frame.get(12..15)? == [8, 0, 0x45] && frame.get(23) == Some(&17);
        let ports = frame.get(ETHERNET + IPV4..ETHERNET + IPV4 + 4)?;
        let message = frame.get(PAYLOAD..)?;
        let options = message.get(FIXED..)?.strip_prefix(&COOKIE)?;
        if !is_reply || ports != [0, 67, 0, 68] || message[0] != 2 {
            return None;
        }
        Some(Self {
            kind: *option(options, 53)?.first()?,
            xid: u32::from_be_bytes(message[4..8].try_into().ok()?),
            mac: message[28..34].try_into().ok()?,
            address: Ipv4Addr::from(<[u8; 4]>::try_from(&message[16..20]).ok()?),
            server: option(options, 54).and_then(|server| server.try_into().ok()),
        })
    }
}

fn option(options: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = options;
    loop {
        match *rest.first()? {
            255 => return None,
            0 => rest = &rest[1..],
            code => {
                let length = usize::from(*rest.get(1)?);
                let value = rest.get(2..2 + length)?;
                if code == wanted {
                    return Some(value);
                }
                rest = &rest[2 + length..];
            }
        }
    }
}

/// Of an IPv4 header (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Longest frame QEMU may send; more means that the stream is out of step.
const FRAME_MAX: usize = 65_550;

/// QEMU's framing on a stream socket: a u32 big-endian length before each frame.
#[must_use]
pub fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
    bytes.extend(frame);
    bytes
}

/// Takes the next whole frame out of what has been received; nothing when it is not complete yet.
///
/// # Errors
/// When the stream is out of step.
pub fn next_frame(received: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    let Some(length) = received.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    ensure!(length <= FRAME_MAX, "QEMU announces a frame of {length} bytes");
    if received.len() < 4 + length {
        return Ok(None);
    }
    let rest = received.split_off(4 + length);
    let frame = std::mem::replace(received, rest);
    Ok(Some(frame[4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    /// A server's answer, made from the client's own frame.
    fn answer(client: &Client, kind: u8) -> Vec<u8> {
        let mut frame = client.frame();
        frame[ETHERNET + IPV4..ETHERNET + IPV4 + 4].copy_from_slice(&[0, 67, 0, 68]);
        frame[PAYLOAD] = 2;
        frame[PAYLOAD + 16..PAYLOAD + 20].copy_from_slice(&[192, 0, 2, 7]);
        frame.truncate(PAYLOAD + FIXED + 4);
        frame.extend([0, 53, 1, kind, 54, 4, 192, 0, 2, 1, 255]);
        frame
    }

    #[test]
    fn from_discover_to_lease() {
        let mut client = Client::new(MAC, 7);
        assert!(!client.take(&answer(&client, ACK)), "nothing was asked for yet");
        assert!(client.take(&answer(&client, OFFER)));
        assert!(client.frame().windows(6).any(|bytes| bytes == [50, 4, 192, 0, 2, 7]));
        assert!(client.take(&answer(&client, ACK)));
        assert_eq!(client.lease(), Some(Ipv4Addr::new(192, 0, 2, 7)));
    }

    #[test]
    fn other_frames_are_not_for_it() {
        let mut client = Client::new(MAC, 7);
        let other = answer(&Client::new(MAC, 8), OFFER);
        for frame in [&client.frame()[..], &other, &[], &other[..60]] {
            assert!(!client.take(frame));
        }
    }

    #[test]
    fn the_header_sums_up() {
        assert_eq!(checksum(&Client::new(MAC, 7).frame()[ETHERNET..ETHERNET + IPV4]), 0);
    }

    #[test]
    fn frames_come_whole_or_not_at_all() {
        let mut received = [framed(b"one"), framed(b"two")].concat();
        received.pop();
        assert_eq!(next_frame(&mut received).unwrap().unwrap(), b"one");
        assert_eq!(next_frame(&mut received).unwrap(), None);
        received.push(b'o');
        assert_eq!(next_frame(&mut received).unwrap().unwrap(), b"two");
        assert!(next_frame(&mut vec![255; 4]).is_err());
    }
}
