//! The second builder's side: takes on its surroundings, says what it sees of them, and builds.
//!
//! A program that may be started as one calls [`entered`] first thing in `main`, while it has one thread: a user
//! namespace cannot be entered later.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getgid, getuid, sethostname};
use serde::{Deserialize, Serialize};

use crate::archive::cache::FetchOptions;
use crate::archive::release::format_date;
use crate::image::{self, BuiltImage, ImageOptions};
use crate::publish::release;

/// The variable with the [`Order`] as JSON.
pub const ORDER: &str = "KONTOR_REPRODUCE";
/// The variable with a [`Detour`] as JSON, for a process that is started as another program.
pub const DETOUR: &str = "KONTOR_REPRODUCE_DETOUR";

/// What the second builder is to be and do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Enter a user namespace as this user, with no network and another host name.
    pub user: Option<u32>,
    /// The host name in it.
    pub hostname: String,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Run on the first CPU alone.
    pub one_cpu: bool,
    /// Product and image; without it only what is seen is told.
    pub(super) build: Option<(String, Utf8PathBuf)>,
    /// Where the release of that image goes, if it is made.
    pub(super) release: Option<Utf8PathBuf>,
}

impl Order {
    /// Nothing is changed.
    pub(super) fn plain() -> Self {
        Self::default()
    }

    /// Builds this image.
    pub(super) fn building(self, product: &str, image: &Utf8Path) -> Self {
        Self { build: Some((product.to_owned(), image.to_owned())), ..self }
    }

    /// Makes a release of it, too.
    pub(super) fn releasing(self, folder: Option<Utf8PathBuf>) -> Self {
        Self { release: folder, ..self }
    }
}

/// Another program to become, by name of the one that was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detour {
    /// The whole command line before the arguments given.
    pub programs: BTreeMap<String, Vec<String>>,
}

/// What a builder sees of its surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    user: String,
    hostname: String,
    home: String,
    cargo_home: String,
    checkout: String,
    time_zone: String,
    locale: String,
    umask: String,
    /// Seconds since 1970.
    clock_s: i64,
    cpus: usize,
    network: String,
    temporary: String,
    file_order: String,
}

/// A difference of clocks below this is the time a build takes.
const SAME_DAY_S: i64 = 86_400;

impl Seen {
    /// Every circumstance that is to be varied, by name.
    pub(super) fn facts(&self) -> BTreeMap<&'static str, String> {
        let day = format_date(self.clock_s - self.clock_s.rem_euclid(SAME_DAY_S));
        BTreeMap::from([
            ("user", self.user.clone()),
            ("host name", self.hostname.clone()),
            ("home", self.home.clone()),
            ("cargo's home", self.cargo_home.clone()),
            ("checkout", self.checkout.clone()),
            ("time zone", self.time_zone.clone()),
            ("locale", self.locale.clone()),
            ("umask", self.umask.clone()),
            ("clock", day.get(..10).unwrap_or(&day).to_owned()),
            ("CPUs", self.cpus.to_string()),
            ("network", self.network.clone()),
            ("temporary folder", self.temporary.clone()),
            ("order of files", self.file_order.clone()),
        ])
    }
}

