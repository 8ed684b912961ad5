//! Running one of Samba's tools as somebody, for as long as it is worth it.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Most of what a tool says that is kept; a join says some ten KiB.
const MAX_SAID: usize = 1 << 20;

/// Somebody of the domain.
pub(super) struct Account {
    pub(super) user: String,
    pub(super) password: String,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Whether it ended well, and in time.
    pub(super) success: bool,
    /// Everything it has written.
    pub(super) said: String,
}

/// The password goes through a pipe (samba(7), `PASSWD_FD`): it is in no argument, no environment and no file.
///
/// # Errors
/// When the tool cannot be started.
pub(super) fn run_as(account: &Account, words: &[String], limit: Duration) -> anyhow::Result<Outcome> {
    let mut command = command(words)?;
    command.arg(format!("--user={}", account.user)).env("PASSWD_FD", "0").stdin(Stdio::piped());
    finish(command, &format!("{}\n", account.password), limit)
}

/// As whoever its arguments say.
///
/// # Errors
/// When the tool cannot be started.
pub(super) fn run(words: &[String], limit: Duration) -> anyhow::Result<Outcome> {
    let mut command = command(words)?;
    command.stdin(Stdio::null());
    finish(command, "", limit)
}

/// What a tool that failed says of it.
pub(super) fn last_line(said: &str) -> &str {
    said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing was said")
}

fn command(words: &[String]) -> anyhow::Result<Command> {
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

fn finish(mut command: Command, input: &str, limit: Duration) -> anyhow::Result<Outcome> {
    let (output, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
    // This process's ends of the pipe close with it: the child alone holds others.
    drop(command);
    if let Some(mut pipe) = child.stdin.take() {
        // One that ends without reading says why.
        let _ = pipe.write_all(input.as_bytes());
    }
    let (said, ended) = read_until(output, Instant::now() + limit)?;
    if !ended {
        child.kill()?;
    }
    let status = child.wait()?;
    let said = if ended { said } else { format!("{said}\nNT_STATUS_IO_TIMEOUT: it did not end\n") };
    Ok(Outcome { success: ended && status.success(), said })
}

/// Until everybody has closed the pipe, or the deadline; false when that came first.
fn read_until(mut output: io::PipeReader, deadline: Instant) -> anyhow::Result<(String, bool)> {
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        let ready = poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], timeout);
        if left.is_zero() {
            return Ok((String::from_utf8_lossy(&said).into_owned(), false));
        }
        if ready.unwrap_or(0) == 0 {
            continue;
        }
        let mut buffer = [0; 8192];
        let length = output.read(&mut buffer)?;
        if length == 0 {
            return Ok((String::from_utf8_lossy(&said).into_owned(), true));
        }
        let room = MAX_SAID.saturating_sub(said.len()).min(length);
        said.extend_from_slice(&buffer[..room]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Outcome {
        let account = Account { user: "anna".into(), password: " a b ".into() };
        let words = ["/bin/sh", "-c", script, "sh"].map(str::to_owned);
        run_as(&account, &words, limit).unwrap()
    }

    #[test]
    fn the_password_comes_by_the_pipe_and_nowhere_else() {
        let script = "IFS= read -r line; echo \"[$line] $1\"; env; tr '\\0' ' ' < /proc/$$/cmdline; exit 3";
        let outcome = shell(script, Duration::from_secs(30));
        assert!(!outcome.success);
        assert!(outcome.said.starts_with("[ a b ] --user=anna\n"), "{}", outcome.said);
        assert_eq!(outcome.said.matches(" a b ").count(), 1, "{}", outcome.said);
    }

    #[test]
    fn one_that_hangs_is_ended_and_counts_as_no_answer() {
        let outcome = shell("echo begun; exec cat /dev/zero > /dev/null", Duration::from_millis(200));
        assert!(!outcome.success && outcome.said.starts_with("begun\n"), "{}", outcome.said);
        assert!(outcome.said.contains("NT_STATUS_IO_TIMEOUT"));
    }
}
