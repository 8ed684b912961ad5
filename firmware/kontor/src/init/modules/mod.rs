//! The `modules` applet: drivers for the hardware that is there, and for what is plugged in later.
//!
//! It listens to the kernel's announcements first, then walks the devices that are already known, so that
//! none falls between. Network cards come first, then disks: the office waits for them. All else waits until the
//! office is served. It is also what the kernel
//! itself calls (`kontor -q -- ALIAS`, see [`request`]) when a system call needs a module.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kontor_config::Board;
use kontor_status::paths;
use kontor_sys::notify::Notifier;
use kontor_sys::uevent::{UeventSocket, wait_readable};
use kontor_sys::watch::FileWatch;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::stage1::{BACKGROUND, insert_in_background};
use crate::init::office;

mod index;
mod pattern;

use index::Index;

/// The argument that makes the applet `modules` begin before PID 1 is ready for services. The service finds the
/// drivers in the kernel then, or waits there for those that are being inserted.
pub(super) const URGENT: &str = "urgent";
/// Inserting is mostly probing, which sleeps: a few threads overlap the waits.
const THREADS: usize = 4;
/// Device trees are not deeper; a bound against a loop in sysfs.
const MAX_DEPTH: usize = 24;
/// How long our disk may take to be found before slower ones are looked for.
const DISK_WAIT: Duration = Duration::from_millis(300);
/// Drivers loaded between two signs of life.
const STRIDE: usize = 8;
/// How often a lost announcement is made up for, when nothing happens; also the sign of life.
const IDLE_MS: u16 = 15_000;

/// `kontor modules`: never returns unless something is badly wrong.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    if args == [BACKGROUND] {
        insert_in_background();
        return Ok(());
    }
    if args == [URGENT] {
        Loader::open()?.load_urgent(coldplug_urgent(), Urgency::Direct);
        return Ok(());
    }
    let events = UeventSocket::open().context("cannot listen to the kernel's device events")?;
    let loader = Loader::open()?;
    loader.load_urgent(coldplug_urgent(), Urgency::Direct);
    loader.drain(&events);
    let notifier = Notifier::from_environment();
    notifier.ready();
    let disk = FileWatch::new(Path::new(paths::STORAGE_DISK))?;
    loader.wait_for(&disk, Path::new(paths::STORAGE_DISK), &events, DISK_WAIT)?;
    if !Path::new(paths::STORAGE_DISK).exists() {
        loader.load_urgent(coldplug(), Urgency::Disk);
    }
    let office = FileWatch::new(Path::new(paths::NET_STATUS))?;
    loader.wait_for(&office, Path::new(paths::NET_STATUS), &events, office::LIMIT)?;
    std::thread::sleep(office::GRACE);
    loader.load_rest(&coldplug(), &notifier);
    loop {
        notifier.watchdog();
        wait_readable(events.as_fd(), IDLE_MS)?;
        loader.drain(&events);
    }
}

/// The kernel's own request for a module: `-q -- ALIAS` (`kernel.modprobe`).
pub(crate) fn request(args: &[String]) -> anyhow::Result<()> {
    let wanted = args.iter().find(|arg| !arg.starts_with('-')).context("no module named")?;
    // Somebody opened a node whose disk is about to be there: no driver answers to a device number.
    anyhow::ensure!(!wanted.starts_with("block-major-"), "no module for {wanted}");
    let loader = Loader::open()?;
    let modules = loader.index.resolve(wanted);
    anyhow::ensure!(!modules.is_empty(), "no module for {wanted}");
    modules.into_iter().for_each(|module| loader.load(module));
    Ok(())
}

struct Loader {
    directory: PathBuf,
    index: Index,
    /// Modules the kernel refused; they are not tried again.
    refused: Mutex<HashSet<String>>,
}

impl Loader {
    fn open() -> anyhow::Result<Self> {
        let release = nix::sys::utsname::uname()?;
        let directory = Path::new("/usr/lib/modules").join(release.release());
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let softdep = read("modules.softdep").unwrap_or_default();
        let index = Index::parse(&read("modules.dep")?, &read("modules.alias")?, &softdep);
        Ok(Self { directory, index, refused: Mutex::default() })
    }

    /// Loads the drivers of at least this urgency.
    fn load_urgent(&self, mut aliases: Vec<String>, least: Urgency) {
        aliases.retain(|alias| urgency(alias) <= least);
        self.load_all(aliases);
    }

    /// What the office's first lease does not need, the watchdog first: it may be needed for what follows. Many
    /// appear only with a driver of the chipset, though, so nothing is said before the end.
    fn load_rest(&self, waiting: &[String], notifier: &Notifier) {
        let board = fs::read_to_string(paths::BOARD).unwrap_or_default();
        let board = Board::parse(paths::BOARD, &board);
        match &board {
            Ok(board) => {
                self.load_watchdog(&board.watchdog_modules);
                self.load_all(board.kernel_load.clone());
            }
            Err(report) => eprintln!("error: {report}"),
        }
        for some in waiting.chunks(STRIDE) {
            notifier.watchdog();
            self.load_all(some.to_vec());
        }
        let candidates = board.map(|board| board.watchdog_modules).unwrap_or_default();
        if !candidates.is_empty() && !self.load_watchdog(&candidates) {
            eprintln!("no hardware watchdog among {}", candidates.join(", "));
        }
    }