/// Takes the place of the caller's `main` when this process was started as a builder, or as a program that is to run with
/// another clock.
#[must_use]
pub fn entered() -> Option<ExitCode> {
    if let Some(failed) = detour() {
        eprintln!("error: {failed:#}");
        return Some(ExitCode::FAILURE);
    }
    let order = std::env::var(ORDER).ok()?;
    match serde_json::from_str(&order).context(ORDER).and_then(|order| obey(&order)) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("error: {error:#}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// Becomes the program this process is called after, if that is to run differently; returns on failure only.
fn detour() -> Option<anyhow::Error> {
    let detour: Detour = serde_json::from_str(&std::env::var(DETOUR).ok()?).ok()?;
    let mut arguments = std::env::args_os();
    let called = arguments.next()?;
    let name = std::path::Path::new(&called).file_name()?.to_str()?.to_owned();
    let line = detour.programs.get(&name)?;
    let (program, rest) = line.split_first()?;
    let error = Command::new(program).args(rest).args(arguments).exec();
    Some(anyhow::Error::from(error).context(format!("starting {program} as {name}")))
}

fn obey(order: &Order) -> Result<()> {
    take_on(order)?;
    let root = crate::workspace::Workspace::locate().root().to_owned();
    let seen = seen(&root)?;
    if let Some((product, output)) = &order.build {
        let fetch = FetchOptions { locked: true, offline: true, quiet: true, ..FetchOptions::default() };
        let built = image::build(&ImageOptions {
            product: product.clone(),
            output: Some(output.clone()),
            fetch,
            ..ImageOptions::default()
        })?;
        if let Some(folder) = &order.release {
            release(&built, folder)?;
        }
    }
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// The image's release, as `cargo xtask release` makes it.
fn release(built: &BuiltImage, folder: &Utf8Path) -> Result<()> {
    let version = built.release.version.parse().with_context(|| built.release.version.clone())?;
    let options = release::Options {
        version,
        from_minimum: version,
        changelog: String::new(),
        from: Vec::new(),
        folder: Some(folder.to_owned()),
    };
    release::assemble(built, &options).map(drop)
}

fn take_on(order: &Order) -> Result<()> {
    if let Some(user) = order.user {
        become_user(user)?;
        sethostname(&order.hostname).context("setting the host name")?;
    }
    if let Some(mask) = order.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    if order.one_cpu {
        let mut cpus = CpuSet::new();
        let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0)).context("reading the CPUs allowed")?;
        let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        cpus.set(first.unwrap_or(0))?;
        sched_setaffinity(Pid::from_raw(0), &cpus).context("keeping to one CPU")?;
    }
    Ok(())
}

/// The same owner of the same files, but the kernel tells everybody another number.
fn become_user(user: u32) -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
        .context("the host does not permit user namespaces")?;
    // Without this an ordinary user may not map its group (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").context("giving up supplementary groups")?;
    fs::write("/proc/self/uid_map", format!("{user} {uid} 1")).context("mapping the user")?;
    fs::write("/proc/self/gid_map", format!("{user} {gid} 1")).context("mapping the group")
}

/// What this process sees, building in `tree`.
pub(super) fn seen(tree: &Utf8Path) -> Result<Seen> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let home = std::env::home_dir().map(|home| home.to_string_lossy().into_owned());
    let cargo_home = variable("CARGO_HOME").or_else(|| Some(format!("{}/.cargo", home.clone()?)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let mask = umask(Mode::empty());
    umask(mask);
    Ok(Seen {
        user: format!("{}:{}", getuid(), getgid()),
        hostname: nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        home: or_none(home),
        cargo_home: or_none(cargo_home),
        checkout: tree.to_string(),
        time_zone: variable("TZ").unwrap_or_else(|| "the host's".to_owned()),
        locale: ["LC_ALL", "LANG"].into_iter().find_map(variable).unwrap_or_else(|| "C".to_owned()),
        umask: format!("{:03o}", mask.bits()),
        clock_s: i64::try_from(now)?,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        network: network()?,
        temporary: std::env::temp_dir().to_string_lossy().into_owned(),
        file_order: file_order(tree)?,
    })
}

/// The interfaces there are.
fn network() -> Result<String> {
    let text = fs::read_to_string("/proc/self/net/dev").context("reading the list of interfaces")?;
    let mut names: Vec<&str> =
        text.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    names.sort_unstable();
    Ok(names.join(" "))
}

/// The names in the folder of the sources as the file system lists them, in short.
fn file_order(tree: &Utf8Path) -> Result<String> {
    let folder = tree.join("firmware/kontor/src");
    let entries = folder.read_dir_utf8().with_context(|| format!("reading {folder}"))?;
    let names: Vec<String> =
        entries.take(4).map(|entry| Ok(entry?.file_name().to_owned())).collect::<Result<_>>()?;
    Ok(format!("{} …", names.join(" ")))
}
