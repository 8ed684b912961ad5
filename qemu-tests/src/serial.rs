//! A machine's serial console: everything it wrote, as text, and a cursor that tests move forward.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result};

/// The console's far end.
#[derive(Debug)]
pub struct Serial {
    listener: UnixListener,
    stream: Option<UnixStream>,
    log: File,
    plain: Plain,
    text: String,
    cursor: usize,
}

impl Serial {
    /// Listens on `socket`; everything received is also appended to `log`, unchanged.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn listen(socket: &Path, log: &Path) -> Result<Self> {
        let listener =
            UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
        listener.set_nonblocking(true)?;
        let log = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let plain = Plain::default();
        Ok(Self { listener, stream: None, log, plain, text: String::new(), cursor: 0 })
    }

    /// Everything since power-on, without terminal control sequences.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What no test has consumed yet.
    #[must_use]
    pub fn unread(&self) -> &str {
        &self.text[self.cursor..]
    }

    /// Consumes everything up to and with the first `pattern`; what was consumed.
    pub fn take_through(&mut self, pattern: &str) -> Option<String> {
        let end = self.unread().find(pattern)? + pattern.len();
        Some(self.take(end))
    }

    /// Consumes everything up to the end of the first complete line with `pattern`; that line.
    pub fn take_line(&mut self, pattern: &str) -> Option<String> {
        let unread = self.unread();
        let found = unread.find(pattern)?;
        let start = unread[..found].rfind('\n').map_or(0, |newline| newline + 1);
        let end = found + unread[found..].find('\n')?;
        let line = unread[start..end].to_owned();
        self.take(end + 1);
        Some(line)
    }

    fn take(&mut self, length: usize) -> String {
        let taken = self.unread()[..length].to_owned();
        self.cursor += length;
        taken
    }

    /// Consumes everything so far.
    pub fn skip(&mut self) {
        self.cursor = self.text.len();
    }

    /// Types.
    ///
    /// # Errors
    /// When no machine is connected.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let stream = self.stream.as_mut().context("no machine is connected to the serial console")?;
        // A socket of the host holds far more than a test types, so this does not block in practice.
        stream.set_nonblocking(false)?;
        stream.write_all(text.as_bytes()).context("type on the serial console")?;
        stream.set_nonblocking(true)?;
        Ok(())
    }

    /// What the event loop must watch.
    pub(crate) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.stream.as_ref().map(AsFd::as_fd))
    }

    /// Reads what is there; whether anything was.
    pub(crate) fn receive(&mut self) -> io::Result<bool> {
        if let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            self.stream = Some(stream);
            self.plain = Plain::default();
        }
        let mut any = false;
        let mut buffer = [0; 8192];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => self.stream = None,
                Ok(count) => {
                    self.log.write_all(&buffer[..count])?;
                    self.plain.push(&buffer[..count], &mut self.text);
                    any = true;
                }
            }
        }
        Ok(any)
    }
}

/// Takes terminal control sequences (ECMA-48) and carriage returns out of a stream.
#[derive(Debug, Default)]
struct Plain {
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    Sequence,
}

impl Plain {
    fn push(&mut self, bytes: &[u8], into: &mut String) {
        for byte in bytes {
            self.state = match (self.state, *byte) {
                (_, 0x1b) => State::Escape,
                (State::Escape, b'[' | b'(' | b')' | b'#') => State::Sequence,
                (State::Sequence, 0x20..=0x3f) => State::Sequence,
                (State::Escape | State::Sequence, _) => State::Text,
                (State::Text, b'\r' | 0) => State::Text,
                (State::Text, byte) => {
                    // Only ASCII is ever looked for.
                    into.push(if byte.is_ascii() { char::from(byte) } else { '\u{fffd}' });
                    State::Text
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunks: &[&[u8]], expect: &str) {
        let (mut plain, mut text) = (Plain::default(), String::new());
        for chunk in chunks {
            plain.push(chunk, &mut text);
        }
        assert_eq!(text, expect);
    }

    #[test]
    fn control_sequences_are_taken_out_wherever_they_are_cut() {
        check(&[b"a\x1b[1;31mb\x1b[0mc\r\n"], "abc\n");
        check(&[b"a\x1b", b"[2", b"Jb"], "ab");
        check(&[b"\x1bcready"], "ready");
    }

    #[test]
    fn the_cursor_moves_over_what_was_found() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let mut serial = Serial::listen(&socket, &directory.path().join("log")).unwrap();
        let mut machine = UnixStream::connect(&socket).unwrap();
        machine.write_all(b"one two\nthree: 4\nfive").unwrap();
        assert!(serial.receive().unwrap());
        assert_eq!(serial.take_through("two").as_deref(), Some("one two"));
        assert_eq!(serial.take_line("three").as_deref(), Some("three: 4"));
        assert_eq!(serial.take_line("five"), None);
        assert_eq!(serial.unread(), "five");
    }
}
