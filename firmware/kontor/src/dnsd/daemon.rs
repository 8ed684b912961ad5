//! dnsd's event loop: sockets, clock and files around [`kontor_dns::Forwarder`].

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use kontor_dns::{Client, Entropy, ForwardZone, Forwarder, Handled, Limits, Transmit, Transport};
use kontor_status::WanState;
use kontor_status::paths::Paths;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use kontor_sys::udp::ReceiveBatch;
use kontor_sys::watch::FileWatch;
use nix::sys::signal::Signal;

use super::listen::Listeners;
use super::names::NamesSocket;
use super::poller::{Interest, Mark, Poller};
use super::settings::{Settings, read_net_status};
use super::status::{StatusFile, write_resolv_conf};
use super::tcp::{Connections, Outcome, TcpQuery};
use super::upstream::{Arrival, UpstreamSockets, would_block};

/// Longest wait of the loop; the supervisor wants a sign of life at least every 5 s.
const TICK: Duration = Duration::from_secs(2);
/// How long after a change of the line the next one is expected, up to a lease. What takes longer is no start but an outage.
const EXPECTATION: Duration = Duration::from_secs(60);
/// Datagrams taken by one call.
const BATCH: usize = 64;
/// Largest query taken over UDP; honest ones are below 512 octets.
const MAX_QUERY: usize = 1_232;
/// Calls for one socket in one turn, so that a flood on one does not starve the others.
const BATCHES_PER_TURN: usize = 8;

/// Where things are, and on which ports.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) paths: Paths,
    /// Port queries come in on.
    pub(crate) port: u16,
    /// Port of the upstreams.
    pub(crate) upstream_port: u16,
    /// Port of Samba's DNS service on the box.
    pub(crate) samba_port: u16,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Stop,
}

/// The daemon.
pub(crate) struct Daemon {
    options: Options,
    settings: Settings,
    forwarder: Forwarder,
    poller: Poller,
    signals: Signals,
    watch: FileWatch,
    listeners: Listeners,
    connections: Connections,
    upstreams: UpstreamSockets,
    names: NamesSocket,
    status: StatusFile,
    notifier: Notifier,
    batch: ReceiveBatch,
    ready: Vec<Mark>,
    problems: Vec<String>,
    site_problem: Option<String>,
    tick_at: Instant,
    /// The line, as netd last told.
    wan: Option<WanState>,
    /// Listeners that could not accept; they are left alone until the next tick.
    paused: Vec<Mark>,
}

impl Daemon {
    /// Opens every socket; the site file must be there.
    pub(crate) fn new(options: Options, signals: Signals, notifier: Notifier) -> anyhow::Result<Self> {
        let settings = Settings::read(&options.paths)?;
        let forwarder = Forwarder::new(settings.zones.clone(), Limits::default(), kernel_entropy()?)
            .context("the site's names")?;
        let poller = Poller::new()?;
        let watch = FileWatch::new(&options.paths.net_status()).context("watching netd's status")?;
        let names_path = options.paths.names_socket();
        let names = NamesSocket::bind(&names_path)
            .with_context(|| format!("names socket {}", names_path.display()))?;
        poller.add(&signals, Mark::Signals, Interest::READ)?;
        poller.add(&watch, Mark::NetStatus, Interest::READ)?;
        poller.add(&names, Mark::NamesListener, Interest::READ)?;
        let mut daemon = Self {
            status: StatusFile::new(&options.paths),
            settings,
            forwarder,
            poller,
            signals,
            watch,
            listeners: Listeners::default(),
            connections: Connections::new(),
            upstreams: UpstreamSockets::new(),
            names,
            notifier,
            batch: ReceiveBatch::new(BATCH, MAX_QUERY),
            ready: Vec::new(),
            problems: Vec::new(),
            site_problem: None,
            tick_at: Instant::now(),
            wan: None,
            paused: Vec::new(),
            options,
        };
        daemon.apply();
        anyhow::ensure!(!daemon.listeners.is_empty(), "{}", daemon.problems.join("; "));
        Ok(daemon)
    }

