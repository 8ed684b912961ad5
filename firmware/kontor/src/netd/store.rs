//! What netd remembers over a restart: port pins and the WAN lease, on the state partition once it is there.
//!
//! Both files are JSON, written durably. A missing, empty or broken file is as good as none: the box then
//! goes by PCI order and asks for any address. Pins that cannot be read are not replaced: they may be readable at the next
//! start, and by PCI order the cables may be in the wrong networks. A thread of its own does the reading and writing, so that a
//! disk that hangs costs netd one short wait and not the office its network.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kontor_network::Pin;
use kontor_status::paths::Paths;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::storage::Schema;

/// How long netd waits for the disk: well below the watchdog's 5 s, and far more than a healthy disk takes.
const PATIENCE: Duration = Duration::from_secs(1);

/// The two files. Generic over the lease, which is the DHCP client's own type.
pub(crate) struct Store<L> {
    ports_path: PathBuf,
    lease_path: PathBuf,
    disk: Disk,
    attached: bool,
    /// Port pins in force.
    pins: Vec<Pin>,
    pins_saved: bool,
    /// Why the disk cannot read its pins: those in force are not written over them.
    pins_unreadable: Option<std::io::Error>,
    /// The last lease.
    lease: Option<L>,
    lease_saved: bool,
}

impl<L: Serialize + DeserializeOwned + PartialEq + Clone> Store<L> {
    /// Nothing known yet; call [`Self::sync`] to read.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn new(paths: &Paths) -> std::io::Result<Self> {
        Ok(Self {
            ports_path: paths.ports(),
            lease_path: paths.wan_lease(),
            disk: Disk::start()?,
            attached: false,
            pins: Vec::new(),
            pins_saved: true,
            pins_unreadable: None,
            lease: None,
            lease_saved: true,
        })
    }

    /// Pins in force.
    pub(crate) fn pins(&self) -> &[Pin] {
        &self.pins
    }

    /// The last lease.
    pub(crate) fn lease(&self) -> Option<&L> {
        self.lease.as_ref()
    }

    /// What an operator has to know of it.
    pub(crate) fn problem(&self) -> Option<String> {
        let error = self.pins_unreadable.as_ref()?;
        Some(format!(
            "the disk cannot read which port is which ({}: {error}): ports are named by their place on the bus until \
             it can; see that the cables are in the right ones, and have the disk replaced",
            self.ports_path.display()
        ))
    }

    /// Remembers pins; written by the next [`Self::sync`].
    pub(crate) fn set_pins(&mut self, pins: Vec<Pin>) {
        if pins != self.pins {
            self.pins = pins;
            self.pins_saved = false;
        }
    }

    /// Remembers a lease, or that there is none any more.
    pub(crate) fn set_lease(&mut self, lease: Option<L>) {
        if lease != self.lease {
            self.lease = lease;
            self.lease_saved = false;
        }
    }

    /// Reads the files when their directory has just appeared (true then), writes what has changed.
    ///
    /// Stored pins win over pins made up while the disk was away; a lease we hold wins over the stored one.
    pub(crate) fn sync(&mut self) -> bool {
        if !self.ports_path.parent().is_some_and(Path::is_dir) {
            self.attached = false;
            return false;
        }
        let appeared = !self.attached && self.read();
        self.attached |= appeared;
        if !self.attached {
            return false;
        }
        if !self.pins_saved && self.pins_unreadable.is_none() {
            self.pins_saved = self.disk.write(&self.ports_path, &self.pins, Privacy::Public);
        }
        if !self.lease_saved {
            self.lease_saved = self.disk.write(&self.lease_path, &self.lease, Privacy::Public);
        }
        appeared
    }

    /// False when the disk does not answer.
    fn read(&mut self) -> bool {
        let Some(ports) = self.disk.read(&self.ports_path) else { return false };
        let Some(lease) = self.disk.read(&self.lease_path) else { return false };
        let lease = readable(&self.lease_path, lease);
        self.pins_unreadable = None;
        let ports = match ports {
            // A directory in its place has no pins that could be lost.
            Err(error) if error.kind() != std::io::ErrorKind::IsADirectory => {
                self.pins_unreadable = Some(error);
                None
            }
            ports => readable(&self.ports_path, ports),
        };
        let ports = self.parse::<Vec<Pin>>(self.ports_path.clone(), ports);
        let lease = self.parse::<Option<L>>(self.lease_path.clone(), lease);
        match ports.filter(|pins| !pins.is_empty()) {
            Some(pins) => (self.pins, self.pins_saved) = (pins, true),
            None => self.pins_saved = false,
        }
        match (&self.lease, lease.flatten()) {
            (None, stored) => (self.lease, self.lease_saved) = (stored, true),
            (Some(_), _) => self.lease_saved = false,
        }
        true
    }

    /// The value in a file; one that has none is set aside, so that people can look at it.
    fn parse<T: DeserializeOwned>(&mut self, path: PathBuf, bytes: Option<Vec<u8>>) -> Option<T> {
        match serde_json::from_slice(&bytes?) {
            Ok(value) => Some(value),
            Err(error) => {
                eprintln!("{} is damaged and kept aside: {error}", path.display());
                self.disk.set_aside(path);
                None
            }
        }
    }
}