    /// Handles announcements until the watched file is there.
    fn wait_for(
        &self,
        watch: &FileWatch,
        file: &Path,
        events: &UeventSocket,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        self.drain(events);
        while !file.exists() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            let fds = [events.as_fd(), watch.as_fd()];
            match poll(&mut fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)), timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.drain(events);
            watch.drain()?;
        }
        Ok(())
    }

    /// Loads the drivers for all these aliases, several at a time, in order of the list.
    fn load_all(&self, aliases: Vec<String>) {
        let threads = THREADS.min(aliases.len());
        let queue = Mutex::new(aliases.into_iter());
        let work = || {
            while let Some(alias) = next(&queue) {
                self.index.resolve(&alias).into_iter().for_each(|module| self.load(module));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }

    /// Loads these modules until there is a watchdog; false if there is none.
    fn load_watchdog(&self, candidates: &[String]) -> bool {
        let exists = || Path::new("/dev/watchdog0").exists();
        let mut modules = candidates.iter().flat_map(|name| self.index.resolve(name));
        exists()
            || modules.any(|module| {
                self.load(module);
                exists()
            })
    }

    /// Two threads may insert one module at once: the kernel has the second wait for the first, so that
    /// what comes after it in either order finds its symbols.
    fn load(&self, module: &str) {
        for (name, path) in self.index.load_order(module) {
            let live = fs::read_to_string(format!("/sys/module/{name}/initstate"));
            let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
            if !refused && live.map_or(true, |state| state.trim() != "live") {
                self.insert(name, path);
            }
        }
    }

    fn insert(&self, name: &str, path: &str) {
        let path = self.directory.join(path);
        let result = File::open(&path).map_err(|error| error.to_string()).and_then(|file| {
            match finit_module(&file, c"", ModuleInitFlags::empty()) {
                // Somebody else was first, or there is no such hardware: both are fine.
                Ok(()) | Err(nix::Error::EEXIST | nix::Error::ENODEV) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        if let Err(error) = result {
            eprintln!("warning: cannot load {name}: {error}");
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        }
    }

    /// Handles every waiting announcement, also those that the handling itself causes.
    fn drain(&self, events: &UeventSocket) {
        loop {
            match events.next() {
                Ok(Some(event)) if event.action == "add" => {
                    self.load_all(event.modalias.into_iter().collect());
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                // Announcements were lost: look at everything.
                Err(_) => self.load_all(coldplug()),
            }
        }
    }
}

fn next(queue: &Mutex<std::vec::IntoIter<String>>) -> Option<String> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// Buses of network cards and of disks that are there as soon as their driver is.
const URGENT_BUSES: [&str; 2] = ["pci", "virtio"];

/// The aliases of all devices that are there, network cards first.
fn coldplug() -> Vec<String> {
    let mut found = HashSet::new();
    walk(Path::new("/sys/devices"), 0, &mut found);
    in_order(found)
}

/// Those of the buses with what the office needs: looking at all of sysfs takes many times longer.
fn coldplug_urgent() -> Vec<String> {
    let devices = |bus| fs::read_dir(format!("/sys/bus/{bus}/devices")).into_iter().flatten().flatten();
    let aliases = URGENT_BUSES.into_iter().flat_map(devices).filter_map(|device| modalias(&device.path()));
    in_order(aliases.collect())
}

fn modalias(device: &Path) -> Option<String> {
    Some(fs::read_to_string(device.join("modalias")).ok()?.trim().to_owned())
}

fn in_order(found: HashSet<String>) -> Vec<String> {
    let mut aliases: Vec<String> = found.into_iter().collect();
    aliases.sort_by_key(|alias| (urgency(alias), alias.clone()));
    aliases
}

/// How soon a driver is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// Network cards: the office waits for them.
    Network,
    /// Disks that are there as soon as their driver is: virtio, NVMe.
    Direct,
    /// What may lead to a disk: other controllers (AHCI takes long to find out that nothing is plugged in), USB, SD.
    Disk,
    /// All else.
    Other,
}

/// PCI class 02 is network, 01 disks, 0108 NVMe, 0805 SD cards, 0c03 USB; a virtio device hides behind its PCI function.
fn urgency(alias: &str) -> Urgency {
    let pci = |class: &str| alias.starts_with("pci:") && alias.contains(class);
    let begins = |buses: &[&str]| buses.iter().any(|bus| alias.starts_with(bus));
    match alias {
        _ if pci("bc02") || begins(&["virtio:d00000001"]) => Urgency::Network,
        _ if pci("bc01sc08") || begins(&["virtio:"]) => Urgency::Direct,
        _ if pci("bc01") || pci("bc08sc05") || pci("bc0Csc03") || begins(&["usb:", "scsi:", "mmc:"]) => {
            Urgency::Disk
        }
        _ => Urgency::Other,
    }
}

fn walk(directory: &Path, depth: usize, found: &mut HashSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < MAX_DEPTH {
            walk(&entry.path(), depth + 1, found);
        } else if kind.is_file()
            && entry.file_name() == "modalias"
            && let Some(alias) = modalias(directory)
        {
            found.insert(alias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_cards_come_first_and_disks_next() {
        let mut aliases = [
            "acpi:PNP0C0C:",
            "pci:v1d1sv1sd1bc03sc00i00",
            "pci:v1d1sv1sd1bc01sc06i01",
            "pci:v1d1sv1sd1bc01sc08i02",
            "pci:v1d1sv1sd1bc02sc00i00",
            "usb:v1",
        ];
        aliases.sort_by_key(|alias| urgency(alias));
        let (network, direct) = ("pci:v1d1sv1sd1bc02sc00i00", "pci:v1d1sv1sd1bc01sc08i02");
        let others = ["pci:v1d1sv1sd1bc01sc06i01", "usb:v1", "acpi:PNP0C0C:", "pci:v1d1sv1sd1bc03sc00i00"];
        assert_eq!(aliases[..2], [network, direct]);
        assert_eq!(aliases[2..], others);
    }
}
