//! The daemon: looks, has fetched and has installed what the schedule says, and publishes how it goes.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kontor_config::Site;
use kontor_config::site::{Update, UpdatePolicy};
use kontor_status::UpdateStatus;
use kontor_status::paths::Paths;
use kontor_sys::file::write_atomic;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use kontor_sys::watch::FileWatch;
use kontor_update::check_in::CheckIn;
use kontor_update::release::Image;
use kontor_update::schedule::{Action, Ask, Phase, Policy};
use kontor_update::{Choice, Journal, Release, Schedule, Span, Version, Wish};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::back;
use super::child::{As, Child};
use super::facts::Running;
use super::fetch::{Order, Progress};
use super::held::{self, Held, Kind};
use super::images::Wanted;
use super::install::{self, Checked, InstallOrder};
use super::places::{Places, ROOT, WORK};
use super::report::{self, Reporter};
use super::request::Request;
use super::room::{has_room, keep_only, prepare};
use super::store;
use crate::init::now;
use crate::site;
use crate::storage::{SYSTEM, Schema, is_mounted};

/// The supervisor expects a sign of life every five seconds.
const HEARTBEAT_MS: u16 = 1000;
const HANDLED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT];
/// The release for which the box was restarted is asked for this often: the way to it may not be up at once. After that it is
/// installed like any other.
const RESUMPTIONS: u32 = 10;
const RESUME_EVERY: Duration = Duration::from_secs(60);
/// A window that closes before a slot can be written, and the box restarted, is as good as closed.
const WINDOW_LEFT_S: u64 = 900;

pub(super) fn run(args: &[String]) -> anyhow::Result<()> {
    Daemon::new(Paths::from_args(args))?.serve()
}

struct Daemon {
    paths: Paths,
    site: Option<Site>,
    running: Running,
    schedule: Schedule,
    status: UpdateStatus,
    child: Option<Child>,
    reporter: Reporter,
    /// The release that is being fetched, or waits.
    release: Option<Release>,
    /// A repository that an operator has named, instead of that of the site file.
    stick: Option<PathBuf>,
    wish: Wish,
    /// How often the release for which the box was restarted is still asked for, and when next.
    resumption: (u32, Duration),
    signals: Signals,
    requests: FileWatch,
    notifier: Notifier,
    published: Vec<u8>,
}

impl Daemon {
    fn new(paths: Paths) -> anyhow::Result<Self> {
        let run = paths.run.join("updated");
        fs::create_dir_all(&run).with_context(|| run.display().to_string())?;
        let running = Running::find(&paths)?;
        Ok(Self {
            site: site::read_in_force(&paths).ok(),
            running,
            schedule: Schedule::new(now(), &mut random),
            status: UpdateStatus::default(),
            child: None,
            reporter: Reporter::new(now(), &mut random),
            release: None,
            stick: None,
            wish: Wish::Automatic,
            resumption: (RESUMPTIONS, Duration::ZERO),
            signals: Signals::new(&HANDLED)?,
            requests: FileWatch::new(&paths.update_request())?,
            notifier: Notifier::from_environment(),
            published: Vec::new(),
            paths,
        })
    }

    fn serve(mut self) -> anyhow::Result<()> {
        self.notifier.ready();
        loop {
            self.notifier.watchdog();
            let journal = store::load().unwrap_or_default();
            self.publish(&journal)?;
            self.resume(&journal);
            self.report(journal);
            self.wait()?;
            let signals: Vec<_> = self.signals.by_ref().collect();
            for signal in signals {
                match signal {
                    // One with a mistake changes nothing.
                    Signal::SIGHUP => self.site = site::read_in_force(&self.paths).ok().or(self.site.take()),
                    _ => return Ok(()),
                }
            }
            self.take_request();
            self.hear_child();
            self.act();
        }
    }

    fn wait(&self) -> anyhow::Result<()> {
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.requests.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::from(HEARTBEAT_MS)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.requests.drain()?;
        Ok(())
    }

    fn update(&self) -> Option<&Update> {
        self.site.as_ref()?.update.as_ref()
    }

