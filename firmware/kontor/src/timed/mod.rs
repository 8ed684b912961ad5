//! The `timed` applet: the box's clock, and the office's.
//!
//! Renders chrony's configuration from the site file and from what netd knows about the external network,
//! runs chronyd on it, and restarts chronyd when the configuration changes (site reloaded, WAN up or
//! changed, state partition mounted) — and only then. When chronyd ends by itself, so does this daemon;
//! the supervisor starts both again.

mod chronyd;
mod render;

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context, bail};
use kontor_config::Site;
use kontor_status::NetStatus;
use kontor_status::paths::Paths;
use kontor_sys::file::write_atomic;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use kontor_sys::watch::FileWatch;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::site;
use chronyd::{Chronyd, Program};
use render::Places;

/// The supervisor expects a sign of life every five seconds.
const HEARTBEAT_MS: u16 = 2000;
const HANDLED: [Signal; 4] = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD];
/// Where the component samba meets chronyd, see its manifest.
const SIGNING: &str = "samba/ntp-signd";

/// Options beside those of [`Paths`]: `--chronyd FILE`, `--user NAME`, and `--dry` (the clock is left alone).
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let option = |name: &str| {
        let mut rest = args.iter().skip_while(move |argument| *argument != name);
        rest.nth(1).cloned()
    };
    let program = Program {
        path: option("--chronyd").unwrap_or_else(|| "/usr/sbin/chronyd".to_owned()).into(),
        user: option("--user").unwrap_or_else(|| "_chrony".to_owned()),
        dry: args.iter().any(|argument| argument == "--dry"),
    };
    Daemon::new(Paths::from_args(args), program)?.serve()
}

struct Daemon {
    paths: Paths,
    program: Program,
    site: Site,
    signals: Signals,
    net_watch: FileWatch,
    state_watch: FileWatch,
    notifier: Notifier,
}

/// What the event loop goes on with.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

impl Daemon {
    fn new(paths: Paths, program: Program) -> anyhow::Result<Self> {
        let net_watch = FileWatch::new(&paths.net_status())?;
        // Told when `/state/timed` is made, and harmlessly each time chronyd writes into it. That `/state`
        // is mounted tells nobody: the loop looks at every heartbeat.
        let state_watch = FileWatch::new(&state_directory(&paths).join("drift"))?;
        let site = site::read_in_force(&paths)?;
        let (signals, notifier) = (Signals::new(&HANDLED)?, Notifier::from_environment());
        Ok(Self { paths, program, site, signals, net_watch, state_watch, notifier })
    }

    fn serve(mut self) -> anyhow::Result<()> {
        let mut text = self.render();
        let mut chronyd = self.start(&text)?;
        self.notifier.ready();
        loop {
            self.notifier.watchdog();
            self.wait()?;
            if let Some(status) = chronyd.ended()? {
                bail!("chronyd has ended: {status}");
            }
            let mut next = self.handle_signals();
            let wanted = self.render();
            if next == Next::Continue && wanted != text {
                eprintln!("configuration changed: restarting chronyd");
                let arrived = chronyd.stop(&mut self.signals)?;
                next = self.handle(&arrived);
                text = self.render();
                chronyd = self.start(&text)?;
            }
            if next == Next::Stop {
                chronyd.stop(&mut self.signals)?;
                return Ok(());
            }
        }
    }

    fn start(&self, text: &str) -> anyhow::Result<Chronyd> {
        let run = self.run_directory();
        std::fs::create_dir_all(&run).with_context(|| run.display().to_string())?;
        let conf = run.join("chrony.conf");
        write_atomic(&conf, text.as_bytes()).with_context(|| conf.display().to_string())?;
        // Ours has ended; chronyd would believe in the number of a killed one when another process has it.
        let _ = std::fs::remove_file(run.join("chronyd.pid"));
        let chronyd = Chronyd::start(&self.program, &conf);
        let chronyd = chronyd.with_context(|| format!("starting {}", self.program.path.display()))?;
        self.notifier.status(&status_line(text));
        Ok(chronyd)
    }

    /// Blocks until something happens or a sign of life is due.
    fn wait(&mut self) -> anyhow::Result<()> {
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.net_watch.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.state_watch.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::from(HEARTBEAT_MS)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.net_watch.drain()?;
        self.state_watch.drain()?;
        Ok(())
    }

    fn handle_signals(&mut self) -> Next {
        let arrived: Vec<_> = self.signals.by_ref().collect();
        self.handle(&arrived)
    }

    fn handle(&mut self, signals: &[Signal]) -> Next {
        if signals.contains(&Signal::SIGHUP) {
            match site::read_in_force(&self.paths) {
                Ok(site) => self.site = site,
                Err(error) => eprintln!("the site stays as it was: {error:#}"),
            }
        }
        let stop = signals.iter().any(|signal| matches!(signal, Signal::SIGTERM | Signal::SIGINT));
        if stop { Next::Stop } else { Next::Continue }
    }

    fn render(&self) -> String {
        let net = std::fs::read(self.paths.net_status()).ok();
        let net = net.and_then(|json| serde_json::from_slice::<NetStatus>(&json).ok());
        let state = Some(state_directory(&self.paths)).filter(|directory| directory.is_dir());
        let signing = self.paths.run.join(SIGNING);
        render::render(&self.site, net.as_ref(), &Places { run: self.run_directory(), state, signing })
    }

    fn run_directory(&self) -> PathBuf {
        self.paths.run.join("timed")
    }
}

fn state_directory(paths: &Paths) -> PathBuf {
    paths.state.join("timed")
}

/// The servers in use, for people.
fn status_line(conf: &str) -> String {
    let source = |line: &str| {
        let rest = line.strip_prefix("server ").or_else(|| line.strip_prefix("pool "))?;
        rest.split(' ').next().map(str::to_owned)
    };
    format!("asking {}", conf.lines().filter_map(source).collect::<Vec<_>>().join(", "))
}
