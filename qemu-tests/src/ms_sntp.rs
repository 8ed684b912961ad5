//! The time as Windows in a domain asks for it, signed by a domain controller ([MS-SNTP], section 2.2).

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::world::{PcId, World};

const PORT: u16 = 123;
/// Of a message without its authenticator (RFC 4330, section 4).
const MESSAGE: usize = 48;
/// Version 3, client.
const VERSION_AND_MODE: u8 = 0o33;
/// The signature is an MD5 sum, after the account's number.
const SIGNATURE: usize = 16;
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

impl World {
    /// Asks for the time with the relative identifier of an account, whose password signs the answer.
    ///
    /// # Errors
    /// When there is no answer, or one without a signature.
    pub fn signed_time(&mut self, pc: PcId, server: Ipv4Addr, account: u32) -> Result<()> {
        let mut pending = self.pc(pc).ask_datagram(server, PORT, question(account))?;
        let answer =
            self.wait_for("the signed time", ANSWER_LIMIT, |world| world.pc(pc).answer(&mut pending));
        self.pc(pc).finish(&pending);
        ensure!(is_signed(&answer?, account), "the answer has no signature");
        Ok(())
    }
}

fn question(account: u32) -> Vec<u8> {
    let mut message = vec![VERSION_AND_MODE];
    message.resize(MESSAGE, 0);
    message.extend(account.to_le_bytes());
    message.extend([0; SIGNATURE]);
    message
}

fn is_signed(answer: &[u8], account: u32) -> bool {
    let authenticator = answer.get(MESSAGE..).and_then(|rest| rest.split_first_chunk::<4>());
    authenticator.is_some_and(|(number, signature)| {
        *number == account.to_le_bytes() && signature.len() == SIGNATURE && signature != [0; SIGNATURE]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_no_signed_answer() {
        let mut message = question(1000);
        assert_eq!((message.len(), is_signed(&message, 1000)), (68, false));
        message[60] = 1;
        assert!(is_signed(&message, 1000) && !is_signed(&message, 1001) && !is_signed(&message[..67], 1000));
    }
}