    fn policy(&self) -> Policy {
        let policy = self.update().map(|update| update.policy);
        Policy {
            look: policy.is_some(),
            fetch: matches!(policy, Some(UpdatePolicy::Automatic | UpdatePolicy::Download)),
            install: policy == Some(UpdatePolicy::Automatic),
        }
    }

    fn window_is_open(&self) -> bool {
        self.update().is_some_and(|update| update.window.left_s(store::now()) >= WINDOW_LEFT_S)
    }

    /// What the box keeps has been brought to what a release reads: now that can be installed.
    fn resume(&mut self, journal: &Journal) {
        let Some(awaited) = &journal.awaited else { return };
        let (left, at) = self.resumption;
        if left == 0 || now() < at || self.child.is_some() || !is_mounted(SYSTEM) {
            return;
        }
        self.resumption = (left - 1, now() + RESUME_EVERY);
        self.schedule.ask(now(), Ask::Install { major: awaited.major });
    }

    fn take_request(&mut self) {
        let Some(request) = Request::take(&self.paths.update_request()) else { return };
        let can_wait = request == Request::Look || matches!(self.schedule.phase(), Phase::Installing(_));
        if self.child.is_some() && can_wait {
            self.outcome("something is under way already; ask again when it has ended".to_owned());
            return;
        }
        // A server that takes its time must not keep an operator from another way; what has come is kept.
        self.child = None;
        self.schedule.interrupt();
        self.stick = request.from().map(Path::to_owned);
        let ask = match request {
            Request::Look => Ask::Look,
            Request::Install { major } | Request::From { major, .. } => Ask::Install { major },
            Request::Rollback => return self.go_back(),
        };
        self.schedule.ask(now(), ask);
    }

    fn go_back(&mut self) {
        let gone = back::go_back(&self.running.facts);
        self.outcome(gone.map_or_else(|error| format!("{error:#}"), |()| "restarting".to_owned()));
    }

    /// Where releases come from, as an address or a folder.
    fn repository(&self) -> anyhow::Result<String> {
        match &self.stick {
            Some(folder) => Ok(folder.to_string_lossy().into_owned()),
            None => Ok(self.update().context("the site file has no [update]: name a stick")?.url.clone()),
        }
    }

    fn channel(&self) -> String {
        self.update().map_or_else(|| "stable".to_owned(), |update| update.channel.clone())
    }

    fn act(&mut self) {
        if self.child.is_some() {
            return;
        }
        let window = self.window_is_open();
        let Some(action) = self.schedule.poll(now(), self.policy(), window) else { return };
        self.begin(action);
    }

    fn begin(&mut self, action: Action) {
        let started = match action {
            Action::Look(wish) => {
                self.wish = wish;
                if wish == Wish::Automatic {
                    self.stick = None;
                }
                self.order(Vec::new(), Vec::new())
                    .and_then(|order| self.start(As::Fetcher, &["fetch", "metadata"], &order, Vec::new()))
            }
            Action::Fetch(..) => self.begin_fetching(),
            Action::Install(version, wish) => self.begin_installing(version, wish),
        };
        match started {
            Ok(child) => self.child = Some(child),
            Err(error) => self.failed(&format!("{error:#}")),
        }
    }

    fn start(
        &self,
        who: As,
        words: &[&str],
        order: &impl serde::Serialize,
        inherited: Vec<OwnedFd>,
    ) -> anyhow::Result<Child> {
        ensure!(is_mounted(SYSTEM), "the partition system is not mounted: there is no room for a release");
        prepare(&Places::new(Path::new(WORK)))?;
        Child::start(who, words, order, inherited, &self.paths.run.join("updated"))
    }

    fn order(&self, images: Vec<Wanted>, held: Vec<Held>) -> anyhow::Result<Order> {
        Ok(Order {
            from: self.repository()?,
            work: WORK.into(),
            channel: self.channel(),
            product: self.running.facts.product.clone(),
            root: ROOT.into(),
            clock_floor: self.running.built_at,
            rate_limit_kbit_s: self.update().and_then(|update| update.rate_limit_kbit_s),
            images,
            held,
        })
    }

