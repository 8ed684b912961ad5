//! `cargo xtask run`: builds the image and boots it in QEMU.
//!
//! The machine's WAN port is on QEMU's user network; its LAN port on a second one, from which ports of the
//! host's loopback lead to the box. Needs no privilege and touches nothing of the host's network.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use camino::Utf8PathBuf;
use ipnet::Ipv4Net;

use crate::archive::cache::FetchOptions;
use crate::image::declaration::BoardFile;
use crate::image::plan::named_board;
use crate::image::{self, BuiltImage, ImageOptions};
use crate::qemu::development::hash_password;
use crate::qemu::mimic::BootFirmware;
use crate::qemu::qmp::QmpListener;
use crate::qemu::session::{Event, Session};
use crate::qemu::{
    Accel, Backend, Firmware, Forward, Machine, Nic, Protocol, Serial, UserNet, development_site, disk,
};
use crate::scratch;
use crate::workspace::Workspace;

/// Folders of running machines, in target/images.
const RUN_PREFIX: &str = "run-";
/// What the console says when the gateway works.
const READY: &str = "kontor: gateway ready";
/// By emulation on a loaded machine; a healthy boot takes a tenth of it.
const READY_LIMIT: Duration = Duration::from_secs(300);
/// An orderly power-off; the box's own deadlines are shorter.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(90);
/// How long one press of the power button may take to show.
const POWER_BUTTON_PAUSE: Duration = Duration::from_secs(5);
/// Ports of the machine; a board for any machine has more than one would want to look at.
const MAX_PORTS: usize = 4;
/// No 0/o, 1/l: the password is read from a screen and typed.
const PASSWORD_LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

const EXAMPLES: &str = "\
Examples:
  cargo xtask run                                       the built-in site; log in as operator
  cargo xtask run --site office.toml --memory 256
  cargo xtask run --board pcengines-apu2 --uefi --keep  that machine's ports, disk and watchdog
  cargo xtask run --exit-when-ready                     does it boot?";

/// Build the image and boot it in QEMU, with its serial console in this terminal
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to build: the name of a file in images/
    #[arg(default_value = "branch")]
    pub product: String,
    /// The machine QEMU mimics: the name of a file in board/
    #[arg(long, short, value_name = "NAME", default_value = "qemu")]
    pub board: String,
    /// Boot by UEFI, also where the real machine has a BIOS
    #[arg(long)]
    pub uefi: bool,
    /// RAM of the machine
    #[arg(long, default_value_t = 512, value_name = "MIB", value_parser = clap::value_parser!(u32).range(128..=65536))]
    pub memory: u32,
    /// Site file of the office [default: the built-in site and a fresh operator's password, printed]
    #[arg(long, value_name = "FILE")]
    pub site: Option<Utf8PathBuf>,
    /// Keep the machine's disk, and say where it is
    #[arg(long)]
    pub keep: bool,
    /// Switch the machine off as soon as the gateway works, and say how long that took
    #[arg(long)]
    pub exit_when_ready: bool,
    /// How packages may be had
    #[command(flatten)]
    pub fetch: FetchOptions,
}

/// Runs the command.
///
/// # Errors
/// When the image cannot be built, the machine does not start, or (with `--exit-when-ready`) does not become ready.
pub fn run(args: &Args) -> Result<()> {
    let office = Office::new(args)?;
    let built = image::build(&office.options)?;
    // Beside the image, so that the copy needs no second file system.
    let images = Workspace::locate().images();
    scratch::sweep(&images, RUN_PREFIX);
    let (folder, _claim) = scratch::directory(&images, RUN_PREFIX)?;
    let outcome = boot(args, &office, &built, folder.path());
    if args.keep {
        keep(folder)?;
    }
    outcome
}

/// Out of reach of the next run's sweep.
fn keep(folder: tempfile::TempDir) -> Result<()> {
    let name = folder.path().file_name().and_then(|name| name.to_str()).unwrap_or(RUN_PREFIX);
    let kept = folder.path().with_file_name(name.replacen(RUN_PREFIX, "kept-", 1));
    std::fs::rename(folder.keep(), &kept).with_context(|| format!("keeping {}", kept.display()))?;
    eprintln!("kept: {}", kept.display());
    Ok(())
}

