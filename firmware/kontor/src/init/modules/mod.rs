//! The `modules` applet: drivers for the hardware that is there, and for what is plugged in later.
//!
//! It listens to the kernel's announcements first, then walks the devices that are already known, so that
//! none falls between. Network cards come first: the office waits for them. It is also what the kernel
//! itself calls (`kontor -q -- ALIAS`, see [`request`]) when a system call needs a module.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use kontor_config::Board;
use kontor_sys::notify::Notifier;
use kontor_sys::uevent::{UeventSocket, wait_readable};
use nix::kmod::{ModuleInitFlags, finit_module};

mod index;
mod pattern;

use index::Index;

/// Inserting is mostly probing, which sleeps: a few threads overlap the waits.
const THREADS: usize = 4;
/// Device trees are not deeper; a bound against a loop in sysfs.
const MAX_DEPTH: usize = 24;
/// How often a lost announcement is made up for, when nothing happens; also the sign of life.
const IDLE_MS: u16 = 15_000;

/// `kontor modules`: never returns unless something is badly wrong.
pub(crate) fn run(_args: &[String]) -> anyhow::Result<()> {
    let events = UeventSocket::open().context("cannot listen to the kernel's device events")?;
    let loader = Loader::open()?;
    loader.load_all(coldplug());
    let board = fs::read_to_string(kontor_status::paths::BOARD).unwrap_or_default();
    match Board::parse(kontor_status::paths::BOARD, &board) {
        Ok(board) => {
            loader.load_all(board.kernel_load);
            loader.load_first(&board.watchdog_modules);
        }
        Err(report) => eprintln!("error: {report}"),
    }
    loader.drain(&events);
    let notifier = Notifier::from_environment();
    notifier.ready();
    loop {
        notifier.watchdog();
        wait_readable(std::os::fd::AsFd::as_fd(&events), IDLE_MS)?;
        loader.drain(&events);
    }
}

/// The kernel's own request for a module: `-q -- ALIAS` (`kernel.modprobe`).
pub(crate) fn request(args: &[String]) -> anyhow::Result<()> {
    let wanted = args.iter().find(|arg| !arg.starts_with('-')).context("no module named")?;
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

    /// Loads the drivers for all these aliases, several at a time, in order of the list.
    fn load_all(&self, aliases: Vec<String>) {
        let queue = Mutex::new(aliases.into_iter());
        let work = || {
            while let Some(alias) = next(&queue) {
                self.index.resolve(&alias).into_iter().for_each(|module| self.load(module));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(work);
            }
        });
    }

    /// Loads the first of these modules that the kernel accepts.
    fn load_first(&self, candidates: &[String]) {
        let loads = |name: &String| {
            let modules = self.index.resolve(name);
            modules.into_iter().any(|module| {
                self.load(module);
                Path::new("/sys/module").join(module).exists() && Path::new("/dev/watchdog0").exists()
            })
        };
        if !Path::new("/dev/watchdog0").exists() && !candidates.iter().any(loads) && !candidates.is_empty() {
            eprintln!("no hardware watchdog among {}", candidates.join(", "));
        }
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

/// The aliases of all devices that are there, network cards first.
fn coldplug() -> Vec<String> {
    let mut found = HashSet::new();
    walk(Path::new("/sys/devices"), 0, &mut found);
    let mut aliases: Vec<String> = found.into_iter().collect();
    aliases.sort_by_key(|alias| (urgency(alias), alias.clone()));
    aliases
}

/// PCI class 02 is network; a virtio card hides behind its PCI function; disks (class 01) come next.
fn urgency(alias: &str) -> u8 {
    match alias {
        _ if alias.starts_with("pci:") && alias.contains("bc02") => 0,
        _ if alias.starts_with("virtio:d00000001") => 0,
        _ if alias.starts_with("pci:") && alias.contains("bc01") => 1,
        _ if alias.starts_with("virtio:") => 1,
        _ if alias.starts_with("pci:") || alias.starts_with("usb:") => 2,
        _ => 3,
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
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            found.insert(text.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_cards_come_first_and_disks_next() {
        let mut aliases =
            ["acpi:PNP0C0C:", "pci:v1d1sv1sd1bc01sc06i01", "pci:v1d1sv1sd1bc02sc00i00", "usb:v1"];
        aliases.sort_by_key(|alias| urgency(alias));
        assert_eq!(
            aliases,
            ["pci:v1d1sv1sd1bc02sc00i00", "pci:v1d1sv1sd1bc01sc06i01", "usb:v1", "acpi:PNP0C0C:"]
        );
    }
}