    fn begin_fetching(&self) -> anyhow::Result<Child> {
        let release = self.release.as_ref().context("no release has been chosen")?;
        let mine: Vec<String> = install::shipped().into_iter().map(|shipped| shipped.seal.sha256).collect();
        let is_new = |sha256: &str| !mine.iter().any(|mine| mine == sha256);
        let kind = |image: &Image| {
            if image.sha256 == release.slot.sha256 { Kind::Slot } else { Kind::Component }
        };
        let images: Vec<_> = release
            .images()
            .filter(|(_, image)| is_new(image.sha256.as_str()))
            .map(|(name, image)| Wanted { name: name.to_owned(), kind: kind(image), image: image.clone() })
            .collect();
        let places = Places::new(Path::new(WORK));
        keep_only(release, &places);
        has_room(&images, &places)?;
        let (held, files) = held::open(&install::component_folder());
        let order = self.order(images, held)?;
        self.start(As::Fetcher, &["fetch", "images"], &order, files)
    }

    fn begin_installing(&self, version: Version, wish: Wish) -> anyhow::Result<Child> {
        let (operator, major) = match wish {
            Wish::Automatic => (false, None),
            Wish::Operator { major } => (true, major),
        };
        let places = Places::new(Path::new(WORK));
        let (repository, work) = (places.mirror(), WORK.into());
        let order = InstallOrder { repository, work, channel: self.channel(), version, operator, major };
        self.start(As::Installer, &["install"], &order, Vec::new())
    }

    fn hear_child(&mut self) {
        let Some(child) = &mut self.child else { return };
        let Some(success) = child.turn() else { return };
        let (reason, progress) = (child.reason(), child.progress);
        self.child = None;
        match self.schedule.phase() {
            Phase::Looking if success => self.look(),
            Phase::Fetching(version) if success => {
                self.schedule.fetched(now(), true, &mut random);
                if progress.is_none_or(|progress| progress.bytes > 0) {
                    self.tell(&fetched(version, progress));
                }
            }
            // The box restarts.
            Phase::Installing(_) if success => self.outcome("restarting".to_owned()),
            _ => self.failed(&reason),
        }
    }

    /// The mirror is there: what does it say?
    fn look(&mut self) {
        match Running::find(&self.paths) {
            Ok(running) => self.running = running,
            Err(error) => return self.failed(&format!("{error:#}")),
        }
        let places = Places::new(Path::new(WORK));
        let checked = install::check(&places.mirror(), &self.channel(), &self.running, self.wish);
        let Checked { choice, release, warnings } = match checked {
            Ok(checked) => checked,
            Err(error) => return self.failed(&format!("{error:#}")),
        };
        self.status.warnings = warnings;
        self.status.looked_at = Some(store::now());
        self.outcome(describe(&choice, &self.running));
        self.forget_others(choice);
        self.release = release;
        let action = self.schedule.looked(now(), Some(choice), self.policy(), &mut random);
        if let Some(action) = action {
            if let Some(release) = &self.release {
                self.tell(&format!("{} is there, fetching it", release.version));
            }
            self.begin(action);
        }
    }

    /// What the box keeps waits for no other release than the one that is there.
    fn forget_others(&self, choice: Choice) {
        let version = if let Choice::Take(version) = choice { Some(version) } else { None };
        let awaited = store::load().unwrap_or_default().awaited;
        if awaited.is_none_or(|awaited| Some(awaited.version) == version) {
            return;
        }
        if let Err(error) = store::change(|journal| journal.wait_only_for(version)) {
            eprintln!("error: the journal of updates is not written: {error:#}");
        }
    }

    fn failed(&mut self, reason: &str) {
        let phase = self.schedule.phase();
        match phase {
            Phase::Installing(_) => self.schedule.not_installed(now(), &mut random),
            Phase::Fetching(_) => self.schedule.fetched(now(), false, &mut random),
            _ => drop(self.schedule.looked(now(), None, Policy::default(), &mut random)),
        }
        eprintln!("error: {reason}");
        if matches!(phase, Phase::Installing(_) | Phase::Fetching(_)) {
            self.tell(reason);
        }
        self.outcome(reason.to_owned());
    }

    fn outcome(&mut self, text: String) {
        self.status.outcome = Some(text);
    }

    fn tell(&self, text: &str) {
        if let Err(error) = store::change(|journal| journal.tell(store::now(), text)) {
            eprintln!("error: the journal of updates is not written: {error:#}");
        }
    }