/// What the machine is told about its office.
#[derive(Debug)]
struct Office {
    options: ImageOptions,
    board: BoardFile,
    lan: Ipv4Net,
    password: Option<String>,
}

impl Office {
    fn new(args: &Args) -> Result<Self> {
        let (text, password) = match &args.site {
            Some(path) => (std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?, None),
            None => {
                let password = fresh_password()?;
                (development_site(&hash_password(&password)?), Some(password))
            }
        };
        let output = Workspace::locate().images().join(format!("{}-run.img", args.product));
        let options = ImageOptions {
            product: args.product.clone(),
            board: Some(args.board.clone()),
            site: args.site.clone(),
            site_text: args.site.is_none().then(|| text.clone()),
            output: Some(output),
            fetch: args.fetch.clone(),
            ..ImageOptions::default()
        };
        // Shows every mistake of the site file before anything is built.
        let plan = image::plan(&options)?;
        let board = named_board(Some(&args.board), &plan.product, &plan.boards)?.clone();
        Ok(Self { lan: lan_address(&text)?, options, board, password })
    }
}

/// The box's address in the first internal network of a (valid) site file.
fn lan_address(site: &str) -> Result<Ipv4Net> {
    let site: toml::Table = site.parse().context("reading the site file")?;
    let networks = site.get("network").and_then(toml::Value::as_array).into_iter().flatten();
    let text = |network: &toml::Value, key: &str| network.get(key)?.as_str().map(str::to_owned);
    let mut internal = networks.filter(|network| text(network, "zone").as_deref() == Some("internal"));
    let address = internal.find_map(|network| text(network, "address")?.parse().ok());
    address.context("the site file has no internal network with a fixed address")
}

fn fresh_password() -> Result<String> {
    let mut random = [0; 10];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .context("reading /dev/urandom")?;
    Ok(random.iter().map(|byte| char::from(PASSWORD_LETTERS[usize::from(byte & 31)])).collect())
}

fn boot(args: &Args, office: &Office, built: &BuiltImage, folder: &Path) -> Result<()> {
    let image = folder.join("disk.img");
    disk::copy_sparse(built.path.as_std_path(), &image, disk::MACHINE_SIZE)?;
    let accel = Accel::detect(&built.tools)?;
    let mimic = office.board.machine.clone();
    let uefi = args.uefi || mimic.firmware == BootFirmware::Uefi;
    let firmware = if uefi { Firmware::ovmf(&built.tools, folder)? } else { Firmware::SeaBios };
    let (lan, port) = lan_network(office.lan)?;
    let watched = args.exit_when_ready || !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal();
    // A socket's path is short; a folder deep below the repository may be too long for one.
    let sockets = tempfile::Builder::new().prefix("kontor-").tempdir()?;
    let control = QmpListener::bind(&sockets.path().join("qmp"))?;
    let backends = [Backend::User(UserNet::default()), Backend::User(lan)];
    let machine = Machine {
        nics: nics(&office.board, backends),
        mimic,
        memory_mib: args.memory,
        processors: 2,
        firmware,
        disk: image,
        serial: if watched { Serial::Output } else { Serial::Terminal },
        qmp: Some(control.path().into()),
        watchdog: true,
        no_reboot: false,
        accel,
    };
    introduce(office, port, accel, watched);
    let command = crate::qemu::command(&built.tools, &machine)?;
    let mut session = Session::start(command, watched)?;
    match args.exit_when_ready {
        true => until_ready(&mut session, &control),
        false => session.until_end(),
    }
}

/// The board's ports; those after WAN and LAN have no cable.
fn nics(board: &BoardFile, plugged: [Backend; 2]) -> Vec<Nic> {
    let backends = plugged.into_iter().chain(std::iter::repeat(Backend::None));
    let ports = (1..=board.board.ports.len().min(MAX_PORTS)).zip(backends);
    let model = board.machine.nic.device();
    ports.map(|(port, backend)| Nic { mac: format!("52:54:00:4b:00:{port:02x}"), backend, model }).collect()
}

