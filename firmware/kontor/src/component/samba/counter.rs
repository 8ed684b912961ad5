//! Where somebody who may join computers gives the password: a socket in the component's private RAM.
//!
//! One line with the user, one with the password and one that says how patient they are come in; lines for people go out, the
//! last one with the outcome. Nothing of it is ever a file here.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tool::Account;

/// The socket, for root alone.
pub(crate) const COUNTER: &str = "/run/kontor/join.sock";
/// How the last line begins, joined or not.
pub(crate) const ANSWER_END: [&str; 2] = ["joined: ", "refused: "];
/// Or the whole of it: somebody else has come, and what headquarters thinks of this password nobody knows.
pub(crate) const REPLACED: &str = "replaced";
/// The third line of one who is to be tried again where a person would rather be asked, and of that person.
pub(crate) const PATIENT: &str = "patient";
pub(crate) const ONCE: &str = "once";
/// Who connects has everything ready to be sent.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// User and password are far shorter.
const MAX_ASKED: u64 = 4096;

/// The counter while it is open.
#[derive(Debug)]
pub(super) struct Counter(UnixListener);

/// Somebody who has given a password and waits for the outcome, or does not any more.
pub(super) struct Applicant {
    pub(super) account: Account,
    pub(super) is_patient: bool,
    stream: UnixStream,
}

impl Counter {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open() -> anyhow::Result<Self> {
        let listener = UnixListener::bind(COUNTER).context(COUNTER)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(COUNTER, fs::Permissions::from_mode(0o600)).context(COUNTER)?;
        Ok(Self(listener))
    }

    /// The next who comes, or nobody within the limit.
    pub(super) fn next(&self, limit: Duration) -> Option<Applicant> {
        let timeout = PollTimeout::try_from(limit.as_millis()).unwrap_or(PollTimeout::MAX);
        // An error is EINTR: nobody came.
        let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout);
        let (stream, _) = self.0.accept().ok()?;
        Applicant::read(stream).ok()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = fs::remove_file(COUNTER);
    }
}

impl Applicant {
    fn read(stream: UnixStream) -> anyhow::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        stream.set_write_timeout(Some(READ_LIMIT))?;
        let mut lines = BufReader::new((&stream).take(MAX_ASKED)).lines();
        let mut next = || lines.next().context("cut short")?.context("cut short");
        let account = Account { user: next()?, password: next()? };
        let is_patient = next()? == PATIENT;
        drop(lines);
        Ok(Self { account, is_patient, stream })
    }

    /// How it goes; to the log as well, by the caller.
    pub(super) fn tell(&self, text: &str) {
        // Somebody who does not wait any more has left the password here all the same.
        let _ = writeln!(&self.stream, "{text}");
    }

    /// The password is forgotten, untried.
    pub(super) fn turn_away(self) {
        self.tell(REPLACED);
    }

    /// The outcome; the password is forgotten.
    pub(super) fn answer(self, outcome: Result<&str, &str>) {
        let [joined, refused] = ANSWER_END;
        match outcome {
            Ok(text) => self.tell(&format!("{joined}{text}")),
            Err(text) => self.tell(&format!("{refused}{text}")),
        }
    }
}
