//! The event loop.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use kontor_dhcp4::Instant;
use kontor_dhcp4::server::{Action, Server};
use kontor_status::paths::Paths;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use kontor_sys::watch::FileWatch;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::site;

use super::clock::{self, JumpDetector};
use super::link::Link;
use super::names::NamesLink;
use super::settings::{Settings, surroundings};
use super::status::StatusFile;
use super::store::Store;

/// A journal that was gone on with is written anew so much later: whether that works is known before anybody relies on it.
const REWRITE_DELAY: Duration = Duration::from_secs(3);
/// How often interfaces, disk, dnsd and the clock are looked at; also the watchdog's beat (limit 5 s).
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Daemon {
    paths: Paths,
    notifier: Notifier,
    signals: Signals,
    settings: Option<Settings>,
    server: Server,
    links: Vec<Link>,
    /// netd's report: when it changes, an interface may have come.
    ports: FileWatch,
    store: Store,
    names: NamesLink,
    status: StatusFile,
    jumps: JumpDetector,
    next_tick: Instant,
    /// When the journal is to be written anew, whatever is in it.
    rewrite_at: Option<Instant>,
    /// The site's newest mistake, told once.
    site_problem: Option<String>,
    stopping: bool,
}

impl Daemon {
    /// Everything but the site, which may not be there yet.
    pub(super) fn new(paths: Paths) -> anyhow::Result<Self> {
        // Before the journal's thread starts, so that it inherits the mask.
        let signals = Signals::new(&[Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT]).context("signals")?;
        let status = paths.dhcp_status();
        if let Some(directory) = status.parent() {
            std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        Ok(Self {
            notifier: Notifier::from_environment(),
            signals,
            settings: None,
            server: Server::default(),
            links: Vec::new(),
            ports: FileWatch::new(&paths.net_status()).context("watching netd's report")?,
            store: Store::start(paths.leases()).context("journal thread")?,
            names: NamesLink::new(paths.names_socket()),
            status: StatusFile::new(status),
            jumps: JumpDetector::new(clock::now()),
            next_tick: clock::now().at,
            rewrite_at: None,
            site_problem: None,
            stopping: false,
            paths,
        })
    }

    /// Serves until SIGTERM.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        if !site::wait(&self.paths, &mut self.signals, &self.notifier)? {
            return Ok(());
        }
        self.load_site();
        while !self.stopping {
            if clock::now().at >= self.next_tick {
                self.tick();
            }
            self.wait()?;
            self.handle_signals();
            self.receive();
            self.server.handle_timeout(clock::now());
            self.perform();
        }
        Ok(())
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let now = clock::now().at;
        let until = self.server.poll_timeout().into_iter().chain([self.next_tick]).min();
        // One millisecond more than asked for: rounding down would make us spin at the end.
        let pause = until.map_or(TICK, |until| until.since(now)) + Duration::from_millis(1);
        let mut descriptors = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let links = self.links.iter().flat_map(Link::descriptors);
        descriptors.push(PollFd::new(self.ports.as_fd(), PollFlags::POLLIN));
        descriptors.extend(links.chain(self.names.descriptor()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(pause.min(TICK)).unwrap_or(PollTimeout::ZERO);
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let ports = descriptors.get(1).is_some_and(|ports| ports.any() == Some(true));
        let connected = self.names.descriptor().is_some();
        let dnsd = descriptors.last().is_some_and(|last| last.any() == Some(true));
        if connected && dnsd {
            self.names.drain();
        }
        if ports {
            self.ports.drain().context("watching netd's report")?;
            self.check_links();
            self.server.set_surroundings(surroundings(&self.paths));
        }
        Ok(())
    }

    fn check_links(&mut self) {
        let now = clock::now().at;
        self.links.iter_mut().for_each(|link| link.check(now));
    }

    fn handle_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::SIGHUP => self.load_site(),
                _ => self.stopping = true,
            }
        }
    }

    fn receive(&mut self) {
        let now = clock::now();
        let server = &mut self.server;
        for (network, link) in self.links.iter_mut().enumerate() {
            link.receive_answers(now.at);
            link.receive_arp(now.at, |mac, address| server.probe_answered(now, network, address, mac));
            link.receive(|message| server.handle_message(now, network, message));
        }
    }

    /// Does what the machine asks for: first everything durable, then every name, then the answers.
    fn perform(&mut self) {
        let (mut records, mut names, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Probe { network, address } => {
                    if let Some(link) = self.links.get(network) {
                        link.probe(address);
                    }
                }
                Action::Persist(record) => records.push(record),
                Action::Name(change) => names.push(change),
                Action::Send(reply) => replies.push(reply),
            }
        }
        if !records.is_empty() {
            // A slow disk may have taken its time in this round already.
            self.notifier.watchdog();
        }
        self.store.append(&records);
        self.names.announce(&names);
        for reply in replies {
            let Some(link) = self.links.get(reply.network) else { continue };
            if let Err(error) = link.send(&reply) {
                eprintln!("{}: answer to {} lost: {error}", link.interface, reply.message.yiaddr);
            }
        }
    }

    fn tick(&mut self) {
        let now = clock::now();
        self.next_tick = now.at + TICK;
        self.notifier.watchdog();
        if self.settings.is_none() {
            self.load_site();
        }
        self.check_links();
        self.load_journal();
        self.store.check();
        let jumped = self.jumps.jumped(now);
        // After a jump the times written down mean nothing any more: write them by the new clock.
        let due = self.rewrite_at.is_some_and(|at| now.at >= at) || jumped;
        if self.store.wants_rewrite(self.server.known()) || (due && self.store.durable()) {
            self.rewrite_at = None;
            self.store.rewrite(&self.server.records(now));
        }
        self.connect_names();
        let problems = self.problems();
        self.status.update(now.at, &self.server, self.store.durable(), problems);
    }

    fn connect_names(&mut self) {
        if self.settings.is_some() && self.names.wants_connection() {
            self.names.connect(&self.server.names());
        }
    }

    /// Reads board and site; a bad or missing one changes nothing.
    fn load_site(&mut self) {
        match Settings::load(&self.paths) {
            Ok(settings) => self.apply(settings),
            Err(error) => {
                let problem = format!("{error:#}");
                if self.site_problem.as_ref() != Some(&problem) {
                    eprintln!("site not applied: {problem}");
                }
                self.site_problem = Some(problem);
            }
        }
    }

    fn apply(&mut self, settings: Settings) {
        self.site_problem = None;
        let first = self.settings.is_none();
        self.server.configure(clock::now(), settings.server.clone());
        self.server.set_surroundings(surroundings(&self.paths));
        if self.settings.as_ref().is_none_or(|old| old.interfaces != settings.interfaces) {
            // The old sockets must be closed first: an interface may serve another network now.
            self.links.clear();
            let now = clock::now().at;
            self.links = settings.interfaces.iter().map(|interface| Link::new(now, interface)).collect();
        }
        let own: Vec<Ipv4Addr> = settings.server.networks.iter().map(|n| n.address.addr()).collect();
        for (link, network) in self.links.iter_mut().zip(&settings.server.networks) {
            let here = [network.address.addr(), network.address.broadcast()];
            link.set_addresses(here.into_iter().chain(own.iter().copied()).collect());
        }
        self.check_links();
        self.settings = Some(settings);
        // A changed site may have turned fixed names into dynamic ones or back: announce all anew.
        self.names.reset();
        self.load_journal();
        // At once, so that no lease granted in the meantime goes without its name.
        self.connect_names();
        let networks = self.links.len();
        eprintln!("site applied: {networks} networks served");
        self.notifier.status(&format!("serving {networks} networks"));
        if first {
            self.notifier.ready();
        }
    }

    /// Takes over the journal as soon as the disk is there.
    fn load_journal(&mut self) {
        if self.settings.is_none() {
            return;
        }
        let Some(replay) = self.store.load() else { return };
        for problem in &replay.problems {
            eprintln!("{problem}");
        }
        let now = clock::now();
        let count = replay.records.len();
        // What was granted before the disk came is not in it yet.
        let goes_on = self.server.known() == 0 && self.store.go_on(&replay);
        self.server.adopt(now, replay.records);
        if goes_on {
            self.rewrite_at = Some(now.at + REWRITE_DELAY);
        } else {
            self.store.rewrite(&self.server.records(now));
        }
        self.names.reset();
        self.connect_names();
        eprintln!("lease journal read: {count} addresses known");
    }

    fn problems(&self) -> Vec<String> {
        let links = self.links.iter().flat_map(Link::problems);
        let site = self.site_problem.iter().map(|problem| format!("site not applied: {problem}"));
        links.chain(site).chain(self.store.problems().cloned()).chain(self.server.problems()).collect()
    }
}
