//! The services of the base, in start order: who they are, what they may, and what they wait for.

use std::time::Duration;

use kontor_component::Shipped;
use kontor_supervise::{Kind, LONGEST_PAUSE, Readiness, Spec};
use kontor_sys::cgroup::Limits;
use kontor_sys::spawn::Capability::{self, NetAdmin, NetBindService, NetRaw, SysTime};
use kontor_sys::spawn::Identity;

/// The one-shot whose end means that durable state can be read.
pub(super) const STORAGE: &str = "storage";
/// The one-shot that chooses and validates the site file.
pub(super) const SITE: &str = "site";
/// The daemon whose readiness says that the LAN is configured.
pub(super) const NETD: &str = "netd";
/// The one-shot that mounts what components need.
pub(super) const COMPONENTS: &str = "components";
/// The one-shot that installs a box which runs from a stick, where the stick's seed orders it.
pub(super) const INSTALL: &str = "install";
/// The one-shot that marks the running slot good.
pub(super) const MARK_GOOD: &str = "mark-good";
/// The one-shot that judges a release that has just been written.
pub(super) const TRIAL: &str = "trial";
/// The one-shot that keeps the last known time.
pub(super) const CLOCK: &str = "clock";
/// The one-shot before an orderly end: it keeps the time and gives the slot its try back.
pub(super) const LEAVE: &str = "leave";

/// Control group of an operator's root shells: bounded, so that a slip of the hand is not the gateway's end.
pub(crate) const SHELL: &str = "shell";
/// What it may take.
pub(super) const SHELL_LIMITS: Limits = Limits { memory_mib: 256, pids: 128, cpu_weight: 50 };

/// Daemons send WATCHDOG=1 every 2 to 5 s. Long enough for a write that waits for a disk to spin up (10 s),
/// short enough for an office to notice no more than a hiccup.
const WATCHDOG: Duration = Duration::from_secs(20);
/// Daemons start at once and wait for the site themselves, which waits for the disk for up to 48 s.
const SITE_DEADLINE: Duration = Duration::from_secs(120);
/// When all want the processor: who serves the office comes before consoles and one-shots.
const SERVING_WEIGHT: u32 = 300;
const WEIGHT: u32 = 100;
/// When the whole box is out of memory the kernel kills the biggest; these are the last it may take.
const SERVING_OOM_SCORE: i16 = -900;
const NOTIFY: Kind = Kind::Daemon(Readiness::Notify);
const MAX_FILES: u64 = 4096;

/// A component makes or joins a domain when it starts for the first time, and waits for headquarters while it is away.
const COMPONENT_DEADLINE: Duration = Duration::from_secs(3600);
/// It says that it is alive every 5 s; on a busy box its services come before that.
const COMPONENT_WATCHDOG: Duration = Duration::from_secs(60);
/// More than its services take, after which it kills them itself.
const COMPONENT_STOP: Duration = Duration::from_secs(12);
/// One that cannot start (no disk, a damaged image) is tried this often: nobody else waits for it, and the log should hold more
/// than its complaints.
const COMPONENT_PAUSE: Duration = Duration::from_secs(300);
/// Before any daemon of the base when the box is out of memory, after root shells.
const COMPONENT_OOM_SCORE: i16 = 300;
/// Each client of a file server has files of its own.
const COMPONENT_MAX_FILES: u64 = 65_536;

/// How a service is started, beside what the supervisor knows of it.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// What the supervisor knows.
    pub(super) spec: Spec,
    /// Arguments of `kontor`.
    pub(super) args: Vec<String>,
    /// User and capabilities.
    pub(super) identity: Identity,
    /// Control group limits.
    pub(super) limits: Limits,
    /// Open files at most.
    pub(super) max_files: u64,
    /// Who goes first when the whole box is out of memory.
    pub(super) oom_score_adjust: i16,
    /// Whether it has as many processes as it has clients: then one too many is refused, and no sign of a fault.
    pub(super) grows: bool,
}

/// Limits that fit a box with this much RAM: no service may have more than a quarter of it.
pub(super) fn bounded(limits: Limits, memory_mib: u32) -> Limits {
    Limits { memory_mib: limits.memory_mib.min(memory_mib / 4), ..limits }
}

/// All of them, on a box with this much RAM and these components; `consoles` are terminals below /dev.
pub(super) fn all(consoles: &[String], shipped: &[Shipped], memory_mib: u32) -> Vec<Service> {
    let mut services = base_services(consoles, memory_mib);
    services.extend(shipped.iter().map(|shipped| component(shipped, memory_mib)));
    services
}

