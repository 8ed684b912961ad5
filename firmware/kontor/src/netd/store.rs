//! What netd remembers over a restart: port pins and the WAN lease, on the data partition once it is there.
//!
//! Both files are JSON, written durably. A missing, empty or broken file is as good as none: the box then
//! goes by PCI order and asks for any address.

use std::path::{Path, PathBuf};

use kontor_network::Pin;
use kontor_status::paths::Paths;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The two files. Generic over the lease, which is the DHCP client's own type.
pub(crate) struct Store<L> {
    ports_path: PathBuf,
    lease_path: PathBuf,
    attached: bool,
    /// Port pins in force.
    pins: Vec<Pin>,
    pins_saved: bool,
    /// The last lease.
    lease: Option<L>,
    lease_saved: bool,
}

impl<L: Serialize + DeserializeOwned + PartialEq + Clone> Store<L> {
    /// Nothing known yet; call [`Self::sync`] to read.
    pub(crate) fn new(paths: &Paths) -> Self {
        Self {
            ports_path: paths.ports(),
            lease_path: paths.wan_lease(),
            attached: false,
            pins: Vec::new(),
            pins_saved: true,
            lease: None,
            lease_saved: true,
        }
    }

    /// Pins in force.
    pub(crate) fn pins(&self) -> &[Pin] {
        &self.pins
    }

    /// The last lease.
    pub(crate) fn lease(&self) -> Option<&L> {
        self.lease.as_ref()
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
        let appeared = !std::mem::replace(&mut self.attached, true);
        if appeared {
            self.read();
        }
        if !self.pins_saved {
            self.pins_saved = write(&self.ports_path, &self.pins);
        }
        if !self.lease_saved {
            self.lease_saved = write(&self.lease_path, &self.lease);
        }
        appeared
    }

    fn read(&mut self) {
        match read::<Vec<Pin>>(&self.ports_path).filter(|pins| !pins.is_empty()) {
            Some(pins) => (self.pins, self.pins_saved) = (pins, true),
            None => self.pins_saved = false,
        }
        match (&self.lease, read::<Option<L>>(&self.lease_path).flatten()) {
            (None, stored) => (self.lease, self.lease_saved) = (stored, true),
            (Some(_), _) => self.lease_saved = false,
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = std::fs::read(path).ok()?;
    serde_json::from_slice(&bytes)
        .inspect_err(|error| eprintln!("{} is not usable and ignored: {error}", path.display()))
        .ok()
}

fn write<T: Serialize>(path: &Path, value: &T) -> bool {
    let text = serde_json::to_vec(value).map_err(std::io::Error::from);
    match text.and_then(|text| kontor_sys::file::write_durable(path, &text)) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("cannot store {}: {error}; will try again", path.display());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(port: &str) -> Pin {
        Pin { port: port.into(), pci: Some("0000:00:02.0".into()), mac: None }
    }

    fn store(dir: &Path) -> Store<u32> {
        Store::new(&Paths::from_args(&[format!("--state={}", dir.display())]))
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
        }
    }
}
