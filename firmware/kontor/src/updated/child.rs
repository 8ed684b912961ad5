//! A child of the daemon: started as whom it has to be, heard line by line, never waited for.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kontor_sys::file::write_atomic;
use kontor_sys::spawn::{Identity, Launch};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fetch::Progress;
use super::places::FETCH_USER;

/// Characters of a line that are kept.
const MAX_LINE: usize = 400;
const READS_A_TURN: usize = 16;
/// Files at once: a few and a connection.
const MAX_FILES: u64 = 128;

/// A child.
pub(super) struct Child {
    pid: Pid,
    output: fs::File,
    unfinished: Vec<u8>,
    has_ended: bool,
    /// When it was started, or its progress last grew.
    moved: Instant,
    /// Without any for so long it is ended.
    patience: Duration,
    /// The last progress it has told.
    pub(super) progress: Option<Progress>,
    /// The last thing it has said that is no progress: why it ended, when it ended badly.
    pub(super) said: String,
}

/// Who a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    /// A user without any right.
    Fetcher,
    /// Root.
    Installer,
}

impl As {
    /// Metadata of some KiB, or a download that stands still; a slot and a component on a slow disk.
    fn patience(self) -> Duration {
        match self {
            Self::Fetcher => Duration::from_secs(600),
            Self::Installer => Duration::from_secs(3600),
        }
    }
}

impl Child {
    /// Starts `kontor updated WORDS ORDER` with these files open; the order is written into `run` first.
    pub(super) fn start(
        who: As,
        words: &[&str],
        order: &impl Serialize,
        inherited: Vec<OwnedFd>,
        run: &Path,
    ) -> anyhow::Result<Self> {
        let path = run.join("order.json");
        write_atomic(&path, &serde_json::to_vec(order)?).with_context(|| path.display().to_string())?;
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut args = vec!["updated".to_owned()];
        args.extend(words.iter().map(|word| (*word).to_owned()));
        args.push(path.to_string_lossy().into_owned());
        let identity = match who {
            As::Fetcher => Identity::User { id: FETCH_USER, capabilities: Vec::new() },
            As::Installer => Identity::Root,
        };
        let launch = Launch {
            program: "/proc/self/exe".into(),
            args,
            environment: vec![("PATH".to_owned(), "/usr/sbin:/usr/bin".to_owned())],
            identity,
            cgroup: None,
            output: writer,
            input: None,
            inherited,
            max_files: MAX_FILES,
            oom_score_adjust: 500,
        };
        let pid = Pid::from_raw(i32::try_from(launch.spawn().context("cannot start a child")?)?);
        let output = fs::File::from(reader);
        Ok(Self {
            pid,
            output,
            unfinished: Vec::new(),
            has_ended: false,
            moved: Instant::now(),
            patience: who.patience(),
            progress: None,
            said: String::new(),
        })
    }

    /// Hears what it says, and whether it has ended: with success, or not.
    pub(super) fn turn(&mut self) -> Option<bool> {
        let ended = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => None,
            Ok(WaitStatus::Exited(_, code)) => Some(code == 0),
            Ok(_) | Err(_) => Some(false),
        };
        self.has_ended |= ended.is_some();
        self.hear();
        if ended.is_none() && self.moved.elapsed() > self.patience {
            self.said = format!("it brought nothing for {} s", self.patience.as_secs());
            return Some(false);
        }
        ended
    }

    fn hear(&mut self) {
        let mut buffer = [0; 4096];
        // Bounded, so that one that talks without end keeps nobody from anything.
        for _ in 0..READS_A_TURN {
            match self.output.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => self.take(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.line(),
                _ if self.unfinished.len() < MAX_LINE => self.unfinished.push(*byte),
                _ => {}
            }
        }
    }

    fn line(&mut self) {
        let line = std::mem::take(&mut self.unfinished);
        match serde_json::from_slice(&line) {
            Ok(progress) => {
                if self.progress != Some(progress) {
                    self.moved = Instant::now();
                }
                self.progress = Some(progress);
            }
            Err(_) => {
                self.said = String::from_utf8_lossy(&line).into_owned();
                eprintln!("{}", self.said);
            }
        }
    }

    /// Why it failed, for people.
    pub(super) fn reason(&self) -> String {
        match self.said.strip_prefix("kontor updated: ").unwrap_or(&self.said) {
            "" => "it ended without a word".to_owned(),
            said => said.to_owned(),
        }
    }
}

/// What [`Child::start`] has written, read by the child.
pub(super) fn read_order<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

impl Drop for Child {
    fn drop(&mut self) {
        // The number of one that was waited for may be another's by now.
        if self.has_ended {
            return;
        }
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}