fn base_services(consoles: &[String], memory_mib: u32) -> Vec<Service> {
    let mut services = vec![
        storage(),
        modules(),
        essential(root(SITE, &[], Kind::OneShot, 64)),
        essential(daemon(NETD, &["modules"], 201, &[NetAdmin, NetRaw, NetBindService], 96)),
        essential(daemon("dnsd", &[], 203, &[NetBindService], 256)),
        essential(daemon("dhcpd", &[], 202, &[NetRaw, NetBindService], 96)),
        late(daemon("timed", &[SITE, NETD, "dhcpd"], 204, &[SysTime, NetBindService], 64)),
        late(disk_watch()),
        late(components()),
        late(install()),
        late(updated()),
        on_demand(MARK_GOOD, &["storage", "mark-good"]),
        late(trial()),
        on_demand(CLOCK, &["storage", "save-clock"]),
        on_demand(LEAVE, &["storage", "leave"]),
    ];
    services.extend(consoles.iter().filter_map(|device| console(device)));
    services[2].args = vec!["site".into(), "boot".into()];
    for service in &mut services {
        service.limits = bounded(service.limits, memory_mib);
    }
    services
}

fn base(name: &'static str, after: &[&'static str], kind: Kind, memory_mib: u32) -> Service {
    let spec = Spec {
        name,
        after: after.to_vec(),
        kind,
        essential: false,
        // A slow disk, a big site: one-shots and starts are bounded generously; nothing waits for more.
        start_deadline: Duration::from_secs(60),
        watchdog: None,
        stop_deadline: Duration::from_secs(5),
        reloads: false,
        on_demand: false,
        optional: false,
        late: false,
        longest_pause: LONGEST_PAUSE,
    };
    Service {
        spec,
        args: vec![name.to_owned()],
        identity: Identity::Root,
        limits: Limits { memory_mib, pids: 64, cpu_weight: WEIGHT },
        max_files: MAX_FILES,
        oom_score_adjust: 0,
        grows: false,
    }
}

/// Started when what it needs is mounted; done at once where the site file has no table for it.
///
/// All its processes together have what it asks for, but at most half of the RAM: the office's network comes first.
fn component(shipped: &Shipped, memory_mib: u32) -> Service {
    let manifest = &shipped.manifest;
    // Names live as long as PID 1, which reads them once.
    let name: &'static str = manifest.name.clone().leak();
    let mut service = base(name, &[], NOTIFY, manifest.memory_mib.min(memory_mib / 2));
    service.args = ["component", "service", name].map(str::to_owned).to_vec();
    service.limits.pids = manifest.processes;
    service.max_files = COMPONENT_MAX_FILES;
    service.oom_score_adjust = COMPONENT_OOM_SCORE;
    service.grows = true;
    service.spec = Spec {
        start_deadline: COMPONENT_DEADLINE,
        watchdog: Some(COMPONENT_WATCHDOG),
        stop_deadline: COMPONENT_STOP,
        reloads: true,
        on_demand: true,
        optional: true,
        longest_pause: COMPONENT_PAUSE,
        ..service.spec
    };
    service
}

/// A driver may look for its hardware for half a minute, and a sign of life comes every 15 s.
fn modules() -> Service {
    let mut service = root("modules", &[], NOTIFY, 128);
    service.spec.watchdog = Some(Duration::from_secs(60));
    // Killing it half-way through a slow machine's hardware would only make that machine slower.
    service.spec.start_deadline = Duration::from_secs(180);
    service
}

/// Waits for late disks, makes file systems: minutes on a slow one, and killing it halfway helps nobody.
fn storage() -> Service {
    let mut service = root(STORAGE, &[], Kind::OneShot, 512);
    service.spec.start_deadline = Duration::from_secs(600);
    service
}

/// Makes and mounts file systems for components, whenever storage has found its disk: minutes on a slow one.
fn components() -> Service {
    let mut service = on_demand(COMPONENTS, &["storage", "components"]);
    service.spec.start_deadline = Duration::from_secs(600);
    service.limits.memory_mib = 512;
    service
}

/// Reads a stick and writes a disk: half an hour where both are slow.
fn install() -> Service {
    let mut service = on_demand(INSTALL, &["install"]);
    service.spec.start_deadline = Duration::from_secs(3600);
    service.limits.memory_mib = 128;
    service
}

/// Root, for it writes slots; its children that speak with servers are not. Its own memory is small; a child that decompresses needs
/// 8 MiB of window.
fn updated() -> Service {
    let mut service = root("updated", &[SITE, NETD], NOTIFY, 128);
    service.spec.watchdog = Some(WATCHDOG);
    service.spec.reloads = true;
    service
}

/// Waits for everything that worked before, for components also a quarter of an hour.
fn trial() -> Service {
    let mut service = on_demand(TRIAL, &["updated", "trial"]);
    service.spec.start_deadline = Duration::from_secs(kontor_update::health::COMPONENT_S + 120);
    service
}

/// Takes over when storage has found its disk, or has given up.
fn disk_watch() -> Service {
    let mut service = root("disk", &[STORAGE], NOTIFY, 64);
    service.args = vec!["storage".into(), "watch".into()];
    service.spec.watchdog = Some(WATCHDOG);
    service
}