/// The content; what fails to be read is gone by as if it were absent.
fn readable(path: &Path, content: std::io::Result<Option<Vec<u8>>>) -> Option<Vec<u8>> {
    content.unwrap_or_else(|error| {
        eprintln!("{} cannot be read: {error}", path.display());
        None
    })
}

enum Job {
    Read(PathBuf),
    Write(PathBuf, Vec<u8>, Privacy),
    SetAside(PathBuf),
}

/// Whether others than the file's owner may read it.
#[derive(Clone, Copy)]
pub(super) enum Privacy {
    Public,
    Secret,
}

enum Done {
    Read(std::io::Result<Option<Vec<u8>>>),
    Written(std::io::Result<()>),
}

/// The thread that touches the disk, one job at a time.
pub(super) struct Disk {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    /// An answer is overdue; until it has come, nothing else is asked of the disk.
    overdue: bool,
}

impl Disk {
    pub(super) fn start() -> std::io::Result<Self> {
        let (jobs, jobs_in) = channel();
        let (done_out, done) = channel();
        std::thread::Builder::new().name("store".into()).spawn(move || work(&jobs_in, &done_out))?;
        Ok(Self { jobs, done, overdue: false })
    }

    /// The content, if there is such a file; nothing at all when the disk does not answer.
    pub(super) fn read(&mut self, path: &Path) -> Option<std::io::Result<Option<Vec<u8>>>> {
        match self.run(Job::Read(path.to_owned()))? {
            Done::Read(bytes) => Some(bytes),
            Done::Written(_) => None,
        }
    }

    /// Whether the value is on the disk.
    pub(super) fn write<T: Serialize>(&mut self, path: &Path, value: &T, privacy: Privacy) -> bool {
        let Ok(text) = serde_json::to_vec(value) else { return false };
        match self.run(Job::Write(path.to_owned(), text, privacy)) {
            Some(Done::Written(Ok(()))) => true,
            Some(Done::Written(Err(error))) => {
                eprintln!("cannot store {}: {error}; will try again", path.display());
                false
            }
            _ => false,
        }
    }

    pub(super) fn set_aside(&mut self, path: PathBuf) {
        if let Some(Done::Written(Err(error))) = self.run(Job::SetAside(path)) {
            eprintln!("a damaged file cannot be kept: {error}");
        }
    }

    fn run(&mut self, job: Job) -> Option<Done> {
        if self.overdue {
            self.done.try_recv().ok()?;
            self.overdue = false;
        }
        self.jobs.send(job).ok()?;
        let done = self.done.recv_timeout(PATIENCE).ok();
        if done.is_none() {
            eprintln!("the disk does not answer; going on without it");
            self.overdue = true;
        }
        done
    }
}

fn work(jobs: &Receiver<Job>, done: &Sender<Done>) {
    for job in jobs {
        let answer = match job {
            Job::Read(path) => Done::Read(read(&path)),
            Job::SetAside(path) => Done::Written(kontor_sys::file::set_aside(&path).map(drop)),
            Job::Write(path, bytes, privacy) => Done::Written(write(&path, &bytes, privacy)),
        };
        if done.send(answer).is_err() {
            return;
        }
    }
}

fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(Schema::of(path)?.read(path, &bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, bytes: &[u8], privacy: Privacy) -> std::io::Result<()> {
    let bytes = Schema::of(path)?.write(path, bytes);
    match privacy {
        Privacy::Public => kontor_sys::file::write_durable(path, &bytes),
        Privacy::Secret => kontor_sys::file::write_durable_secret(path, &bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(port: &str) -> Pin {
        Pin { port: port.into(), pci: Some("0000:00:02.0".into()), mac: None }
    }

    fn store(dir: &Path) -> Store<u32> {
        Store::new(&Paths::from_args(&[format!("--state={}", dir.display())])).unwrap()
    }

    #[test]
    fn works_in_memory_and_catches_up_when_the_disk_appears() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = store(dir.path());
        first.set_pins(vec![pin("port1")]);
        first.set_lease(Some(7));
        assert!(!first.sync());
        std::fs::create_dir(dir.path().join("netd")).unwrap();
        assert!(first.sync());
        let mut second = store(dir.path());
        assert!(second.sync());
        assert_eq!((second.pins(), second.lease()), (&[pin("port1")][..], Some(&7)));
    }

    #[test]
    fn stored_pins_win_and_the_lease_in_hand_wins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("netd")).unwrap();
        let mut old = store(dir.path());
        old.sync();
        old.set_pins(vec![pin("port2")]);
        old.set_lease(Some(1));
        old.sync();
        let mut late = store(dir.path());
        late.set_pins(vec![pin("port1")]);
        late.set_lease(Some(2));
        late.sync();
        assert_eq!((late.pins(), late.lease()), (&[pin("port2")][..], Some(&2)));
        assert_eq!(std::fs::read(dir.path().join("netd/wan-lease.json")).unwrap(), b"2");
    }

    #[test]
    fn broken_files_are_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("netd")).unwrap();
        for content in ["", "{", "[{\"port\":1}]"] {
            std::fs::write(dir.path().join("netd/ports.json"), content).unwrap();
            std::fs::write(dir.path().join("netd/wan-lease.json"), content).unwrap();
            let mut store = store(dir.path());
            assert!(store.sync());
            assert_eq!((store.pins(), store.lease()), (&[][..], None));
            for name in ["ports.json", "wan-lease.json"] {
                let aside = dir.path().join("netd").join(format!("{name}.damaged"));
                assert_eq!(std::fs::read_to_string(aside).unwrap(), content, "{name} is kept for people");
            }
        }
    }

    #[test]
    fn pins_that_cannot_be_read_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("netd")).unwrap();
        let [ports, lease] = ["netd/ports.json", "netd/wan-lease.json"].map(|name| dir.path().join(name));
        // Links that lead to themselves: reading them is an error, replacing them is none.
        for path in [&ports, &lease] {
            std::os::unix::fs::symlink(path, path).unwrap();
        }
        let mut store = store(dir.path());
        store.set_pins(vec![pin("port1")]);
        store.set_lease(Some(7));
        assert!(store.sync());
        store.set_pins(vec![pin("port2")]);
        store.sync();
        assert_eq!(store.pins(), [pin("port2")], "those found out are in force");
        assert!(store.problem().is_some_and(|problem| problem.contains("netd/ports.json: ")));
        assert!(ports.is_symlink(), "what may be readable tomorrow is left alone");
        assert_eq!(std::fs::read(&lease).unwrap(), b"7", "a lease is of today");
    }

    #[test]
    fn directories_in_their_place_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["netd/ports.json/x", "netd/wan-lease.json/x"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let mut store = store(dir.path());
        store.set_pins(vec![pin("port1")]);
        store.set_lease(Some(7));
        assert!(store.sync());
        assert!(store.problem().is_none());
        for name in ["ports.json", "wan-lease.json"] {
            assert!(dir.path().join("netd").join(name).is_file());
            assert!(dir.path().join("netd").join(format!("{name}.damaged")).is_dir());
        }
    }

    #[test]
    fn a_disk_that_hangs_costs_one_short_wait() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("netd")).unwrap();
        let ports = dir.path().join("netd/ports.json");
        // Reading a FIFO waits for a writer, as a dying disk may wait for ever.
        nix::unistd::mkfifo(&ports, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut store = store(dir.path());
        assert!(!store.sync(), "no answer");
        store.set_pins(vec![pin("port1")]);
        let begun = std::time::Instant::now();
        assert!(!store.sync());
        assert!(begun.elapsed() < PATIENCE, "it is not waited for again");
        // The disk comes back: everything is read and written after all.
        drop(std::fs::OpenOptions::new().write(true).open(&ports).unwrap());
        std::fs::remove_file(&ports).unwrap();
        while !store.sync() {}
        assert!(store.pins_saved);
        assert!(ports.is_file());
    }
}