    /// Runs until a signal ends it.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        self.notifier.ready();
        while self.turn(TICK)? == Flow::Continue {}
        Ok(())
    }

    /// Waits for something to happen, at most `limit`, and deals with it.
    pub(crate) fn turn(&mut self, limit: Duration) -> anyhow::Result<Flow> {
        let now = Instant::now();
        let due = [self.forwarder.poll_timeout(), self.connections.next_expiry(), Some(self.tick_at)];
        let wait = due.into_iter().flatten().map(|at| at.saturating_duration_since(now)).min();
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(wait.unwrap_or(limit).min(limit), &mut ready)?;
        let now = Instant::now();
        let mut flow = Flow::Continue;
        for mark in ready.drain(..) {
            if self.dispatch(now, mark)? == Flow::Stop {
                flow = Flow::Stop;
            }
        }
        self.ready = ready;
        self.forwarder.handle_timeout(now);
        self.connections.expire(now);
        self.transmit(now);
        self.listeners.flush();
        self.tick(now);
        Ok(flow)
    }

    fn tick(&mut self, now: Instant) {
        self.status.publish(now, &self.forwarder, &self.problems);
        if now < self.tick_at {
            return;
        }
        self.tick_at = now + TICK;
        self.notifier.watchdog();
        for mark in std::mem::take(&mut self.paused) {
            self.listen_for(mark, Interest::READ);
        }
        if !self.problems.is_empty() {
            // Another program may have let go of the port.
            self.open_listeners();
        }
    }

    /// Leaves a listener alone: with no descriptor left its connection stays in the queue, and the loop
    /// would spin on it.
    fn pause(&mut self, mark: Mark) {
        self.listen_for(mark, Interest::NONE);
        self.paused.push(mark);
    }

    fn listen_for(&mut self, mark: Mark, interest: Interest) {
        let changed = match mark {
            Mark::NamesListener => self.poller.change(&self.names, mark, interest),
            Mark::TcpListener(number) => match self.listeners.get_mut(number) {
                Some(listener) => self.poller.change(&listener.tcp, mark, interest),
                None => Ok(()),
            },
            _ => Ok(()),
        };
        if let Err(error) = changed {
            eprintln!("{mark:?}: {error}");
        }
    }

    fn dispatch(&mut self, now: Instant, mark: Mark) -> anyhow::Result<Flow> {
        match mark {
            Mark::Signals => return Ok(self.take_signals()),
            Mark::NetStatus => {
                self.watch.drain()?;
                self.follow_net();
            }
            Mark::NamesListener => {
                if let Err(error) = self.names.accept(&self.poller) {
                    eprintln!("names socket: {error}");
                    self.pause(mark);
                }
            }
            Mark::NamesClient(number) => self.names.ready(number, self.forwarder.zones_mut()),
            Mark::UdpListener(number) => self.serve_udp(now, number),
            Mark::TcpListener(number) => self.accept_tcp(now, number),
            Mark::TcpClient(number) => {
                let forwarder = &mut self.forwarder;
                self.connections
                    .ready(now, &self.poller, number, |query, out| handle_tcp(forwarder, now, &query, out));
            }
            Mark::Upstream(token) => self.read_upstream(now, token),
        }
        Ok(Flow::Continue)
    }

    fn take_signals(&mut self) -> Flow {
        let mut flow = Flow::Continue;
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::SIGHUP => self.reload(),
                _ => flow = Flow::Stop,
            }
        }
        flow
    }

    /// Reads the site again. The leases' names stay, and the cache unless others are to be asked for the same names
    /// (the operator's forwarders, the realm's servers); a site that cannot be read changes nothing.
    pub(crate) fn reload(&mut self) {
        self.site_problem = None;
        match Settings::read(&self.options.paths) {
            Ok(settings) => match self.forwarder.set_zones(settings.zones.clone()) {
                Ok(()) => {
                    if settings.forwarders != self.settings.forwarders {
                        self.forwarder.clear_cache();
                    }
                    self.settings = settings;
                }
                Err(error) => self.site_problem = Some(format!("the site's names: {error}")),
            },
            Err(error) => self.site_problem = Some(format!("the site file: {error:#}")),
        }
        if let Some(problem) = &self.site_problem {
            eprintln!("{problem}");
        }
        self.apply();
    }

    /// Follows the settings: listeners, upstreams, realm, resolv.conf.
    fn apply(&mut self) {
        self.open_listeners();
        let settings = &self.settings;
        self.connections.keep_only(|address| settings.serves(address));
        if let Some(directory) = self.options.paths.dns_status().parent()
            && let Err(error) = write_resolv_conf(directory, &self.settings.domain)
        {
            eprintln!("cannot write resolv.conf: {error}");
        }
        self.follow_realm();
        // The site may have another way out now.
        self.wan = None;
        self.follow_net();
    }

    fn follow_realm(&mut self) {
        let Options { samba_port, upstream_port, .. } = self.options;
        let zones = self.settings.realm.as_ref().map(|realm| realm.zones(samba_port, upstream_port));
        let zones: Vec<ForwardZone> = zones.unwrap_or_default();
        if !self.forwarder.set_forward_zones(&zones) {
            return;
        }
        let Some((ForwardZone { name, servers }, reverse)) = zones.split_first() else { return };
        let list =
            |servers: &[SocketAddr]| servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        eprintln!("{name} is asked of {}", list(servers));
        if let Some(zone) = reverse.first() {
            eprintln!("{} reverse zones are asked of {}", reverse.len(), list(&zone.servers));
        }
    }

    fn open_listeners(&mut self) {
        let mut wanted = vec![Ipv4Addr::LOCALHOST];
        wanted.extend(&self.settings.listen);
        let mut problems = self.listeners.set(&self.poller, &wanted, self.options.port);
        problems.extend(self.site_problem.clone());
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            eprintln!("{problem}");
        }
        self.problems = problems;
    }

    fn follow_net(&mut self) {
        let net = read_net_status(&self.options.paths);
        if self.wan.as_ref() != Some(&net.wan) {
            let expected = self.settings.expects_upstreams(&net.wan);
            self.forwarder.expect_upstreams(expected.then(|| Instant::now() + EXPECTATION));
            self.wan = Some(net.wan.clone());
        }
        let upstreams = self.settings.upstreams(&net, self.options.upstream_port);
        if self.forwarder.upstreams().eq(upstreams.iter().copied()) {
            return;
        }
        let names: Vec<String> = upstreams.iter().map(|upstream| upstream.ip().to_string()).collect();
        let text = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        eprintln!("upstream resolvers: {text}");
        self.notifier.status(&format!("upstream resolvers: {text}"));
        self.forwarder.set_upstreams(Instant::now(), &upstreams);
    }

    fn serve_udp(&mut self, now: Instant, number: u64) {
        let Some(listener) = self.listeners.get_mut(number) else { return };
        for _ in 0..BATCHES_PER_TURN {
            // Errors are those of earlier answers (ICMP) or an empty queue; both end the round.
            let Ok(count) = self.batch.receive(&listener.udp) else { break };
            for query in (0..count).filter_map(|index| self.batch.get(index)) {
                if !self.settings.serves(*query.peer.ip()) {
                    continue;
                }
                let client = Client {
                    peer: query.peer.into(),
                    local: query.local.into(),
                    transport: Transport::Udp,
                    route: number,
                };
                let forwarder = &mut self.forwarder;
                listener.out.push(query.local, query.peer, |out| {
                    forwarder.handle_query(now, client, query.bytes, out) == Handled::Answered
                });
            }
            listener.out.flush(&listener.udp);
            if count < BATCH {
                break;
            }
        }
    }

    fn accept_tcp(&mut self, now: Instant, number: u64) {
        let Some(listener) = self.listeners.get_mut(number) else { return };
        loop {
            match listener.tcp.accept() {
                Ok((stream, SocketAddr::V4(peer))) if self.settings.serves(*peer.ip()) => {
                    // A connection that is gone already is no problem of ours.
                    let _ = self.connections.accept(now, &self.poller, stream, peer);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if would_block(&error) => return,
                Err(error) => {
                    eprintln!("accepting a TCP connection: {error}");
                    return self.pause(Mark::TcpListener(number));
                }
            }
        }
    }

    fn read_upstream(&mut self, now: Instant, token: u64) {
        let mut arrivals = Vec::new();
        self.upstreams.ready(&self.poller, token, &mut arrivals);
        for arrival in arrivals {
            match arrival {
                Arrival::Message(message) => self.forwarder.handle_upstream(now, token, &message),
                Arrival::Failed => self.forwarder.handle_upstream_error(now, token),
            }
        }
    }

    /// Does what the forwarder wants done.
    fn transmit(&mut self, now: Instant) {
        while let Some(transmit) = self.forwarder.poll_transmit() {
            match transmit {
                Transmit::Ask { token, upstream, transport, message } => {
                    let asked = self.upstreams.ask(&self.poller, token, upstream, transport, &message);
                    if asked.is_err() {
                        self.forwarder.handle_upstream_error(now, token);
                    }
                }
                Transmit::Close { token } => self.upstreams.close(token),
                Transmit::Answer { client, message } => self.answer(now, client, &message),
            }
        }
    }

    fn answer(&mut self, now: Instant, client: Client, message: &[u8]) {
        let (IpAddr::V4(local), SocketAddr::V4(peer)) = (client.local, client.peer) else { return };
        match client.transport {
            Transport::Udp => {
                let Some(listener) = self.listeners.get_mut(client.route) else { return };
                listener.out.push(local, peer, |out| {
                    out.extend_from_slice(message);
                    true
                });
            }
            Transport::Tcp => {
                let forwarder = &mut self.forwarder;
                self.connections.answer(now, &self.poller, client.route, message, |query, out| {
                    handle_tcp(forwarder, now, &query, out)
                });
            }
        }
    }
}

fn handle_tcp(forwarder: &mut Forwarder, now: Instant, query: &TcpQuery, out: &mut Vec<u8>) -> Outcome {
    let client = Client {
        peer: query.peer.into(),
        local: query.local.into(),
        transport: Transport::Tcp,
        route: query.connection,
    };
    match forwarder.handle_query(now, client, &query.message, out) {
        Handled::Answered => Outcome::Answered,
        Handled::Pending => Outcome::Pending,
        Handled::Dropped => Outcome::Dropped,
    }
}

/// Message ids from the kernel's generator, read in blocks.
fn kernel_entropy() -> anyhow::Result<Entropy> {
    let path = PathBuf::from("/dev/urandom");
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut source = io::BufReader::with_capacity(4096, file);
    Ok(Entropy::new(move || {
        let mut octets = [0; 8];
        // The kernel's generator does not fail once it is open; without it, guessable ids would be worse
        // than a restart.
        #[allow(clippy::expect_used)]
        source.read_exact(&mut octets).expect("the kernel's random generator works");
        u64::from_be_bytes(octets)
    }))
}

#[cfg(test)]
#[path = "daemon/tests.rs"]
mod tests;
