//! Asks the box's own name service, as any computer of the office does (RFC 1035).
//!
//! A static program must not use the C library's resolver, which loads modules of the host.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use kontor_dns::name::Name;

/// Longer than the name service itself tries.
const PATIENCE: Duration = Duration::from_secs(8);
/// A lost datagram on the loopback does not happen; a name service that is just starting does.
const AGAIN: Duration = Duration::from_secs(2);
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 53);
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const HEADER: usize = 12;
/// Of an answer over UDP without EDNS (RFC 1035, section 4.2.1).
const MAX_ANSWER: usize = 512;
/// Flags of a question: recursion desired.
const RECURSION_DESIRED: u16 = 0x0100;

/// The IPv4 addresses of a name; an address is its own name.
pub(crate) fn resolve(name: &str) -> anyhow::Result<Vec<Ipv4Addr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    ask(name, SocketAddr::from(SERVER), PATIENCE).with_context(|| format!("the name {name}"))
}

/// Whether the name service answers this name within the time given.
pub(crate) fn answers(name: &str, patience: Duration) -> bool {
    ask(name, SocketAddr::from(SERVER), patience).is_ok()
}

fn ask(name: &str, server: SocketAddr, patience: Duration) -> anyhow::Result<Vec<Ipv4Addr>> {
    let name = Name::from_text(name).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    let id = socket.local_addr()?.port() ^ 0x5a5a;
    let question = question(id, &name);
    let start = Instant::now();
    let mut answer = [0; MAX_ANSWER];
    loop {
        let left = patience.checked_sub(start.elapsed()).context("no answer from the box's name service")?;
        socket.set_read_timeout(Some(left.min(AGAIN).max(Duration::from_millis(1))))?;
        // Refused while the name service starts: as good as no answer yet.
        let received = socket.send(&question).and_then(|_| socket.recv(&mut answer));
        match received {
            Ok(length) => match addresses(&answer[..length], id, &name) {
                Some(result) => return result,
                None => continue,
            },
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::thread::sleep(left.min(Duration::from_millis(200)));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn question(id: u16, name: &Name) -> Vec<u8> {
    let mut message: Vec<u8> =
        [id, RECURSION_DESIRED, 1, 0, 0, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
    message.extend_from_slice(name.wire());
    message.extend([TYPE_A, CLASS_IN].iter().flat_map(|word| word.to_be_bytes()));
    message
}

/// The addresses in an answer; nothing when it is not the answer to this question.
fn addresses(message: &[u8], id: u16, name: &Name) -> Option<anyhow::Result<Vec<Ipv4Addr>>> {
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let (flags, questions, answers) = (word(2)?, word(4)?, word(6)?);
    let (asked, at) = Name::read(message, HEADER).ok()?;
    if word(0)? != id || flags & 0x8000 == 0 || questions != 1 || asked.wire() != name.wire() {
        return None;
    }
    Some(records(message, at + 4, answers, flags & 0xf))
}

fn records(message: &[u8], mut at: usize, count: u16, rcode: u16) -> anyhow::Result<Vec<Ipv4Addr>> {
    ensure!(rcode == 0, "the name service answers with code {rcode}");
    let mut found = Vec::new();
    for _ in 0..count {
        let next = after_name(message, at).context("the answer is cut off")?;
        let Some(fixed) = message.get(next..next + 10) else { bail!("the answer is cut off") };
        let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let Some(data) = message.get(next + 10..next + 10 + length) else { bail!("the answer is cut off") };
        if let (TYPE_A, [a, b, c, d]) = (kind, data) {
            found.push(Ipv4Addr::new(*a, *b, *c, *d));
        }
        at = next + 10 + length;
    }
    ensure!(!found.is_empty(), "it has no IPv4 address");
    Ok(found)
}

/// Where a name ends, which may be, or end in, a pointer to an earlier one (RFC 1035, section 4.1.4). Whose record it is does not
/// matter: the box's own name service sends nothing but what leads from the name asked for to its addresses.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(make: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> anyhow::Result<Vec<Ipv4Addr>> {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut question = [0; 512];
            let (length, from) = server.recv_from(&mut question).unwrap();
            server.send_to(&make(&question[..length]), from).unwrap();
        });
        let result = ask("updates.example.net", address, Duration::from_millis(400));
        thread.join().unwrap();
        result
    }

    fn answer(question: &[u8], rcode: u8, records: &[&[u8]]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] |= 0x80;
        message[3] = rcode;
        message[7] = records.len() as u8;
        message.extend(records.concat());
        message
    }

    const A: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";
    const CNAME: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c";

    #[test]
    fn addresses_are_found_behind_other_names() {
        let found = answered(|question| answer(question, 0, &[CNAME, A])).unwrap();
        assert_eq!(found, [Ipv4Addr::new(192, 0, 2, 7)]);
    }

    #[test]
    fn what_is_no_answer_is_said_to_be_none() {
        let check = |make: fn(&[u8]) -> Vec<u8>, expected: &str| {
            let error = format!("{:#}", answered(make).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check(|question| answer(question, 3, &[]), "code 3");
        check(|question| answer(question, 0, &[]), "no IPv4 address");
        check(|question| answer(question, 0, &[&A[..12]]), "cut off");
        check(|question| question.to_vec(), "no answer");
        check(|_| vec![0; 7], "no answer");
    }
}
