//! Which generation the kernel's packet filter is in: nf_tables counts every change anybody makes to it.
//!
//! Asked by a message of our own; the routing socket's crate does not speak to this part of the kernel.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// linux/netfilter/nfnetlink.h and nf_tables.h: subsystem 10, messages 15 and 16.
const NEW_GENERATION: u16 = 10 << 8 | 15;
const GET_GENERATION: u16 = 10 << 8 | 16;
/// linux/netlink.h
const REQUEST: u16 = 1;
/// nf_tables.h: the attribute with the number, 32 bits in network order.
const NUMBER: u16 = 1;
/// Headers of netlink and of nfnetlink.
const HEADERS: usize = 20;
/// The kernel answers at once.
const TIMEOUT_S: i64 = 1;

/// The present generation; it never repeats while the box is up.
pub(super) fn current() -> io::Result<u32> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT_S))?;
    sendto(socket.as_raw_fd(), &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    parse(&answer[..length]).ok_or_else(|| io::Error::other("nf_tables does not say its generation"))
}

fn request() -> [u8; HEADERS] {
    let mut message = [0; HEADERS];
    message[..4].copy_from_slice(&20_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&GET_GENERATION.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    message
}

fn parse(message: &[u8]) -> Option<u32> {
    let number = |at: usize| Some(u16::from_ne_bytes(*message.get(at..)?.first_chunk()?));
    if number(4)? != NEW_GENERATION {
        return None;
    }
    let mut rest = message.get(HEADERS..)?;
    while let [a, b, c, d, value @ ..] = rest {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        if u16::from_ne_bytes([*c, *d]) == NUMBER {
            return Some(u32::from_be_bytes(*value.first_chunk()?));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let mut message = vec![0; HEADERS];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        [message.as_slice(), attributes].concat()
    }

    fn attribute(kind: u16, value: [u8; 4]) -> Vec<u8> {
        [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value].concat()
    }

    #[test]
    fn the_number_is_found_among_other_attributes() {
        let attributes = [attribute(2, [9; 4]), attribute(NUMBER, [0, 0, 1, 2])].concat();
        assert_eq!(parse(&answer(NEW_GENERATION, &attributes)), Some(0x102));
    }

    #[test]
    fn anything_else_is_no_generation() {
        let good = answer(NEW_GENERATION, &attribute(NUMBER, [0, 0, 1, 2]));
        assert!((0..good.len()).all(|length| parse(&good[..length]).is_none()));
        // NLMSG_ERROR, an attribute too short for its own header, and none at all.
        assert_eq!(parse(&answer(2, &attribute(NUMBER, [0; 4]))), None);
        assert_eq!(parse(&answer(NEW_GENERATION, &[0; 8])), None);
        assert_eq!(parse(&answer(NEW_GENERATION, &[])), None);
    }
}