fn root(name: &'static str, after: &[&'static str], kind: Kind, memory_mib: u32) -> Service {
    base(name, after, kind, memory_mib)
}

fn daemon(
    name: &'static str,
    after: &[&'static str],
    id: u32,
    capabilities: &[Capability],
    memory_mib: u32,
) -> Service {
    let mut service = base(name, after, NOTIFY, memory_mib);
    service.identity = Identity::User { id, capabilities: capabilities.to_vec() };
    service.spec.watchdog = Some(WATCHDOG);
    service.spec.start_deadline = SITE_DEADLINE;
    service.spec.reloads = true;
    service.limits.cpu_weight = SERVING_WEIGHT;
    service.oom_score_adjust = SERVING_OOM_SCORE;
    service
}

fn essential(mut service: Service) -> Service {
    service.spec.essential = true;
    service
}

/// The first leases come first: of the processors of a small box each of these takes them some milliseconds.
fn late(mut service: Service) -> Service {
    service.spec.late = true;
    service
}

fn on_demand(name: &'static str, args: &[&str]) -> Service {
    let mut service = base(name, &[], Kind::OneShot, 64);
    service.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    service.spec.start_deadline = Duration::from_secs(20);
    service.spec.on_demand = true;
    service
}

/// The console runs as root: it hands operators' commands to PID 1, which takes them from root only, and
/// opens the terminal itself. It reads a password and a line; both are bounded.
fn console(device: &str) -> Option<Service> {
    let name = match device {
        "ttyS0" => "console-ttyS0",
        "ttyS1" => "console-ttyS1",
        "tty0" => "console-tty0",
        "tty1" => "console-tty1",
        "hvc0" => "console-hvc0",
        _ => return None,
    };
    let mut service = late(base(name, &["modules"], NOTIFY, 128));
    service.args = vec!["console".to_owned(), "--tty".to_owned(), format!("/dev/{device}")];
    service.spec.watchdog = Some(WATCHDOG);
    service.spec.reloads = true;
    Some(service)
}

/// User id of a service; its run-time directory belongs to it.
pub(super) fn user(service: &Service) -> u32 {
    match service.identity {
        Identity::Root => 0,
        Identity::User { id, .. } => id,
    }
}

#[cfg(test)]
mod tests {
    use kontor_supervise::Supervisor;

    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let services = all(&["ttyS0".into(), "tty0".into(), "nonsense".into()], &[samba()], 512);
        let specs: Vec<Spec> = services.iter().map(|service| service.spec.clone()).collect();
        let supervisor = Supervisor::new(specs, 1).unwrap();
        for name in
            [STORAGE, SITE, COMPONENTS, INSTALL, MARK_GOOD, TRIAL, CLOCK, LEAVE, "console-tty0", "samba"]
        {
            assert!(supervisor.find(name).is_some(), "{name}");
        }
        assert_eq!(services[2].args, ["site", "boot"]);
        assert_eq!(services[2].spec.name, SITE);
    }

    #[test]
    fn no_service_may_take_a_small_box_for_itself() {
        for service in all(&["ttyS0".into()], &[], 160) {
            let limits = service.limits;
            assert!((16..=40).contains(&limits.memory_mib), "{}: {limits:?}", service.spec.name);
            assert!(limits.pids <= 64, "{}: {limits:?}", service.spec.name);
        }
    }

    fn samba() -> Shipped {
        let digits = "0".repeat(64);
        let text = format!(
            "schema = 1\nname = 'samba'\nmemory-mib = 768\nprocesses = 512\n[[service]]\nname = 'smbd'\n\
             command = ['/usr/sbin/smbd']\n[seal]\nbytes = 1\nsha256 = '{digits}'\nverity = '{digits}'\n"
        );
        Shipped::parse(&text).unwrap()
    }

    #[test]
    fn a_component_has_what_it_asks_for_and_never_more_than_half_the_box() {
        let limits = |memory_mib| component(&samba(), memory_mib).limits;
        assert_eq!((limits(4096).memory_mib, limits(4096).pids), (768, 512));
        assert_eq!(limits(512).memory_mib, 256);
        let spec = component(&samba(), 512).spec;
        assert!(spec.optional && spec.on_demand && !spec.essential);
    }

    #[test]
    fn every_daemon_is_watched() {
        for service in all(&["ttyS0".into()], &[samba()], 512).iter().filter(|s| s.spec.kind != Kind::OneShot)
        {
            assert!(service.spec.watchdog.is_some(), "{}", service.spec.name);
        }
    }

    #[test]
    fn essential_daemons_are_watched_and_unprivileged() {
        for service in
            all(&[], &[samba()], 512).iter().filter(|s| s.spec.essential && s.spec.kind != Kind::OneShot)
        {
            assert!(service.spec.watchdog.is_some(), "{}", service.spec.name);
            assert_ne!(user(service), 0, "{}", service.spec.name);
        }
    }
}
