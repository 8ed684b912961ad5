//! `cargo xtask component`: builds component images, and runs a component on this machine, without a box around it.
//!
//! Run here, a component has name spaces of its own, also for the network unless told otherwise, and is unpacked from its image
//! instead of mounted: nothing checks its seal then, which is said.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_config::site::Zone;
use kontor_config::{Board, Site};
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, unshare};

use crate::archive::cache::{Cache, FetchOptions};
use crate::component;
use crate::image::budget::kib;
use crate::image::declaration::{BoardFile, Product};
use crate::image::{checked_lock, firmware, process};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// The package set with `ip`.
const PEERS_SET: &str = "peers";

const EXAMPLES: &str = "\
Examples:
  cargo xtask component build samba
  cargo xtask component run samba --site docs/examples/headquarters.toml
  cargo xtask component exec samba -- samba-tool user list   while it runs, in another terminal";

/// Build a component's image, or run a component here
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Subcommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Subcommand {
    Build(Build),
    Run(Run),
    Exec(Exec),
    Join(Join),
    Preload(Preload),
}

/// Build the sealed image, and say by what it is known
#[derive(Debug, Clone, clap::Args)]
struct Build {
    /// The component: the name of a folder in rootfs/ with a component.toml
    name: String,
    /// How packages may be had
    #[command(flatten)]
    fetch: FetchOptions,
}

/// Run it on this machine, in name spaces of its own, until Ctrl-C (needs root)
#[derive(Debug, Clone, clap::Args)]
struct Run {
    /// The component: the name of a folder in rootfs/ with a component.toml
    name: String,
    /// Site file of the office
    #[arg(long, value_name = "FILE")]
    site: Utf8PathBuf,
    /// The machine whose ports the site file names: the name of a file in board/
    #[arg(long, short, value_name = "NAME", default_value = "qemu")]
    board: String,
    /// Where what it keeps lies [default: target/component/NAME/state]
    #[arg(long, value_name = "DIR")]
    state: Option<Utf8PathBuf>,
    /// Begin with nothing kept: remove target/component/NAME/state first
    #[arg(long, conflicts_with = "state")]
    fresh: bool,
    /// Use this machine's network; it must have the addresses of the site file [default: a network of its own that has them,
    /// which only `component exec` reaches]
    #[arg(long)]
    host_network: bool,
    /// How packages may be had
    #[command(flatten)]
    fetch: FetchOptions,
}

/// Run one of its commands in it, while it runs
#[derive(Debug, Clone, clap::Args)]
struct Exec {
    /// The component
    name: String,
    /// The command, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Let it join its domain, while it runs: reads the password of USER, who may join computers
#[derive(Debug, Clone, clap::Args)]
struct Join {
    /// The component
    name: String,
    /// Somebody of the domain
    user: String,
}

/// Fetch the passwords that it keeps as read-only domain controller, now
#[derive(Debug, Clone, clap::Args)]
struct Preload {
    /// The component
    name: String,
}

/// Runs the command.
///
/// # Errors
/// When the image cannot be built, or the component does not run.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Subcommand::Build(args) => build(args),
        Subcommand::Run(args) => run_here(args),
        Subcommand::Exec(args) => {
            let command = args.command.iter().map(String::as_str);
            inside("exec", &args.name, ["--"].into_iter().chain(command))
        }
        Subcommand::Join(args) => inside("join", &args.name, [args.user.as_str()]),
        Subcommand::Preload(args) => inside("preload", &args.name, []),
    }
}

fn build(args: &Build) -> Result<()> {
    let image = component::build(&args.name, &args.fetch)?;
    let path = image.publish()?;
    let seal = &image.sealed.seal;
    super::print(format_args!(
        "{path}\n  {} KiB, SHA-256 {}, fs-verity {}\n",
        kib(seal.bytes),
        seal.sha256,
        seal.verity
    ))
}

/// Where a component that runs here has its things.
fn folder(name: &str) -> Utf8PathBuf {
    Workspace::locate().target().join("component").join(name)
}

