//! Commands and shells on the terminal: one at a time, each its own process group, each with an end.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kontor_sys::cgroup::Cgroup;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::init::SHELL;

/// No command of ours takes this long; one that does is stuck.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// A backup of a domain takes minutes; an operator who has gone away must not keep the console.
const CONVERSATION_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Between asking a command to end and making it.
const KILL_DELAY: Duration = Duration::from_secs(2);
/// When the box is out of memory, what an operator is trying out goes first.
const SHELL_OOM_SCORE: &str = "800";
const SHELLS: [&str; 3] = ["/bin/sh", "/bin/dash", "/bin/busybox"];

/// A running program.
pub(super) struct Program {
    child: Child,
    owns_terminal: bool,
    /// When it is stopped, or stopped for good.
    deadline: Option<Instant>,
    asked: bool,
}

impl Program {
    /// `kontor ctl WORDS` with this standard input.
    pub(super) fn command(terminal: &File, words: &[String], input: Option<&[u8]>) -> io::Result<Self> {
        let input = match input {
            Some(bytes) => Stdio::from(in_memory(bytes)?),
            None => Stdio::null(),
        };
        let child = Command::new("/proc/self/exe")
            .arg("ctl")
            .args(words)
            .stdin(input)
            .stdout(terminal.try_clone()?)
            .stderr(terminal.try_clone()?)
            .process_group(0)
            .spawn()?;
        let deadline = Some(Instant::now() + COMMAND_LIMIT);
        Ok(Self { child, owns_terminal: false, deadline, asked: false })
    }

    /// `kontor ctl WORDS`, which owns the terminal until it ends: it may ask for something that is not to be seen.
    pub(super) fn conversation(terminal: &File, words: &[String]) -> io::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .arg("ctl")
            .args(words)
            .stdin(terminal.try_clone()?)
            .stdout(terminal.try_clone()?)
            .stderr(terminal.try_clone()?)
            .process_group(0)
            .spawn()?;
        let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        // Ctrl-C then ends it. Fails when this is not our controlling terminal: then the deadline does.
        let _ = nix::unistd::tcsetpgrp(terminal, group);
        // Had it read before that, it would stand still.
        let _ = killpg(group, Signal::SIGCONT);
        let deadline = Some(Instant::now() + CONVERSATION_LIMIT);
        Ok(Self { child, owns_terminal: true, deadline, asked: false })
    }

    /// A root shell that owns the terminal until it ends, in a control group of its own: what an operator
    /// starts in it can exhaust neither the console nor the gateway.
    pub(super) fn shell(terminal: &File) -> io::Result<Self> {
        let path = SHELLS.iter().find(|path| Path::new(path).exists());
        let path = path.ok_or_else(|| io::Error::other("there is no shell on this box"))?;
        let mut command = Command::new(path);
        if path.ends_with("busybox") {
            command.arg("sh");
        }
        let child = command
            .arg("-i")
            .current_dir("/")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/tmp")
            .env("PS1", "root# ")
            .stdin(terminal.try_clone()?)
            .stdout(terminal.try_clone()?)
            .stderr(terminal.try_clone()?)
            .spawn()?;
        if let Err(error) = bound_shell(child.id()) {
            writeln!(&mut { terminal }, "this shell has no limits of its own: {error}\r")?;
        }
        Ok(Self { child, owns_terminal: true, deadline: None, asked: false })
    }

    pub(super) fn owns_terminal(&self) -> bool {
        self.owns_terminal
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end; the second time, or when time is up again, it has no choice.
    pub(super) fn stop(&mut self, now: Instant) {
        let signal = if std::mem::replace(&mut self.asked, true) { Signal::SIGKILL } else { Signal::SIGTERM };
        if let Ok(group) = i32::try_from(self.child.id()) {
            // Gone already: the next look at it finds out.
            let _ = killpg(Pid::from_raw(group), signal);
        }
        self.deadline = Some(now + KILL_DELAY);
    }
}

fn bound_shell(pid: u32) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), SHELL_OOM_SCORE)?;
    Cgroup::of(SHELL).add(pid)
}

/// A file in memory, so that a long paste cannot block on a pipe.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"kontor-paste", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}
