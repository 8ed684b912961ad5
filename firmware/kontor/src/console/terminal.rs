//! The terminal device: raw for the dialogue, as usual for a shell.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    self, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, Termios,
};

/// Output kept when the terminal does not take it; a stuck line must not fill the memory.
const PENDING_MAX: usize = 256 * 1024;
/// How long output may be waited for before a program takes over the terminal.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// An open terminal that never blocks.
pub(super) struct Terminal {
    path: PathBuf,
    file: File,
    usual: Termios,
    pending: VecDeque<u8>,
}

impl Terminal {
    /// Opens the device; it becomes the controlling terminal of a session that has none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Not a session leader's child by chance: init gives each service its own session already.
        let _ = nix::unistd::setsid();
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
        let mut usual = termios::tcgetattr(&file)?;
        // A serial line without carrier detection must neither block nor hang up.
        usual.control_flags.insert(ControlFlags::CLOCAL | ControlFlags::CREAD);
        usual.input_flags.insert(InputFlags::ICRNL);
        usual.output_flags.insert(OutputFlags::OPOST | OutputFlags::ONLCR);
        let local =
            LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ECHOE | LocalFlags::ISIG | LocalFlags::IEXTEN;
        usual.local_flags.insert(local);
        let terminal = Self { path: path.to_owned(), file, usual, pending: VecDeque::new() };
        terminal.set_raw()?;
        Ok(terminal)
    }

    /// No echo, no line editing and no signals by the kernel; output lines still end with CR LF.
    pub(super) fn set_raw(&self) -> io::Result<()> {
        let mut raw = self.usual.clone();
        let local = LocalFlags::ICANON
            | LocalFlags::ECHO
            | LocalFlags::ISIG
            | LocalFlags::IEXTEN
            | LocalFlags::TOSTOP;
        raw.local_flags.remove(local);
        // IXON off: a pasted ^S must not stop the output for ever.
        raw.input_flags.remove(
            InputFlags::ICRNL | InputFlags::INLCR | InputFlags::IGNCR | InputFlags::IXON | InputFlags::ISTRIP,
        );
        raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        raw.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        Ok(termios::tcsetattr(&self.file, SetArg::TCSANOW, &raw)?)
    }

    /// As a shell expects it.
    pub(super) fn set_usual(&self) -> io::Result<()> {
        Ok(termios::tcsetattr(&self.file, SetArg::TCSADRAIN, &self.usual)?)
    }

    /// Takes the terminal back from a shell that made itself its foreground process group.
    pub(super) fn reclaim(&self) {
        // Fails when this is not our controlling terminal; then no shell could take it either.
        let _ = nix::unistd::tcsetpgrp(&self.file, nix::unistd::getpgrp());
    }

    /// A second, blocking descriptor for a program's input and output.
    pub(super) fn for_program(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(&self.path)
    }

    /// Everything that has arrived.
    pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.file.read(&mut buffer) {
                // Raw and without data it would be WouldBlock: the line is gone, and init starts us anew.
                Ok(0) => return Err(io::Error::other("the terminal hung up")),
                Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues output and writes what the terminal takes now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = PENDING_MAX.saturating_sub(self.pending.len());
        self.pending.extend(bytes.iter().take(room));
        self.write_pending()
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn write_pending(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match self.file.write(front) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what is queued before a program writes to the same terminal.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let end = Instant::now() + FLUSH_LIMIT;
        while self.has_pending() && Instant::now() < end {
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            poll(&mut fds, PollTimeout::from(200u16))?;
            self.write_pending()?;
        }
        Ok(())
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.set_usual();
    }
}
