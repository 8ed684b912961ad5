//! The `console` applet: one terminal with the box's status, a log-in and the operator's commands.
//!
//! Runs as root, because the commands need PID 1's root-only socket and a root shell (where the site file
//! allows one) needs root anyway. In return it opens no network socket and reads nothing but the terminal, the
//! site file and the status files; before the log-in it takes only a name and a password of bounded length.

mod line;
mod program;
mod screen;
mod session;
mod terminal;

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use kontor_config::Site;
use kontor_status::paths::Paths;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;

use crate::ctl::snapshot::Snapshot;
use program::Program;
use screen::{Kind, Screen};
use session::{Action, Policy, Session};
use terminal::Terminal;

/// The status is looked at no more often than this, however fast it changes.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// PID 1 tells nobody when a service's state changes, so it is asked; also well below the watchdog's 5 s.
const REFRESH_MAX: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let device = args.iter().position(|argument| argument == "--tty").and_then(|i| args.get(i + 1));
    let device = device.context("usage: kontor console --tty DEVICE, for example /dev/ttyS0")?;
    let paths = Paths::from_args(args);
    Console::open(device, paths)?.serve()
}

struct Console {
    paths: Paths,
    notifier: Notifier,
    signals: Signals,
    changes: Changes,
    terminal: Terminal,
    screen: Screen,
    session: Session,
    program: Option<Program>,
    site: Option<Site>,
    /// When the status is looked at next; earlier (but not too early) when something changes.
    refresh_at: Instant,
    refreshed_at: Instant,
}