/// The LAN side: QEMU is a neighbour of the box, and one port of the host leads to its name server.
fn lan_network(lan: Ipv4Net) -> Result<(UserNet, u16)> {
    let neighbour = lan.hosts().find(|host| *host != lan.addr()).context("the LAN has no second address")?;
    let port = free_port()?;
    let forward = |protocol| Forward { protocol, host_port: port, guest: lan.addr(), guest_port: 53 };
    let forwards = vec![forward(Protocol::Udp), forward(Protocol::Tcp)];
    Ok((UserNet { net: Some(lan.trunc()), host: Some(neighbour), forwards }, port))
}

/// A port of the loopback that is free for UDP and TCP.
fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no free UDP port")?;
        let port = udp.local_addr()?.port();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 is free for both UDP and TCP")
}

fn introduce(office: &Office, port: u16, accel: Accel, watched: bool) {
    let how = match accel {
        Accel::Kvm => "KVM",
        Accel::Tcg => "emulation (no working KVM)",
    };
    eprintln!("starting QEMU with {how}; WAN: QEMU's user network, LAN: {}", office.lan.trunc());
    eprintln!("  DNS of the box:  dig @127.0.0.1 -p {port} kontor.office.internal");
    match &office.password {
        Some(password) => eprintln!("  log in at the console:  press Enter, operator, {password}"),
        None => {
            eprintln!("  log in at the console:  press Enter, operator, and the password of your site file")
        }
    }
    if !watched {
        eprintln!("  leave:  Ctrl-A X");
    }
}

fn until_ready(session: &mut Session, control: &QmpListener) -> Result<()> {
    let started = Instant::now();
    let mut qmp = control.accept(|| session.is_running())?;
    let mut text = String::new();
    loop {
        match session.next(started + READY_LIMIT)? {
            Event::Output(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Event::End => bail!("the machine switched itself off before the gateway was ready"),
            Event::Timeout => bail!("the gateway was not ready within {} s", READY_LIMIT.as_secs()),
        }
        if text.contains(READY) {
            break;
        }
        // Only an unfinished line can still become the one we wait for.
        text.drain(..text.rfind('\n').map_or(0, |newline| newline + 1));
    }
    println!("\ngateway ready after {:.1} s", started.elapsed().as_secs_f32());
    std::io::stdout().flush()?;
    let deadline = Instant::now() + POWER_OFF_LIMIT;
    while Instant::now() < deadline {
        // Pressed again like a person would: the button's driver may just have been loaded. A machine that
        // is ending takes no more orders; the session tells how it ended.
        let _ = qmp.system_powerdown();
        let again = Instant::now() + POWER_BUTTON_PAUSE;
        loop {
            match session.next(again)? {
                Event::Output(_) => {}
                Event::End => return Ok(()),
                Event::Timeout => break,
            }
        }
    }
    bail!("the machine did not switch off within {} s", POWER_OFF_LIMIT.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lan_of_the_default_site_is_found() {
        let lan = lan_address(&development_site("x")).unwrap();
        assert_eq!(lan.to_string(), "192.168.77.1/24");
        let (network, port) = lan_network(lan).unwrap();
        assert_eq!(network.host, Some(Ipv4Addr::new(192, 168, 77, 2)));
        assert_eq!(network.net.unwrap().to_string(), "192.168.77.0/24");
        assert!(network.forwards.iter().all(|forward| forward.host_port == port));
    }

    #[test]
    fn a_site_without_a_lan_is_an_error() {
        assert!(lan_address("schema = 1").is_err());
        assert!(lan_address("[[network]]\nzone = \"external\"\naddress = \"192.0.2.1/24\"").is_err());
    }

    #[test]
    fn passwords_differ_and_can_be_typed() {
        let (one, two) = (fresh_password().unwrap(), fresh_password().unwrap());
        assert_ne!(one, two);
        assert!(one.len() == 10 && one.bytes().all(|byte| PASSWORD_LETTERS.contains(&byte)));
    }
}
