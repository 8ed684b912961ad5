//! Everything around the second build that is to differ from the first, as far as this machine permits.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::Sets;
use super::checkout::{self, Order as FileOrder};
use super::inside::{DETOUR, Detour, ORDER, Order};
use crate::archive::cache;
use crate::workspace::Workspace;

/// What a build leaves on disk today, twice: tools, steps, compiled crates, image.
const ROOM: u64 = 4 << 30;
/// A file system in RAM, which lists files in another order than one on disk.
const IN_RAM: &str = "/dev/shm";
/// Behind every today: certificates have expired, years have another number of digits in no format.
const CLOCK_OFFSET: &str = "+4000d";
/// The user of the second build when the first is root; otherwise the second is root.
const SOMEBODY: u32 = 4242;
/// As far from UTC as time zones go, without a file of the host's.
const TIME_ZONE: &str = "<+14>-14";
const LOCALE: &str = "tr_TR.UTF-8";
const LIBRARY: &str = "usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// The second build's surroundings.
#[derive(Debug)]
pub struct Surroundings {
    /// The copy of the tree.
    pub tree: Utf8PathBuf,
    /// What cannot be varied here, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// What the builder does first.
    pub(super) order: Order,
    environment: BTreeMap<String, String>,
    program: Vec<String>,
}

impl Surroundings {
    /// As different as this machine permits; everything is made below `folder`.
    pub(super) fn other(folder: &Utf8Path, workspace: &Workspace, tools: &Sets) -> Result<Self> {
        let home = folder.join("another-home");
        let temporary = folder.join("tmp");
        for path in [&home, &temporary] {
            fs::create_dir_all(path).with_context(|| format!("making {path}"))?;
        }
        let mut around = Self {
            tree: folder.join("a/checkout/with/quite/another/path"),
            skipped: Vec::new(),
            order: Order::plain(),
            environment: environment(&home, &temporary)?,
            program: vec![own_path()?],
        };
        around.packages(folder)?;
        around.crates(&home, workspace)?;
        let mask = if ours() == 0o077 { 0o022 } else { 0o077 };
        around.order = Order { umask: Some(mask), one_cpu: true, ..Order::plain() };
        around.another_user();
        around.another_clock(folder, tools)?;
        Ok(around)
    }

    /// The builder, in these surroundings.
    pub(super) fn command(&self) -> Result<Command> {
        let (program, arguments) = self.program.split_first().context("no builder")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&self.environment);
        command.env("CARGO_MANIFEST_DIR", self.tree.join("xtask"));
        Ok(command)
    }

    /// The same packages by another path; what is in them is read from themselves, not from what the cache keeps of it.
    fn packages(&mut self, folder: &Utf8Path) -> Result<()> {
        let (root, other) = (cache::default_root()?, folder.join("packages"));
        fs::create_dir_all(&other).with_context(|| format!("making {other}"))?;
        for name in cache::DOWNLOADED {
            let link = other.join(name);
            symlink(root.join(name), &link).with_context(|| format!("making {link}"))?;
        }
        self.environment.insert("KONTOR_CACHE".to_owned(), other.into());
        Ok(())
    }

    /// The same crates, unpacked anew by another cargo home.
    fn crates(&mut self, home: &Utf8Path, workspace: &Workspace) -> Result<()> {
        let Some(ours) = crate::image::firmware::cargo_home() else {
            self.skipped.push(("cargo's home", "there is no home directory".to_owned()));
            return Ok(());
        };
        if !ours.join("registry/cache").is_dir() || !ours.join("registry/index").is_dir() {
            self.skipped.push(("cargo's home", format!("{ours} has no copies of crates to take along")));
            self.environment.insert("CARGO_HOME".to_owned(), ours.into());
            return Ok(());
        }
        copy_crates(&ours, &home.join(".cargo"), &wanted_crates(workspace)?)
    }

    fn another_user(&mut self) {
        let user = if nix::unistd::getuid().is_root() { SOMEBODY } else { 0 };
        let order = Order { user: Some(user), hostname: "elsewhere".to_owned(), ..self.order.clone() };
        match self.tried(&order) {
            Ok(()) => self.order = order,
            Err(error) => {
                for what in ["user", "host name", "network"] {
                    self.skipped.push((what, format!("{error:#}")));
                }
            }
        }
    }

    /// The builder, its tools and cargo run on the tools' own C library with one more library before it.
    fn another_clock(&mut self, folder: &Utf8Path, tools: &Sets) -> Result<()> {
        let library = tools.clock.path(LIBRARY);
        let before = (self.program.clone(), self.environment.clone());
        let loader = tools.own.loader(Some(&library))?;
        self.program = [loader.clone(), vec![own_path()?]].concat();
        let settings = [
            (crate::tools::PRELOAD, library.as_str()),
            ("FAKETIME", CLOCK_OFFSET),
            // Files keep the times the kernel gives them; waiting takes as long as ever.
            ("NO_FAKE_STAT", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DISABLE_SHM", "1"),
        ];
        self.environment.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        match self.tried(&self.order.clone()).and_then(|()| self.cargo_too(folder, &loader)) {
            Ok(()) => {
                let why = "it brings an allocator that the library of the other clock deadlocks with; the \
                     compilers write no time into programs, and cargo and every tool have the other clock";
                self.skipped.push(("clock of rustc", why.to_owned()));
            }
            Err(error) => {
                (self.program, self.environment) = before;
                self.skipped.push(("clock", format!("{error:#}")));
            }
        }
        Ok(())
    }

    /// Cargo is started by a name that leads back here, and from here by that loader.
    fn cargo_too(&mut self, folder: &Utf8Path, loader: &[String]) -> Result<()> {
        let cargo = toolchain()?.join("bin/cargo");
        if !cargo.is_file() {
            bail!("{cargo} does not exist");
        }
        let link = folder.join("cargo");
        symlink(own_path()?, &link).with_context(|| format!("making {link}"))?;
        let line = [loader.to_vec(), vec![cargo.into()]].concat();
        let detour = Detour { programs: BTreeMap::from([("cargo".to_owned(), line)]) };
        self.environment.insert(DETOUR.to_owned(), serde_json::to_string(&detour)?);
        self.environment.insert("CARGO".to_owned(), link.to_string());
        let mut command = Command::new(&link);
        command.arg("--version").env_clear().envs(&self.environment);
        succeeded(command, "cargo with another clock")
    }

    /// Whether a builder can be started like this.
    fn tried(&self, order: &Order) -> Result<()> {
        let mut command = self.command()?;
        // Nothing has been copied yet: it looks at the tree we are in.
        command.env("CARGO_MANIFEST_DIR", Workspace::locate().root().join("xtask"));
        command.env(ORDER, serde_json::to_string(order)?);
        succeeded(command, "a builder in other surroundings")
    }
}

