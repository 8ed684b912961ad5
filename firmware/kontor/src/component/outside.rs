//! The process outside the component: starts the one inside, passes on what it says of itself, and ends it.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use kontor_supervise::Message;
use kontor_sys::file::write_atomic;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{INSIDE, Places};

/// What is wrong when the kernel refuses.
pub(super) const ROOT_ONLY: &str = "cannot make name spaces (a component is run by root)";
/// All services of a component end within this, or are killed; an operator waits for no more.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The file in the run directory with the number of the process inside, as the outside sees it.
pub(super) const PID_FILE: &str = "pid";

/// Runs the component until it ends or SIGTERM comes.
pub(super) fn run(places: &Places) -> anyhow::Result<()> {
    [&places.state, &places.run].into_iter().try_for_each(|directory| private_directory(directory))?;
    // The number of the process inside is in there: one holder, one number.
    let _run = hold(&places.run)?;
    let signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD])?;
    // Holds for children only. The other name spaces are made inside: this process keeps its paths.
    unshare(CloneFlags::CLONE_NEWPID).context(ROOT_ONLY)?;
    let (ours, theirs) = UnixStream::pair().context("a socket pair")?;
    ours.set_nonblocking(true)?;
    let pid_file = places.run.join(PID_FILE);
    let mut child = start_inside(places, theirs.into())?;
    let written = write_atomic(&pid_file, child.id().to_string().as_bytes());
    if written.is_err() {
        child.kill()?;
    }
    let ended = attend(&mut child, &ours, signals);
    let _ = fs::remove_file(&pid_file);
    written.with_context(|| pid_file.display().to_string())?;
    let (status, asked) = ended?;
    if asked || status.success() {
        return Ok(());
    }
    bail!("the component ended: {status}");
}

/// Files in there may be set-id, and are a component's business alone: nobody else gets at them.
fn private_directory(directory: &Path) -> anyhow::Result<()> {
    let made = fs::create_dir_all(directory);
    let private = fs::Permissions::from_mode(0o700);
    made.and_then(|()| fs::set_permissions(directory, private))
        .with_context(|| format!("cannot make {}", directory.display()))
}

/// One component at a time works on a directory; held as long as the file is open, here or in whoever inherits it.
///
/// # Errors
/// When another holds it.
pub(super) fn hold(directory: &Path) -> anyhow::Result<Flock<File>> {
    let file = File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => anyhow!("it already runs on {}", directory.display()),
        _ => anyhow!("cannot lock {}: {error}", directory.display()),
    })
}

fn start_inside(places: &Places, channel: OwnedFd) -> anyhow::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(INSIDE).arg(serde_json::to_string(places)?).stdin(channel);
    command.spawn().context("cannot start the process inside")
}

/// Until the process inside has ended; whether that was asked for.
fn attend(child: &mut Child, channel: &UnixStream, signals: Signals) -> anyhow::Result<(ExitStatus, bool)> {
    let notifier = Notifier::from_environment();
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut signals = signals;
    let mut channel = Some(channel);
    let mut deadline: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, deadline.is_some()));
        }
        if deadline.is_some_and(|at| at <= Instant::now()) {
            eprintln!("error: it did not end within {} s, killed", STOP_LIMIT.as_secs());
            // Process 1 takes everything in its name space along.
            child.kill()?;
            return Ok((child.wait()?, true));
        }
        wait(&signals, channel, deadline);
        // Closed before everybody in there is gone, which may take a while on a disk that hangs.
        channel = channel.filter(|channel| pass_on(channel, &notifier));
        for signal in signals.by_ref() {
            if signal != Signal::SIGCHLD {
                deadline.get_or_insert(Instant::now() + STOP_LIMIT);
                // Gone already: its end is seen in the next round.
                let _ = kill(pid, Signal::SIGTERM);
            }
        }
    }
}

fn wait(signals: &Signals, channel: Option<&UnixStream>, deadline: Option<Instant>) {
    let readers = [Some(signals.as_fd()), channel.map(AsFd::as_fd)].into_iter().flatten();
    let mut fds: Vec<PollFd> = readers.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()).as_millis() + 1);
    let timeout =
        left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    // An error is EINTR: the caller looks at everything anyway.
    let _ = poll(&mut fds, timeout);
}

/// False when nothing will come any more.
fn pass_on(mut channel: &UnixStream, notifier: &Notifier) -> bool {
    let mut said = [0; 4096];
    let Ok(length) = channel.read(&mut said) else { return true };
    for message in Message::parse(&said[..length]) {
        match message {
            Message::Ready => notifier.ready(),
            Message::Watchdog => notifier.watchdog(),
            Message::Status(text) => notifier.status(&text),
        }
    }
    length > 0
}

/// The process inside a running component.
pub(super) fn pid_inside(run: &Path) -> anyhow::Result<i32> {
    let path = run.join(PID_FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("it does not run: {}", path.display()))?;
    text.trim().parse().with_context(|| path.display().to_string())
}