    /// Tells the centre, if there is one.
    fn report(&mut self, journal: Journal) {
        let Some(centre) = self.update().and_then(|update| update.centre.clone()) else {
            self.reporter.give_up();
            return;
        };
        let Ok(journal) = store::seeded(journal) else { return };
        let document = CheckIn {
            name: self.site.as_ref().map(|site| site.office.host_name.clone()).unwrap_or_default(),
            channel: self.channel(),
            phase: self.status.phase.clone(),
            ..report::document(&self.running.facts, journal)
        };
        let run = self.paths.run.join("updated");
        self.reporter.turn(now(), &centre, document, &run, &mut random);
    }

    fn publish(&mut self, journal: &Journal) -> anyhow::Result<()> {
        let update = self.update().cloned();
        let status = &mut self.status;
        status.running = self.running.facts.version.to_string();
        status.development = self.running.development;
        status.state = state(self.running.facts.state_schema);
        status.repository = update.as_ref().map(|update| update.url.clone());
        status.channel = update.as_ref().map(|update| update.channel.clone());
        status.centre = update.as_ref().and_then(|update| update.centre.clone());
        status.not_told.clone_from(&self.reporter.problem);
        let waits = matches!(self.schedule.phase(), Phase::Idle | Phase::Fetched(_));
        status.looks_at_s = (waits && update.is_some()).then(|| self.schedule.look_at().as_secs());
        status.version = self.release.as_ref().map(|release| release.version.to_string());
        status.progress = self.child.as_ref().and_then(|child| child.progress).map(|all| (all.bytes, all.of));
        status.phase = match self.schedule.phase() {
            Phase::Idle => "nothing is under way".to_owned(),
            Phase::Looking => "looking for releases".to_owned(),
            Phase::Fetching(version) => format!("fetching {version}"),
            Phase::Fetched(version) => waiting(version, update.as_ref()),
            Phase::Installing(version) => format!("writing {version}"),
        };
        status.failed =
            journal.failed.iter().map(|failed| (failed.version.to_string(), failed.reason.clone())).collect();
        status.story = journal.story.iter().map(|event| (event.at, event.text.clone())).collect();
        let text = serde_json::to_vec(status)?;
        if text != self.published {
            let path = self.paths.update_status();
            write_atomic(&path, &text).with_context(|| path.display().to_string())?;
            self.published = text;
        }
        Ok(())
    }
}

/// Which schema is in force, for people.
fn state(reads: Span) -> Option<String> {
    let schema = Schema::of(store::JOURNAL.as_ref()).ok()?.number();
    Some(format!("schema {schema}; this release reads {reads}"))
}

/// What of a release came over the line, and what did not have to.
fn fetched(version: Version, progress: Option<Progress>) -> String {
    let mb = |bytes: u64| format!("{}.{:02}", bytes / 1_000_000, bytes / 10_000 % 100);
    match progress {
        Some(Progress { bytes, full, .. }) if bytes < full => {
            format!("{version} is fetched: {} of {} MB, the rest was here", mb(bytes), mb(full))
        }
        _ => format!("{version} is fetched"),
    }
}

fn waiting(version: Version, update: Option<&Update>) -> String {
    match update {
        Some(update) if update.policy == UpdatePolicy::Automatic => {
            format!("{version} is fetched and waits for the maintenance window, {} UTC", update.window)
        }
        _ => format!("{version} is fetched and waits for an operator: update install"),
    }
}

fn describe(choice: &Choice, running: &Running) -> String {
    use Choice::{Take, UpToDate, Wait};
    match choice {
        UpToDate => format!("{} is current", running.facts.version),
        Wait(version, Some(at)) => {
            let at = std::time::UNIX_EPOCH + Duration::from_secs(*at);
            format!("{version} is there; this box has its turn at {}", crate::calendar::utc(at))
        }
        Wait(version, None) => format!("{version} is there; no wave has reached this box yet"),
        Take(version) => format!("{version} is there"),
    }
}

/// Nothing depends on it but who asks when.
fn random() -> u32 {
    kontor_sys::random::octets().map_or(u32::MAX / 2, u32::from_le_bytes)
}
