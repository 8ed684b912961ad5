//! netd's state and the one thing it does: make the kernel match the site file.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kontor_component::Shipped;
use kontor_config::site::{Address, Network, Zone};
use kontor_config::{Board, Site};
use kontor_network::{Assignment, Desired, Inputs, Observed, Step, assign, desired, diff};
use kontor_status::NetStatus;
use kontor_status::paths::Paths;
use kontor_sys::notify::Notifier;

use super::files::{accept_ra, is_forwarding, read_board, read_site, write_status};
use super::firewall::{self, Firewall};
use super::guard::Guard;
use super::netlink::{self, Netlink};
use super::openings::openings;
use super::store::Store;
use super::tunnels::Tunnels;
use super::wan::{SavedLease, Wan};
use super::{hardware, report};

/// Rounds of look-and-apply at one event. Two are enough in theory (the kernel drops routes with an
/// address); what is then still open waits for the next event or retry.
const ROUNDS_MAX: usize = 4;
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// While something waits for its next try, other events (a lease, a cable) need not wait longer than this.
const EVENT_PAUSE: Duration = Duration::from_secs(1);
/// How long the first start may wait for drivers before netd is ready without the LAN.
const HARDWARE_WAIT: Duration = Duration::from_secs(10);

/// Where things are; other places only in a trial run.
pub(crate) struct Places {
    pub(crate) paths: Paths,
    pub(crate) nft: PathBuf,
    pub(crate) sys: PathBuf,
    pub(crate) proc_sys: PathBuf,
    pub(crate) components: PathBuf,
}

/// What netd holds between two events.
pub(crate) struct Daemon {
    places: Places,
    netlink: Netlink,
    notifier: Notifier,
    board: Board,
    /// Part of the base, which does not change while we run.
    components: Vec<Shipped>,
    /// The site the kernel follows.
    site: Option<Site>,
    /// A newer site whose firewall could not be loaded yet.
    pending: Option<Site>,
    firewall: Firewall,
    /// The netd before this one left forwarding on: the outside is open, with rules we did not load.
    inherited: bool,
    store: Store<SavedLease>,
    pub(crate) wan: Wan,
    pub(crate) guard: Guard,
    pub(crate) tunnels: Tunnels,
    faults: Faults,
    retry: Retry,
    published: Option<NetStatus>,
    ready: bool,
    /// Since when the LAN could be configured, as far as the site goes.
    waits_since: Instant,
}

/// What is wrong, by where it came from; each is replaced as a whole.
#[derive(Default)]
struct Faults {
    board: Option<String>,
    site: Option<String>,
    firewall: Option<String>,
    sysctl: Vec<String>,
    netlink: Vec<String>,
}

/// When to try again what failed.
#[derive(Default)]
struct Retry {
    failures: u32,
    failed_at: Option<Instant>,
    at: Option<Instant>,
}

impl Retry {
    fn failed(&mut self, now: Instant) {
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        (self.failed_at, self.at) = (Some(now), Some(now + pause));
    }

    /// Something happened: whether it has to wait. If so, the next try comes earlier for its sake.
    fn holds_up(&mut self, now: Instant) -> bool {
        let earliest = self.failed_at.map_or(now, |failed_at| failed_at + EVENT_PAUSE);
        self.at = self.at.map(|at| at.min(earliest));
        self.at.is_some_and(|at| now < at)
    }
}

impl Daemon {
    /// Nothing is read from the disk yet: storage may be about to put its files in order.
    pub(crate) fn new(places: Places) -> std::io::Result<Self> {
        let (board, fault) = read_board(&places.paths.board);
        let mut daemon = Self {
            netlink: Netlink::open()?,
            notifier: Notifier::from_environment(),
            board,
            // A damaged one opens nothing; PID 1 has said what is wrong with it.
            components: Shipped::load_all(&places.components).0,
            site: None,
            pending: None,
            firewall: Firewall::new(places.nft.clone(), places.paths.net_status().with_file_name("firewall")),
            inherited: is_forwarding(&places.proc_sys),
            store: Store::new(&places.paths)?,
            wan: Wan::new(),
            guard: Guard::new(),
            tunnels: Tunnels::new(&places.paths),
            faults: Faults { board: fault, ..Faults::default() },
            retry: Retry::default(),
            published: None,
            ready: false,
            waits_since: Instant::now(),
            places,
        };
        daemon.refuse_router_advertisements();
        Ok(daemon)
    }

