//! A client of SMB 3.0.2: a session, and one share in it.
//!
//! There is at most one question of a session on its way. So nothing is ever out of order, and who wants more at a
//! time opens more sessions.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::message::{
    Answer, Command, MORE, Operation, PENDING, message, negotiate, session_setup, tree_connect,
};
use super::ntlm::{self, Account};
use super::signing::Key;
use super::{PORT, framed_length};
use crate::traffic::Connection;
use crate::world::{PcId, World};

/// The last dialect whose key is made from nothing but the session's.
const DIALECT: u16 = 0x0302;
/// A file server by emulation, whose disk may be busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// A share that a PC has connected to.
#[derive(Debug)]
pub struct SmbSession {
    connection: Connection,
    state: Session,
}

/// The session without its connection.
#[derive(Debug, Default)]
struct Session {
    asked: u64,
    session: u64,
    tree: u32,
    key: Option<Key>,
    received: Vec<u8>,
}

impl World {
    /// Logs on and connects to a share.
    ///
    /// # Errors
    /// When nobody listens there, or the server refuses.
    pub fn smb_connect(
        &mut self,
        pc: PcId,
        server: Ipv4Addr,
        account: &Account<'_>,
        share: &str,
    ) -> Result<SmbSession> {
        let connection = self.connect(pc, server, PORT)?;
        let mut session = SmbSession { connection, state: Session::default() };
        let path = format!("\\\\{server}\\{share}");
        let connected = self.smb_log_on(&mut session, account).and_then(|()| {
            let answer = self.smb_exchange(&mut session, Command::TreeConnect, &tree_connect(&path))?;
            session.state.tree = answer.success(&path)?.tree;
            Ok(())
        });
        match connected {
            Ok(()) => Ok(session),
            Err(error) => {
                self.close(connection);
                Err(error)
            }
        }
    }

    fn smb_log_on(&mut self, session: &mut SmbSession, account: &Account<'_>) -> Result<()> {
        let chosen = self.smb_exchange(session, Command::Negotiate, &negotiate(DIALECT))?;
        chosen.success("the offer of SMB 3.0.2")?;
        let begin = session_setup(&ntlm::negotiate());
        let challenge = self.smb_exchange(session, Command::SessionSetup, &begin)?;
        ensure!(challenge.status == MORE, "the log-on begins with {:#010x}", challenge.status);
        session.state.session = challenge.session;
        let (token, key) = ntlm::authenticate(account, challenge.token()?)?;
        let what = format!("the log-on of {}", account.user);
        // Only a success is signed.
        let answer =
            self.smb_exchange(session, Command::SessionSetup, &session_setup(&token))?.success(&what)?;
        let key = Key::of_session(&key);
        key.check(&answer.message).context(what)?;
        session.state.key = Some(key);
        Ok(())
    }

    /// Asks for something without waiting for the answer.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn smb_ask(&mut self, session: &mut SmbSession, operation: &Operation<'_>) -> Result<()> {
        let (command, body) = operation.encode();
        let frame = session.state.ask(command, &body);
        self.send(session.connection, &frame)
    }

    /// The answer, once it is here.
    ///
    /// # Errors
    /// When the connection is broken, or it is a wrong one.
    pub fn smb_answer(&mut self, session: &mut SmbSession) -> Result<Option<Answer>> {
        self.receive(session.connection, &mut session.state.received)?;
        session.state.answer()
    }

    /// Asks, and waits for the answer, which must be a success.
    ///
    /// # Errors
    /// When it is none.
    pub fn smb(&mut self, session: &mut SmbSession, operation: &Operation<'_>) -> Result<Answer> {
        let (command, body) = operation.encode();
        self.smb_exchange(session, command, &body)?.success(&format!("{command:?}"))
    }

    /// Gives the connection up.
    pub fn smb_close(&mut self, session: SmbSession) {
        self.close(session.connection);
    }

    fn smb_exchange(&mut self, session: &mut SmbSession, command: Command, body: &[u8]) -> Result<Answer> {
        let frame = session.state.ask(command, body);
        self.send(session.connection, &frame)?;
        let what = format!("the file server's answer to {command:?}");
        self.wait_for(&what, ANSWER_LIMIT, |world| world.smb_answer(session))
    }
}

impl Session {
    /// The next question, as it goes out.
    fn ask(&mut self, command: Command, body: &[u8]) -> Vec<u8> {
        let mut message = message(command, self.asked, self.session, self.tree, body);
        self.asked += 1;
        if let Some(key) = &self.key {
            key.sign(&mut message);
        }
        let length = message.len() as u32;
        [&length.to_be_bytes()[..], &message].concat()
    }

    /// The answer to the last question, if all of it has been received.
    fn answer(&mut self) -> Result<Option<Answer>> {
        while let Some(length) = framed_length(&self.received).filter(|length| self.received.len() >= *length)
        {
            let message = self.received.drain(..length).skip(4).collect();
            let answer = Answer::decode(message)?;
            if answer.status == PENDING {
                continue;
            }
            self.key.as_ref().map_or(Ok(()), |key| key.check(&answer.message))?;
            ensure!(answer.id + 1 == self.asked, "the answer to another question: {answer:02x?}");
            return Ok(Some(answer));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(session: &mut Session, status: u32, id: u64) {
        let mut message = message(Command::Flush, id, 0, 0, &[4, 0, 0, 0]);
        message[8..12].copy_from_slice(&status.to_le_bytes());
        session.received.extend((message.len() as u32).to_be_bytes());
        session.received.extend(message);
    }

    #[test]
    fn an_answer_is_waited_for_in_whatever_pieces() {
        let mut session = Session::default();
        session.ask(Command::Flush, &[]);
        answered(&mut session, PENDING, 0);
        answered(&mut session, 0, 0);
        let last = session.received.pop().unwrap();
        assert_eq!(session.answer().unwrap(), None);
        session.received.push(last);
        assert_eq!(session.answer().unwrap().unwrap().status, 0);
        assert_eq!(session.answer().unwrap(), None);
    }

    #[test]
    fn an_answer_to_something_else_or_unsigned_is_none() {
        let mut session = Session::default();
        session.ask(Command::Flush, &[]);
        answered(&mut session, 0, 1);
        assert!(session.answer().is_err());
        let mut session = Session { key: Some(Key::of_session(&[1; 16])), ..Session::default() };
        session.ask(Command::Flush, &[]);
        answered(&mut session, 0, 0);
        assert!(session.answer().is_err());
    }
}
