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

use anyhow::{Context, anyhow, bail, ensure};
use kontor_supervise::Message;
use kontor_sys::file::write_atomic;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::errands::Errands;
use super::image::Root;
use super::office::Office;
use super::{INSIDE, Places};

/// What is wrong when the kernel refuses.
pub(super) const ROOT_ONLY: &str = "cannot make name spaces (a component is run by root)";
/// All services of a component end within this, or are killed; an operator waits for no more.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The file in the run directory with the number of the process inside, as the outside sees it.
pub(super) const PID_FILE: &str = "pid";

/// What a component that runs follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// The site file, which is read again at SIGHUP.
    Site,
    /// Nothing: a developer ends it and starts it again.
    Nothing,
}

/// How a component came to its end.
#[derive(Debug)]
enum End {
    /// By itself.
    Itself(ExitStatus),
    /// By SIGTERM.
    Asked,
    /// The site file now says something else of it.
    Changed,
}

/// Runs the component until it ends, SIGTERM comes, or the site file has nothing for it any more. When the site file says
/// something else, it is stopped and started with that.
pub(super) fn run(places: &Places, follow: Follow) -> anyhow::Result<()> {
    private_directory(&places.state, 0o700)?;
    // Daemons of the box pass through to where they meet the component.
    private_directory(&places.run, 0o711)?;
    // The number of the process inside is in there: one holder, one number.
    let _run = hold(&places.run)?;
    let handled = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, Signal::SIGHUP];
    let count = if follow == Follow::Site { handled.len() } else { handled.len() - 1 };
    let mut signals = Signals::new(&handled[..count])?;
    let own = File::open("/proc/self/ns/pid").context("/proc/self/ns/pid")?;
    loop {
        let Some(office) = Office::of(places)? else {
            ensure!(follow == Follow::Site, "{} has no [{}]", places.site.display(), places.name);
            Notifier::from_environment().status(&format!("off: the site file has no [{}]", places.name));
            return Ok(());
        };
        match session(places, &office, &mut signals, &own)? {
            End::Itself(status) if !status.success() => bail!("the component ended: {status}"),
            End::Itself(_) | End::Asked => return Ok(()),
            End::Changed => println!("the site file says something else now: starting anew"),
        }
    }
}

/// From the start of the process inside to its end.
fn session(places: &Places, office: &Office, signals: &mut Signals, own: &File) -> anyhow::Result<End> {
    if let Root::Image(image) = &places.root {
        image.seal_if_new()?;
    }
    let (ours, theirs) = UnixStream::pair().context("a socket pair")?;
    ours.set_nonblocking(true)?;
    let pid_file = places.run.join(PID_FILE);
    let mut child = start_inside(places, theirs.into(), own)?;
    let written = write_atomic(&pid_file, child.id().to_string().as_bytes());
    if written.is_err() {
        child.kill()?;
    }
    let changed = || has_changed(places, office);
    let errands = Errands::new(places, office);
    let ended = attend(&mut child, &ours, signals, changed, errands, &office.role);
    let _ = fs::remove_file(&pid_file);
    written.with_context(|| pid_file.display().to_string())?;
    ended
}

/// Whether the site file says something else of the component; one that cannot be read says nothing.
fn has_changed(places: &Places, office: &Office) -> bool {
    match Office::of(places) {
        Ok(now) => !now.is_some_and(|now| office.says_the_same(&now)),
        Err(error) => {
            eprintln!("error: {error:#}; it goes on as it is");
            false
        }
    }
}

/// Files in there may be set-id, and are a component's business alone: nobody else gets at them. One that is there gets the mode.
///
/// # Errors
/// The kernel's.
pub(super) fn private_directory(directory: &Path, mode: u32) -> anyhow::Result<()> {
    let made = fs::create_dir_all(directory);
    let private = fs::Permissions::from_mode(mode);
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

/// In a name space for processes of its own, alone: what this process starts later is the box's, `own`. The other name spaces are
/// made inside: this process keeps its paths.
fn start_inside(places: &Places, channel: OwnedFd, own: &File) -> anyhow::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(INSIDE).arg(serde_json::to_string(places)?).stdin(channel);
    unshare(CloneFlags::CLONE_NEWPID).context(ROOT_ONLY)?;
    let child = command.spawn().context("cannot start the process inside");
    setns(own, CloneFlags::CLONE_NEWPID).context("cannot go back to the box's own processes")?;
    child
}

/// Until the process inside has ended, by itself or because it is told to.
fn attend(
    child: &mut Child,
    channel: &UnixStream,
    signals: &mut Signals,
    changed: impl Fn() -> bool,
    mut errands: Errands,
    role: &str,
) -> anyhow::Result<End> {
    let notifier = Notifier::from_environment();
    notifier.status(&format!("starting as {role}"));
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut channel = Some(channel);
    let mut told: Option<(Instant, End)> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(told.map_or(End::Itself(status), |(_, why)| why));
        }
        if let Some((_, why)) = told.take_if(|(deadline, _)| *deadline <= Instant::now()) {
            eprintln!("error: it did not end within {} s, killed", STOP_LIMIT.as_secs());
            // Process 1 takes everything in its name space along.
            child.kill()?;
            child.wait()?;
            return Ok(why);
        }
        errands.turn();
        let deadlines = [told.as_ref().map(|(deadline, _)| *deadline), errands.due()];
        wait(signals, channel, deadlines.into_iter().flatten().min());
        // Closed before everybody in there is gone, which may take a while on a disk that hangs.
        channel = channel.filter(|channel| pass_on(channel, &notifier, &mut errands));
        for signal in signals.by_ref() {
            let why = match signal {
                Signal::SIGCHLD => continue,
                Signal::SIGHUP if told.is_some() || !changed() => {
                    errands.hear_of_new_site();
                    continue;
                }
                Signal::SIGHUP => End::Changed,
                _ => End::Asked,
            };
            let deadline = told.map_or_else(|| Instant::now() + STOP_LIMIT, |(deadline, _)| deadline);
            told = Some((deadline, why));
            // Gone already: its end is seen in the next round.
            let _ = kill(pid, Signal::SIGTERM);
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
fn pass_on(mut channel: &UnixStream, notifier: &Notifier, errands: &mut Errands) -> bool {
    let mut said = [0; 4096];
    let Ok(length) = channel.read(&mut said) else { return true };
    for message in Message::parse(&said[..length]) {
        errands.hear(&message);
        match message {
            Message::Ready => notifier.ready(),
            Message::Watchdog => notifier.watchdog(),
            Message::Extend(by) => notifier.extend(by),
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