    /// Whether a site has been read.
    pub(crate) fn has_site(&self) -> bool {
        self.site.is_some()
    }

    /// The next moment something is due without an event.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.retry.at.into_iter().chain(self.wan.next_at()).min()
    }

    /// Reads the site file (again) and follows it; what it does not change stays untouched.
    pub(crate) async fn reload(&mut self) {
        self.attach_disk();
        if !self.has_site() {
            self.waits_since = Instant::now();
        }
        self.faults.site = None;
        self.retry = Retry::default();
        match read_site(&self.places.paths.site(), &self.board) {
            // At the start the file may not be there yet; that is not worth a word.
            Ok(None) => {}
            Ok(Some(site)) => self.adopt(site).await,
            Err(problem) => {
                eprintln!("{problem}");
                self.faults.site = Some(problem);
            }
        }
        self.reconcile().await;
    }

    /// Takes a site over. When a firewall is in force, the new one must load first; until it does, both the
    /// old firewall and the network it was made for stay.
    async fn adopt(&mut self, site: Site) {
        self.pending = None;
        if !self.firewall.is_loaded() {
            self.site = Some(site);
            return;
        }
        match self.load_firewall(&site).await {
            true => self.site = Some(site),
            false => self.pending = Some(site),
        }
    }

    /// Time or the network moved the DHCP client, or something is to be tried again.
    pub(crate) async fn wake(&mut self) {
        let now = Instant::now();
        if self.retry.at.is_some_and(|at| now >= at) {
            self.retry.at = None;
            if let Some(site) = self.pending.take() {
                self.adopt(site).await;
            }
        }
        self.wan.turn();
        if let Some(saved) = self.wan.take_change() {
            self.store.set_lease(saved);
        }
        if self.wan.heard_ourselves() {
            self.guard.suspect();
        }
        self.reconcile().await;
    }

    /// A probe may have come in, or is due; see [`Guard`].
    pub(crate) async fn watch_loops(&mut self) {
        if self.guard.turn() {
            self.reconcile().await;
        }
    }

    /// Handshakes come without a word from the kernel; see [`Tunnels`].
    pub(crate) async fn watch_tunnels(&mut self) {
        let Some(site) = self.site.clone() else { return };
        if self.tend_tunnels(&site).await {
            self.report(&site).await;
        }
    }

    /// A box without tunnels is not looked at for them.
    async fn tend_tunnels(&mut self, site: &Site) -> bool {
        if site.tunnels.is_empty() {
            return self.tunnels.turn(site, &Observed::default());
        }
        match self.netlink.observe().await {
            Ok(observed) => self.tunnels.turn(site, &observed),
            Err(_) => {
                self.tunnels.look_later();
                false
            }
        }
    }

    /// Every two seconds: the supervisor hears that the main loop lives, the disk may have appeared.
    pub(crate) async fn tick(&mut self) {
        self.notifier.watchdog();
        if self.attach_disk() {
            self.reconcile().await;
        }
        self.report_ready(false);
    }

    /// Notices the state directory; true when it has just appeared.
    fn attach_disk(&mut self) -> bool {
        let appeared = self.store.sync();
        if appeared {
            eprintln!("state directory {} is there", self.places.paths.state.display());
            self.wan.restore(self.store.lease());
        }
        appeared
    }

    /// Looks, compares, applies; then opens the way out once the firewall is loaded.
    pub(crate) async fn reconcile(&mut self) {
        let now = Instant::now();
        let Some(site) = self.site.clone() else {
            self.publish(NetStatus { problems: self.faults.all(), ..NetStatus::default() });
            return;
        };
        if self.retry.holds_up(now) {
            return;
        }
        // After a restart the office has its addresses already: the rules come first then, so that at no
        // moment an interface is in a zone they do not know.
        let mut failed = false;
        let inherited = std::mem::take(&mut self.inherited);
        if inherited {
            failed = !self.load_firewall(&site).await;
            // The client must know the stored lease before the first comparison, or its address would go.
            self.follow_wan(&site).await;
        }
        failed |= !self.settle(&site).await;
        if !self.firewall.is_loaded() && !inherited {
            // The office is served now, as far as its cards let us; tell everybody before the firewall takes
            // its time. A card that refuses something must not keep the others offline.
            self.report(&site).await;
            failed = !self.load_firewall(&site).await;
            failed |= !self.settle(&site).await;
        }
        failed |= self.pending.is_some();
        match failed {
            true => self.retry.failed(now),
            false => self.retry = Retry::default(),
        }
        self.follow_wan(&site).await;
        self.tend_tunnels(&site).await;
        self.report(&site).await;
        self.store.sync();
    }

    /// The packet filter, then the kernel settings that rely on it (forwarding among them).
    async fn load_firewall(&mut self, site: &Site) -> bool {
        let rules = kontor_firewall::render(site, &openings(site, &self.components));
        let before = self.firewall.is_loaded();
        // nft may take long under load; the supervisor must not think that netd hangs.
        let outcome = {
            let notifier = &self.notifier;
            let load = self.firewall.load(&rules);
            tokio::pin!(load);
            loop {
                tokio::select! {
                    outcome = &mut load => break outcome,
                    () = tokio::time::sleep(Duration::from_secs(2)) => notifier.watchdog(),
                }
            }
        };
        if let Err(problem) = outcome {
            let consequence =
                if before { "the old rules and networks stay in force" } else { "the way out stays closed" };
            let problem = format!("the firewall did not load, so {consequence}: {problem}");
            if self.faults.firewall.as_ref() != Some(&problem) {
                eprintln!("{problem}");
            }
            self.faults.firewall = Some(problem);
            return false;
        }
        if !before {
            eprintln!("firewall loaded");
        }
        self.faults.firewall = None;
        self.write_sysctls(site);
        true
    }

    /// Kernel settings of the site. Those of an interface that is not there (yet) are written when it is.
    fn write_sysctls(&mut self, site: &Site) {
        let root = &self.places.proc_sys;
        // The kernel removes secondary addresses with the primary one; a moved LAN address needs them kept.
        let own = (root.join("net/ipv4/conf/all/promote_secondaries"), "1".to_owned());
        let mut settings = vec![own];
        settings
            .extend(kontor_firewall::sysctls(site).into_iter().map(|(name, value)| (root.join(name), value)));
        let ports = site.networks.iter().flat_map(|network| network.ports.iter().cloned());
        let interfaces = site.networks.iter().map(|network| network.interface()).chain(ports);
        settings.extend(interfaces.map(|name| (accept_ra(root, &name), "0".to_owned())));
        let faults: Vec<String> =
            settings.iter().filter_map(|(path, value)| firewall::set_sysctl(path, value).err()).collect();
        faults
            .iter()
            .filter(|fault| !self.faults.sysctl.contains(fault))
            .for_each(|fault| eprintln!("{fault}"));
        self.faults.sysctl = faults;
    }

    /// For every interface that is yet to come; see the module's head for IPv6.
    fn refuse_router_advertisements(&mut self) {
        let path = accept_ra(&self.places.proc_sys, "default");
        self.faults.sysctl.extend(firewall::set_sysctl(&path, "0").err());
    }

    /// Makes the kernel match; false when something was refused.
    async fn settle(&mut self, site: &Site) -> bool {
        self.faults.netlink.clear();
        for _ in 0..ROUNDS_MAX {
            let Some((observed, _, desired)) = self.look(site).await else { return false };
            let steps = diff(&desired, &observed);
            self.faults.netlink.clear();
            if steps.is_empty() {
                break;
            }
            let (mut refused, mut without) = (0, Vec::new());
            for step in &steps {
                // What is to be done with a link that could not be made only hides why.
                if step.link().is_some_and(|link| without.contains(&link)) {
                    refused += 1;
                    continue;
                }
                match self.netlink.apply(step).await {
                    Ok(()) => eprintln!("{}", netlink::describe(step)),
                    Err(error) => {
                        refused += 1;
                        without.extend(step.link().filter(|_| matches!(step, Step::Add(..))));
                        self.complain(&error);
                    }
                }
            }
            if self.firewall.is_loaded() {
                self.write_sysctls(site);
            }
            // What went well may need another look, whatever else was refused.
            if refused == steps.len() {
                break;
            }
        }
        self.faults.netlink.is_empty()
    }

    async fn look(&mut self, site: &Site) -> Option<(Observed, Assignment, Desired)> {
        let observed = match self.netlink.observe().await {
            Ok(observed) => observed,
            Err(error) => {
                self.complain(&error);
                return None;
            }
        };
        let nics = hardware::nics(&self.places.sys, &observed, &self.board);
        let assignment = assign(&self.board, self.store.pins(), &nics);
        self.store.set_pins(assignment.pins.clone());
        let uplink = self.wan.uplink();
        let lease = uplink.as_ref();
        let external_open = self.firewall.is_loaded();
        let desired = desired(Inputs { site, assignment: &assignment, lease, external_open });
        self.wan.set_colliding(desired.collision.is_some());
        Some((observed, assignment, desired))
    }

    fn complain(&mut self, error: &netlink::Error) {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let text = format!("{error}{cause}");
        eprintln!("{text}");
        self.faults.netlink.push(text);
    }

    /// Tells the DHCP client which interface is its own and whether it has a carrier.
    async fn follow_wan(&mut self, site: &Site) {
        let external = site.networks_in(Zone::External).find(|network| network.address == Address::Dhcp);
        let interface = external.filter(|_| self.firewall.is_loaded()).map(|network| network.interface());
        let Some(interface) = interface else { return self.wan.stop() };
        let Ok(observed) = self.netlink.observe().await else { return };
        let link = observed.link(&interface);
        self.wan.set_own_servers(site.networks_in(Zone::Internal).filter_map(Network::static_address));
        if let Err(error) = self.wan.follow(link, &site.office.host_name, &observed, self.store.lease()) {
            let text = format!("DHCP client on {interface}: {error}");
            if !self.faults.netlink.contains(&text) {
                eprintln!("{text}");
                self.faults.netlink.push(text);
            }
            self.retry.failed(Instant::now());
        }
    }

    async fn report(&mut self, site: &Site) {
        let Some((observed, assignment, desired)) = self.look(site).await else { return };
        self.guard.follow(site, &observed);
        let mut problems = self.faults.all();
        problems.extend(self.store.problem());
        problems.extend(desired.problems.iter().chain(self.tunnels.problems()).cloned());
        let wan = report::wan_state(site, &desired, &observed, &self.wan, &mut problems);
        let findings = self.guard.findings(site);
        problems.extend(findings.problems);
        let links = report::links(site, &assignment, &observed);
        let tunnels = self.tunnels.statuses().to_vec();
        let status = NetStatus { links, wan, exposed: findings.exposed, tunnels, problems };
        self.publish(status);
        self.report_ready(report::lan_configured(site, &observed));
    }

    fn publish(&mut self, status: NetStatus) {
        if self.published.as_ref() == Some(&status) {
            return;
        }
        if let Some(site) = &self.site {
            self.notifier.status(&report::line(site, &status));
        }
        let known = self.published.as_ref().map(|old| old.problems.clone()).unwrap_or_default();
        for problem in status.problems.iter().filter(|problem| !known.contains(problem)) {
            eprintln!("problem: {problem}");
        }
        match write_status(&self.places.paths.net_status(), &status) {
            Ok(()) => self.published = Some(status),
            Err(error) => eprintln!("cannot write {}: {error}", self.places.paths.net_status().display()),
        }
    }

    /// READY once the office can be served, or once waiting for its hardware makes no sense any more.
    fn report_ready(&mut self, lan_configured: bool) {
        let waited = self.has_site() && self.waits_since.elapsed() >= HARDWARE_WAIT;
        if !self.ready && (lan_configured || waited) {
            self.ready = true;
            self.notifier.ready();
            eprintln!("{}", if lan_configured { "LAN is configured" } else { "ready without the LAN" });
        }
    }
}

impl Faults {
    fn all(&self) -> Vec<String> {
        let single = [&self.board, &self.site, &self.firewall].into_iter().flatten();
        single.chain(&self.sysctl).chain(&self.netlink).cloned().collect()
    }
}
