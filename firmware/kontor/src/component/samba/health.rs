//! Whether Samba still works: each of its parts is asked something that it has to answer itself. A connection alone says
//! nothing, for the kernel makes those of a process that stands still.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The subcommand; parts follow.
pub(in crate::component) const ARGUMENT: &str = "samba-health";
/// One answer; who has started this waits for ten seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);
const SMB: u16 = 445;
const LDAP: u16 = 389;

/// What a client says first ([MS-SMB2], section 2.2.3): it offers SMB 3.0.2 alone, and asks for nothing.
const NEGOTIATE: [u8; 106] = {
    let mut message = [0; 106];
    // Direct TCP: the length of what follows, big-endian.
    message[3] = 102;
    [message[4], message[5], message[6], message[7], message[8]] = [0xfe, b'S', b'M', b'B', 64];
    // One credit is asked for.
    message[18] = 1;
    // Structure of 36 bytes; one dialect; signing is possible.
    [message[68], message[70], message[72]] = [36, 1, 1];
    [message[104], message[105]] = [0x02, 0x03];
    message
};

/// A search for the directory's root, which needs no account (RFC 4511, section 4.5; RFC 4512, section 5.1): base object, no
/// limits, whatever has an object class, no attributes ("1.1").
const ROOT_DSE: [u8; 44] =
    *b"\x30\x2a\x02\x01\x01\x63\x25\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00\
\x87\x0bobjectClass\x30\x05\x04\x031.1";

/// `smb`, `ldap`, `winbind`.
pub(in crate::component) fn run(parts: &[String]) -> Result<()> {
    ensure!(!parts.is_empty(), "usage: kontor component {ARGUMENT} smb|ldap|winbind …");
    parts.iter().try_for_each(|part| match part.as_str() {
        "smb" => {
            asked(SMB, &NEGOTIATE, |answer: &[u8; 8]| answer[4..].starts_with(b"\xfeSMB")).context("smb")
        }
        "ldap" => asked(LDAP, &ROOT_DSE, |answer: &[u8; 2]| answer[0] == 0x30).context("ldap"),
        "winbind" => {
            let status = Command::new("/usr/bin/wbinfo").arg("--ping").status()?;
            ensure!(status.success(), "winbind: {status}");
            Ok(())
        }
        _ => bail!("{part:?} is no part of Samba"),
    })
}

fn asked<const LENGTH: usize>(port: u16, question: &[u8], is_right: fn(&[u8; LENGTH]) -> bool) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(question)?;
    let mut answer = [0; LENGTH];
    stream.read_exact(&mut answer)?;
    ensure!(is_right(&answer), "the answer begins with {answer:02x?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_messages() {
        assert_eq!(usize::from(NEGOTIATE[3]), NEGOTIATE.len() - 4);
        assert_eq!(usize::from(ROOT_DSE[1]), ROOT_DSE.len() - 2);
        assert_eq!(usize::from(ROOT_DSE[6]), ROOT_DSE.len() - 7);
    }
}
