//! What a PC has of SMB 2 and 3 ([MS-SMB2]): the question which dialect a server speaks (sections 2.2.3 and 2.2.4), and
//! a client that can write and, unlike `smbclient`, ask for it to be durable.

mod client;
mod message;
mod ntlm;
mod signing;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use self::client::SmbSession;
pub use self::message::{Answer, Disposition, FileId, MAX_DATA, Operation};
pub use self::ntlm::Account;
use crate::world::{PcId, World};

const PORT: u16 = 445;
const HEADER: usize = 64;
/// What a PC of today offers.
const DIALECTS: [u16; 5] = [0x0202, 0x0210, 0x0300, 0x0302, 0x0311];
/// A file server starts a process for each client.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

impl World {
    /// The dialect that the file server at `address` chooses, `0x0311` for SMB 3.1.1.
    ///
    /// # Errors
    /// When nobody listens there, or the answer is none.
    pub fn smb_dialect(&mut self, pc: PcId, address: Ipv4Addr) -> Result<u16> {
        let connection = self.connect(pc, address, PORT)?;
        let answer = self.exchange(connection, &negotiate(), ANSWER_LIMIT, framed_length);
        self.close(connection);
        dialect(&answer?)
    }
}

/// Length of the whole message, once its length field is there ([MS-SMB2], section 2.1, "Direct TCP").
fn framed_length(received: &[u8]) -> Option<usize> {
    let frame: [u8; 4] = received.get(..4)?.try_into().ok()?;
    Some(4 + usize::try_from(u32::from_be_bytes(frame)).unwrap_or(usize::MAX - 4))
}

fn negotiate() -> Vec<u8> {
    let mut message = vec![0xfe, b'S', b'M', b'B', HEADER as u8];
    message.resize(HEADER, 0);
    // One credit asked for; everything else of the header is zero, also the command.
    message[14] = 1;
    let count = DIALECTS.len() as u16;
    // Structure size, dialects, "signing enabled", reserved.
    for word in [36, count, 1, 0] {
        message.extend(u16::to_le_bytes(word));
    }
    // Capabilities, and who asks.
    message.extend([0; 4]);
    message.extend([0x4b; 16]);
    let end = (message.len() + 8 + 2 * DIALECTS.len()).next_multiple_of(8);
    message.extend((end as u32).to_le_bytes());
    message.extend([1, 0, 0, 0]);
    message.extend(DIALECTS.iter().flat_map(|dialect| dialect.to_le_bytes()));
    message.resize(end, 0);
    // The one context that 3.1.1 cannot be without: integrity by SHA-512, with a salt.
    for word in [1, 38, 0, 0, 1, 32, 1] {
        message.extend(u16::to_le_bytes(word));
    }
    message.extend([0x2a; 32]);
    let mut framed = (message.len() as u32).to_be_bytes().to_vec();
    framed.extend(message);
    framed
}

fn dialect(answer: &[u8]) -> Result<u16> {
    let message = answer.get(4..).unwrap_or_default();
    ensure!(message.starts_with(b"\xfeSMB"), "no SMB 2 or 3: {answer:02x?}");
    ensure!(message.get(8..12) == Some(&[0; 4]), "the server refuses to negotiate: {answer:02x?}");
    let dialect = message.get(HEADER + 4..HEADER + 6).context("the answer is cut short")?;
    Ok(u16::from_le_bytes(dialect.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_is_framed_and_aligned() {
        let message = negotiate();
        assert_eq!(framed_length(&message), Some(message.len()));
        let offset = u32::from_le_bytes(message[4 + HEADER + 28..4 + HEADER + 32].try_into().unwrap());
        assert_eq!((offset % 8, message.len()), (0, 4 + offset as usize + 8 + 38));
    }

    #[test]
    fn the_chosen_dialect_is_read() {
        let mut answer = vec![0; 4 + HEADER + 8];
        answer[4..8].copy_from_slice(b"\xfeSMB");
        answer[4 + HEADER + 4..4 + HEADER + 6].copy_from_slice(&[0x11, 0x03]);
        assert_eq!(dialect(&answer).unwrap(), 0x0311);
        answer[12] = 1;
        assert!(dialect(&answer).is_err());
        assert!(dialect(b"\0\0\0\x02no").is_err());
    }
}