fn succeeded(mut command: Command, what: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {what}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{what} does not run: {}", text.trim().trim_start_matches("error: "));
    }
    Ok(())
}

fn own_path() -> Result<String> {
    let path = std::env::current_exe().context("the builder's own path")?;
    path.into_os_string().into_string().ok().context("the builder's path is not UTF-8")
}

fn ours() -> u32 {
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(mask);
    mask.bits()
}

/// What the second build is told, and some things that must make no difference.
fn environment(home: &Utf8Path, temporary: &Utf8Path) -> Result<BTreeMap<String, String>> {
    let mut environment = BTreeMap::new();
    // The toolchain itself: with another home rustup might choose another one, or ask its server.
    let programs = toolchain()?.join("bin");
    let path = std::env::var("PATH").unwrap_or_default();
    environment.insert("PATH".to_owned(), format!("{programs}:{path}"));
    environment.insert("CARGO".to_owned(), programs.join("cargo").into());
    let told = [
        ("HOME", home.as_str()),
        ("USER", "somebody"),
        ("LOGNAME", "somebody"),
        ("TMPDIR", temporary.as_str()),
        ("TZ", TIME_ZONE),
        ("LANG", LOCALE),
        ("LC_ALL", LOCALE),
        ("CARGO_NET_OFFLINE", "true"),
        // A packager's, and a developer's, who forgot them.
        ("SOURCE_DATE_EPOCH", "1"),
        ("RUSTFLAGS", "-Copt-level=0 -Cdebuginfo=2"),
        ("CARGO_INCREMENTAL", "1"),
        ("CFLAGS", "-O0 -g"),
    ];
    environment.extend(told.map(|(name, value)| (name.to_owned(), value.to_owned())));
    Ok(environment)
}

/// Where the compiler in use is.
fn toolchain() -> Result<Utf8PathBuf> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output =
        Command::new(rustc).args(["--print", "sysroot"]).output().context("asking rustc for its place")?;
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

/// File names of the crates that Cargo.lock names.
fn wanted_crates(workspace: &Workspace) -> Result<Vec<String>> {
    let path = workspace.root().join("Cargo.lock");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let table: toml::Table = toml::from_str(&text).with_context(|| format!("in {path}"))?;
    let packages = table.get("package").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let text = |package: &toml::Value, field: &str| Some(package.get(field)?.as_str()?.to_owned());
    let file = |package| Some(format!("{}-{}.crate", text(package, "name")?, text(package, "version")?));
    Ok(packages.iter().filter_map(file).collect())
}

/// Index, packed crates and configuration; never what cargo keeps secret.
fn copy_crates(from: &Utf8Path, to: &Utf8Path, wanted: &[String]) -> Result<()> {
    checkout::copy_all(&from.join("registry/index"), &to.join("registry/index"), FileOrder::Reversed)?;
    for registry in from.join("registry/cache").read_dir_utf8().context("reading cargo's crates")? {
        let registry = registry?;
        let folder = to.join("registry/cache").join(registry.file_name());
        fs::create_dir_all(&folder).with_context(|| format!("making {folder}"))?;
        for name in wanted.iter().rev() {
            let file = registry.path().join(name);
            if file.is_file() {
                fs::copy(&file, folder.join(name)).with_context(|| format!("copying {file}"))?;
            }
        }
    }
    for name in ["config.toml", "config"] {
        let file = from.join(name);
        if file.is_file() {
            fs::copy(&file, to.join(name)).with_context(|| format!("copying {file}"))?;
        }
    }
    Ok(())
}

/// Where the second build has room: in RAM if there is enough, else `beside` the first.
pub(super) fn roomiest(beside: &Utf8Path) -> Result<Utf8PathBuf> {
    let usable = |path: &Utf8Path| -> Option<u64> {
        let stat = statvfs(path.as_std_path()).ok()?;
        let runs = !stat.flags().contains(FsFlags::ST_NOEXEC) && !stat.flags().contains(FsFlags::ST_RDONLY);
        runs.then(|| stat.blocks_available().saturating_mul(stat.fragment_size()))
    };
    let in_ram = Utf8Path::new(IN_RAM);
    if usable(in_ram).is_some_and(|bytes| bytes >= ROOM)
        && free_memory().is_some_and(|bytes| bytes >= 2 * ROOM)
    {
        return Ok(in_ram.to_owned());
    }
    match usable(beside) {
        Some(bytes) if bytes < ROOM => bail!(
            "{beside} has {} MiB free, a build from clean needs {}: free some, or move the repository",
            bytes >> 20,
            ROOM >> 20
        ),
        _ => Ok(beside.to_owned()),
    }
}

/// `MemAvailable`: what can be used without swapping.
fn free_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}