impl Console {
    fn open(device: &str, paths: Paths) -> anyhow::Result<Self> {
        // SIGTTOU is only blocked: taking the terminal back from a shell must not stop us.
        let signals = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD, Signal::SIGTTOU];
        let signals = Signals::new(&signals).context("signals")?;
        let terminal = Terminal::open(Path::new(device)).with_context(|| format!("opening {device}"))?;
        let now = Instant::now();
        Ok(Self {
            notifier: Notifier::from_environment(),
            signals,
            changes: Changes::watch(&paths.run).context("watching the run-time directory")?,
            terminal,
            screen: Screen::new(Kind::of(device)),
            session: Session::new(now, Policy::default()),
            program: None,
            site: None,
            refresh_at: now,
            refreshed_at: now,
            paths,
        })
    }

    fn serve(mut self) -> anyhow::Result<()> {
        self.notifier.ready();
        loop {
            let now = Instant::now();
            if now >= self.refresh_at {
                self.refresh(now)?;
            }
            self.session.handle_timeout(now);
            self.supervise(now)?;
            self.act()?;
            self.wait()?;
            for signal in self.signals.by_ref() {
                match signal {
                    Signal::SIGTERM => return Ok(()),
                    Signal::SIGHUP => self.refresh_at = Instant::now(),
                    _ => {}
                }
            }
            if self.changes.drain() {
                self.refresh_at = self.refresh_at.min(self.refreshed_at + REFRESH_MIN);
            }
            if !self.program_has_terminal() {
                let bytes = self.terminal.read().context("reading the terminal")?;
                if !bytes.is_empty() {
                    self.session.handle_bytes(Instant::now(), &bytes);
                }
                self.terminal.write_pending()?;
            }
        }
    }

    /// Sleeps until something happens or is due.
    fn wait(&mut self) -> anyhow::Result<()> {
        let program = self.program.as_ref().and_then(Program::deadline);
        let next =
            [self.session.poll_timeout(), program].into_iter().flatten().fold(self.refresh_at, Instant::min);
        let left = next.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
        let timeout = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
        ];
        if !self.program_has_terminal() {
            let output = if self.terminal.has_pending() { PollFlags::POLLOUT } else { PollFlags::empty() };
            fds.push(PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN | output));
        }
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) | Ok(_) => Ok(()),
            Err(error) => Err(error).context("poll"),
        }
    }

    fn program_has_terminal(&self) -> bool {
        self.program.as_ref().is_some_and(Program::owns_terminal)
    }

    /// Looks at the site file and, while nobody is in a dialogue, at everything else.
    fn refresh(&mut self, now: Instant) -> anyhow::Result<()> {
        self.notifier.watchdog();
        (self.refreshed_at, self.refresh_at) = (now, now + REFRESH_MAX);
        self.changes.watch_new();
        self.site = crate::site::read_in_force(&self.paths).ok().or(self.site.take());
        self.session.set_policy(policy(self.site.as_ref()));
        if self.session.is_watching() {
            let text = self.screen.update(self.site.as_ref(), &Snapshot::take(&self.paths));
            self.terminal.write(text.as_bytes())?;
        }
        Ok(())
    }

    /// Looks after the running program.
    fn supervise(&mut self, now: Instant) -> anyhow::Result<()> {
        let Some(program) = &mut self.program else { return Ok(()) };
        if program.has_ended() {
            let owned = program.owns_terminal();
            self.program = None;
            if owned {
                self.terminal.reclaim();
            }
            self.terminal.set_raw()?;
            self.session.finished(now);
        } else if program.deadline().is_some_and(|at| now >= at) {
            program.stop(now);
        }
        Ok(())
    }

    fn act(&mut self) -> anyhow::Result<()> {
        while let Some(action) = self.session.poll_action() {
            let now = Instant::now();
            match action {
                Action::Write(text) => self.terminal.write(text.as_bytes())?,
                Action::Echo(bytes) => self.terminal.write(&bytes)?,
                Action::Verify(password) => {
                    let right = verify(self.site.as_ref(), &password);
                    eprintln!("log-in {}", if right { "of the operator" } else { "failed" });
                    self.session.verified(Instant::now(), right);
                }
                Action::Run(words, input) => {
                    self.start(|tty| Program::command(tty, &words, input.as_deref()))?;
                }
                Action::Converse(words) => {
                    self.terminal.flush()?;
                    self.terminal.set_usual()?;
                    self.start(|tty| Program::conversation(tty, &words))?;
                }
                Action::Shell => {
                    eprintln!("root shell opened");
                    self.terminal.flush()?;
                    self.terminal.set_usual()?;
                    self.start(Program::shell)?;
                }
                Action::Interrupt => {
                    if let Some(program) = &mut self.program {
                        program.stop(now);
                    }
                }
                Action::Watch => {
                    self.screen.forget();
                    self.refresh_at = now;
                }
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        start: impl FnOnce(&std::fs::File) -> std::io::Result<Program>,
    ) -> anyhow::Result<()> {
        self.terminal.flush()?;
        match self.terminal.for_program().and_then(|file| start(&file)) {
            Ok(program) => self.program = Some(program),
            Err(error) => {
                self.terminal.set_raw()?;
                self.terminal.write(format!("cannot start: {error}\n").as_bytes())?;
                self.session.finished(Instant::now());
            }
        }
        Ok(())
    }
}

/// Changes of any daemon's status files.
struct Changes {
    inotify: Inotify,
    run: PathBuf,
    watched: BTreeSet<PathBuf>,
}

impl Changes {
    fn watch(run: &Path) -> nix::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut changes = Self { inotify, run: run.to_owned(), watched: BTreeSet::new() };
        changes.watch_new();
        Ok(changes)
    }

    /// Watches directories that have appeared; one that cannot be watched is looked at every two seconds anyway.
    fn watch_new(&mut self) {
        let entries = std::fs::read_dir(&self.run).into_iter().flatten().flatten().map(|entry| entry.path());
        let wanted: Vec<PathBuf> = entries.filter(|path| path.is_dir()).chain([self.run.clone()]).collect();
        for path in wanted {
            let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ONLYDIR;
            if !self.watched.contains(&path) && self.inotify.add_watch(&path, flags).is_ok() {
                self.watched.insert(path);
            }
        }
    }

    /// Whether anything has changed since the last call.
    fn drain(&self) -> bool {
        let mut any = false;
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {
            any = true;
        }
        any
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn policy(site: Option<&Site>) -> Policy {
    let console = site.map(|site| &site.console);
    Policy {
        login: console.is_some_and(|console| console.operator_password_hash.is_some()),
        shell: console.is_some_and(|console| console.root_shell),
    }
}

/// Whether this is the operator's password. Takes as long as the hash's parameters ask for.
fn verify(site: Option<&Site>, password: &str) -> bool {
    let hash = site.and_then(|site| site.console.operator_password_hash.as_deref());
    let parsed = hash.and_then(|hash| PasswordHash::new(hash).ok());
    parsed.is_some_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}
