//! QEMU's control connection (QMP): one JSON object per line.
//!
//! We listen, QEMU connects; so there is nothing to wait or retry for.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::os::fd::AsFd;

/// QEMU answers from its main loop; on a loaded machine that may take a while.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A control connection to a running QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

/// The listening end, made before QEMU starts.
#[derive(Debug)]
pub struct QmpListener {
    listener: UnixListener,
    path: PathBuf,
}

impl QmpListener {
    /// Listens on `path`.
    ///
    /// # Errors
    /// The kernel's, for example when the path is too long.
    pub fn bind(path: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.into() })
    }

    /// Where QEMU must connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for QEMU and does the greeting. `alive` is asked every now and then whether QEMU still runs.
    ///
    /// # Errors
    /// When QEMU ends before, or does not connect in time.
    pub fn accept(&self, mut alive: impl FnMut() -> bool) -> Result<Qmp> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => return Qmp::greet(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("accept QEMU's control connection"),
            }
            if !alive() {
                bail!("QEMU ended before it was ready");
            }
            if Instant::now() >= deadline {
                bail!("QEMU did not connect within {} s", ANSWER_LIMIT.as_secs());
            }
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(200_u8));
        }
    }
}

impl Qmp {
    fn greet(stream: UnixStream) -> Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU's greeting is not QMP: {greeting}");
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns its answer; events in between are dropped.
    ///
    /// # Errors
    /// When the connection is gone or QEMU refuses the command.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .with_context(|| format!("send {command} to QEMU"))?;
        loop {
            let answer = self.read().with_context(|| format!("QEMU's answer to {command}"))?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {command}: {error}");
            }
        }
    }

    /// Resets the machine, as its button does.
    ///
    /// # Errors
    /// As [`Self::execute`]; so do all the others.
    pub fn system_reset(&mut self) -> Result<()> {
        self.execute("system_reset", &json!({})).map(drop)
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn system_powerdown(&mut self) -> Result<()> {
        self.execute("system_powerdown", &json!({})).map(drop)
    }

    /// Ends QEMU; whatever it holds in its own memory is written.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit", &json!({})).map(drop)
    }

    /// Writes what the graphics card shows into `file` (PPM).
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn screendump(&mut self, file: &Path) -> Result<()> {
        self.execute("screendump", &json!({ "filename": file })).map(drop)
    }

    /// Plugs in or pulls the cable of port `nic` (0-based).
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn set_link(&mut self, nic: usize, up: bool) -> Result<()> {
        self.execute("set_link", &json!({ "name": format!("nic{nic}"), "up": up })).map(drop)
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => bail!("QEMU closed its control connection"),
            // It ended with a command of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                bail!("QEMU closed its control connection")
            }
            result => result?,
        };
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that greets and then sends these lines, one per line it receives.
    fn scripted(answers: &'static [&'static str]) -> Qmp {
        let directory = tempfile::tempdir().unwrap();
        let listener = QmpListener::bind(&directory.path().join("q")).unwrap();
        let stream = UnixStream::connect(listener.path()).unwrap();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            stream.get_mut().write_all(b"{\"QMP\":{}}\n").unwrap();
            let mut line = String::new();
            for answer in std::iter::once(&"{\"return\":{}}").chain(answers) {
                stream.read_line(&mut line).unwrap();
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
                stream.get_mut().write_all(b"\n").unwrap();
            }
        });
        listener.accept(|| true).unwrap()
    }

    #[test]
    fn events_before_the_answer_are_skipped() {
        let mut qmp = scripted(&["{\"event\":\"RESET\"}\n{\"return\":{\"n\":1}}"]);
        assert_eq!(qmp.execute("x", &json!({})).unwrap(), json!({"n": 1}));
    }

    #[test]
    fn refusals_and_a_closed_connection_are_errors() {
        let mut qmp = scripted(&["{\"error\":{\"desc\":\"no such thing\"}}"]);
        let error = qmp.quit().unwrap_err().to_string();
        assert!(error.contains("no such thing"), "{error}");
        let error = format!("{:#}", qmp.quit().unwrap_err());
        assert!(error.contains("closed") || error.contains("send quit"), "{error}");
    }
}