fn run_here(args: &Run) -> Result<()> {
    ensure!(args.site.is_file(), "there is no site file {}", args.site);
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a component has files of several users, and mounts of its own: only root can run it here. \
         As another user, boot it in QEMU: cargo xtask run"
    );
    let image = component::build(&args.name, &args.fetch)?;
    let root = image.unpacked()?;
    let program = firmware::build(&Workspace::locate())?;
    let folder = folder(&args.name);
    let state = args.state.clone().unwrap_or_else(|| folder.join("state"));
    if args.fresh {
        remove(&state)?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder}"))?;
    let board = folder.join("board.toml");
    std::fs::write(&board, board_text(&args.board)?).with_context(|| format!("cannot write {board}"))?;
    if !args.host_network {
        office_network(&read_site(&args.site, &board)?, &args.fetch)?;
    }
    eprintln!("{}: run from an unpacked copy; its seal is not checked by this machine's kernel", args.name);
    eprintln!("{}: state in {state}", args.name);
    let mut command = Command::new(&program);
    command.args(["component", "run", "--root", root.as_str(), "--state", state.as_str()]);
    command.args(["--run", folder.join("run").as_str(), "--site", args.site.as_str()]);
    command.args(["--board", board.as_str()]);
    // In place of this process: signals reach it as they would reach us.
    Err(command.exec()).with_context(|| format!("cannot run {program}"))
}

/// The board's file, as the box would have it.
///
/// # Errors
/// When there is no such board.
pub fn board_text(name: &str) -> Result<String> {
    let workspace = Workspace::locate();
    let product = Product::load(&workspace.product(component::PRODUCT))?;
    Ok(BoardFile::load(&workspace.board(name), &product)?.text)
}

/// The site file of a board's file.
///
/// # Errors
/// When one of them cannot be read or is wrong.
pub fn read_site(path: &Utf8Path, board: &Utf8Path) -> Result<Site> {
    let read = |path: &Utf8Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let board = Board::parse(board.as_str(), &read(board)?).map_err(|report| anyhow!("{report}"))?;
    Site::parse(path.as_str(), &read(path)?, &board).map_err(|report| anyhow!("{report}"))
}

/// Leaves this machine's network for one with nothing in it but the office's own addresses.
///
/// # Errors
/// When the kernel refuses, or the tools for it cannot be had.
pub fn office_network(site: &Site, fetch: &FetchOptions) -> Result<()> {
    let tools = peers(fetch)?;
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network of its own")?;
    let ip = |arguments: String| ip(&tools, &arguments);
    ip("link set lo up".to_owned())?;
    for (number, network) in site.networks_in(Zone::Internal).enumerate() {
        let (name, address) = (network.interface(), network.static_address());
        // A cable to nowhere: not every kernel has dummy interfaces.
        ip(format!("link add {name} type veth peer name cable{number}"))?;
        ip(format!("link set {name} up"))?;
        ip(format!("link set cable{number} up"))?;
        address.map_or(Ok(()), |address| ip(format!("address add {address} dev {name}")))?;
    }
    Ok(())
}

/// The programs of the peers' set, `ip` among them.
///
/// # Errors
/// When they cannot be had.
pub fn peers(fetch: &FetchOptions) -> Result<Tools> {
    let workspace = Workspace::locate();
    let mut lock = checked_lock(&workspace)?;
    let cache = Cache::open(fetch)?;
    cache.provide(&mut lock, &[PEERS_SET])?;
    Tools::prepare_set(PEERS_SET, &lock, &cache, workspace.target())
}

/// Runs `ip` in the present name space.
///
/// # Errors
/// What it says.
pub fn ip(tools: &Tools, arguments: &str) -> Result<()> {
    let mut command = tools.command("ip")?;
    command.args(arguments.split(' '));
    process::run(command).map(drop)
}

/// Unless a component runs on it.
fn remove(state: &Utf8Path) -> Result<()> {
    let held = File::open(state).ok().map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock));
    ensure!(!matches!(held, Some(Err(_))), "a component runs on {state}; stop it first");
    match std::fs::remove_dir_all(state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {state}"))
        }
        _ => Ok(()),
    }
}

/// In place of this process: a subcommand of the firmware that works on the component while it runs.
fn inside<'a>(subcommand: &str, name: &str, words: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let run = folder(name).join("run");
    if !run.is_dir() {
        bail!("{name} does not run here: cargo xtask component run {name}");
    }
    let program = firmware::path(&Workspace::locate());
    let mut command = Command::new(&program);
    command.args(["component", subcommand, "--run", run.as_str()]).args(words);
    Err(command.exec()).with_context(|| format!("cannot run {program}"))
}
