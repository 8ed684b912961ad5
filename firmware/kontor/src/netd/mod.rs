//! The `netd` applet: links, addresses, routes, tunnels, firewall and the WAN's DHCP client.
//!
//! Decisions are in `kontor-network`, `kontor-wireguard`, `kontor-dhcp4` and `kontor-firewall`; this module owns the sockets, the
//! clock and the files. It must never serve or parse anything of the LAN's users; of the LAN it hears only its own
//! probes for wrong cables.
//!
//! IPv6: until the office gets an IPv6 service, nothing of it is forwarded (the kernel's default) and router
//! advertisements are not accepted on any port, so that nobody on the outside can give the box a route.

mod daemon;
mod files;
mod firewall;
mod generation;
mod guard;
mod hardware;
mod keys;
mod netlink;
mod openings;
mod report;
mod store;
mod tunnels;
mod wan;
mod watched;
mod wireguard;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use kontor_component::SHIPPED_DIRECTORY;
use kontor_status::paths::Paths;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use tokio::signal::unix::{SignalKind, signal};

use crate::site;
use daemon::{Daemon, Places};
use netlink::Events;

/// Well below the supervisor's 5 s, and the longest the disk's appearance goes unnoticed.
const TICK: Duration = Duration::from_secs(2);
/// How often the first site file is looked for when the supervisor started us before it was there.
const SITE_WAIT: Duration = Duration::from_millis(200);

/// Runs netd until SIGTERM. The network stays as it is then: a restart must not be noticed by the office.
///
/// `--run --state --site --board` move files, `--nft FILE --sys DIR --proc-sys DIR --components DIR` the programs and
/// trees it uses; all of them for trial runs in a namespace.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let flag = |name: &str, default: &str| {
        let position = args.iter().position(|argument| argument == name);
        PathBuf::from(position.and_then(|i| args.get(i + 1)).map_or(default, String::as_str))
    };
    let places = Places {
        paths: Paths::from_args(args),
        nft: flag("--nft", "/usr/sbin/nft"),
        sys: flag("--sys", "/sys"),
        proc_sys: flag("--proc-sys", "/proc/sys"),
        components: flag("--components", SHIPPED_DIRECTORY),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(places))
}

async fn serve(places: Places) -> anyhow::Result<()> {
    // Subscribed before the first look, so that no change falls between the two.
    let mut events = Events::subscribe().context("subscribing to link changes")?;
    let paths = places.paths.clone();
    let mut daemon = Daemon::new(places).context("opening the routing socket")?;
    // All of this is done by the time the site is chosen. Nothing is handled yet: SIGTERM ends us.
    site::wait(&paths, &mut Signals::new(&[])?, &Notifier::from_environment())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut tick = tokio::time::interval(TICK);
    daemon.reload().await;
    loop {
        let site_wait = (!daemon.has_site()).then(|| Instant::now() + SITE_WAIT);
        let wake_at = daemon.next_at().into_iter().chain(site_wait).min();
        let tunnels_at = daemon.tunnels.next_at();
        tokio::select! {
            alive = events.changed() => {
                anyhow::ensure!(alive, "the routing socket is gone");
                events.drain();
                daemon.reconcile().await;
            }
            () = daemon.wan.readable() => daemon.wake().await,
            () = daemon.guard.readable() => daemon.watch_loops().await,
            () = sleep_until(daemon.guard.next_at()) => daemon.watch_loops().await,
            () = daemon.tunnels.name_answered() => daemon.watch_tunnels().await,
            () = sleep_until(tunnels_at) => daemon.watch_tunnels().await,
            () = sleep_until(wake_at) => match daemon.has_site() {
                true => daemon.wake().await,
                false => daemon.reload().await,
            },
            _ = tick.tick() => daemon.tick().await,
            _ = hangup.recv() => daemon.reload().await,
            _ = terminate.recv() => return Ok(()),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
