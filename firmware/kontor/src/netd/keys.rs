//! The private keys of the tunnels: drawn here, kept on the state partition, told to nobody but the kernel.
//!
//! **Invariant:** a key is on the disk before the kernel has it, so that no other end is told of one that the next boot does not
//! know. A key that the kernel has already is as good: a netd that was restarted without its disk takes it from there.
//! A tunnel that leaves the site file leaves its key: it may come back, with an earlier site file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kontor_sys::random;
use kontor_wireguard::PrivateKey;

use super::store::{Disk, Privacy};

/// Keys by the tunnel's name.
type ByName = BTreeMap<String, PrivateKey>;

/// The file, and what is known without it.
pub(super) struct Keys {
    path: PathBuf,
    /// Started with the first tunnel.
    disk: Option<Disk>,
    in_hand: ByName,
    /// What the file has, once it was read.
    stored: Option<ByName>,
    /// The file was damaged: what is drawn takes the place of something.
    damaged: bool,
    /// Tunnels with a new key of which the other end cannot know.
    renewed: BTreeSet<String>,
}

impl Keys {
    pub(super) fn new(path: PathBuf) -> Self {
        let (in_hand, renewed) = (ByName::new(), BTreeSet::new());
        Self { path, disk: None, in_hand, stored: None, damaged: false, renewed }
    }

    /// The key of a tunnel, drawn when there is none; `kernels` is the one that its device has.
    ///
    /// # Errors
    /// Why the tunnel has to wait, for people.
    pub(super) fn get(&mut self, tunnel: &str, kernels: Option<&PrivateKey>) -> Result<PrivateKey, String> {
        let fault = self.load().err();
        if let (false, Some(key)) = (self.in_hand.contains_key(tunnel), kernels) {
            self.in_hand.insert(tunnel.to_owned(), key.clone());
        }
        if self.stored.is_some() && !self.in_hand.contains_key(tunnel) {
            let drawn = random::octets()
                .map_err(|error| format!("tunnel {tunnel} has no key: /dev/urandom: {error}"))?;
            self.in_hand.insert(tunnel.to_owned(), PrivateKey::new(drawn));
            if self.damaged {
                self.renewed.insert(tunnel.to_owned());
            }
        }
        self.store();
        let known = self.in_hand.get(tunnel);
        let is_stored =
            |key: &PrivateKey| self.stored.as_ref().is_some_and(|all| all.get(tunnel) == Some(key));
        match known.filter(|key| is_stored(key) || kernels == Some(*key)) {
            Some(key) => Ok(key.clone()),
            None => Err(fault.map_or_else(
                || format!("tunnel {tunnel} waits: its new key cannot be stored"),
                |fault| format!("tunnel {tunnel} waits for its key: {fault}"),
            )),
        }
    }

    /// Whether the other end has to be told of a new key.
    pub(super) fn is_renewed(&self, tunnel: &str) -> bool {
        self.renewed.contains(tunnel)
    }

    /// The other end knows the key.
    pub(super) fn is_known(&mut self, tunnel: &str) {
        self.renewed.remove(tunnel);
    }

    /// Reads the file as soon as its directory is there. Keys in hand win: the kernel has them.
    fn load(&mut self) -> Result<(), String> {
        if self.stored.is_some() {
            return Ok(());
        }
        if !self.path.parent().is_some_and(std::path::Path::is_dir) {
            return Err("the state partition is not there".to_owned());
        }
        if self.disk.is_none() {
            self.disk = Some(Disk::start().map_err(|error| error.to_string())?);
        }
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let read = disk.read(&self.path).ok_or("the disk does not answer")?;
        let bytes = read.map_err(|error| format!("{}: {error}", self.path.display()))?;
        let mut stored = ByName::new();
        if let Some(bytes) = bytes {
            match serde_json::from_slice(&bytes) {
                Ok(keys) => stored = keys,
                // The error says where, not what: it must not hold a key.
                Err(error) => {
                    let (line, column) = (error.line(), error.column());
                    eprintln!(
                        "{} is damaged (line {line}, column {column}) and kept aside",
                        self.path.display()
                    );
                    disk.set_aside(self.path.clone());
                    self.damaged = true;
                }
            }
        }
        for (name, key) in &stored {
            self.in_hand.entry(name.clone()).or_insert_with(|| key.clone());
        }
        self.stored = Some(stored);
        Ok(())
    }

    fn store(&mut self) {
        let (Some(stored), Some(disk)) = (&mut self.stored, &mut self.disk) else { return };
        if *stored != self.in_hand && disk.write(&self.path, &self.in_hand, Privacy::Secret) {
            stored.clone_from(&self.in_hand);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct State(tempfile::TempDir);

    impl State {
        fn new() -> Self {
            let state = Self(tempfile::tempdir().unwrap());
            fs::create_dir(state.0.path().join("netd")).unwrap();
            state
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("netd/tunnel-keys.json")
        }

        fn keys(&self) -> Keys {
            Keys::new(self.file())
        }
    }

    #[test]
    fn a_key_is_drawn_once_and_kept_for_its_owner_alone() {
        let state = State::new();
        let mut keys = state.keys();
        let first = keys.get("hq", None).unwrap();
        assert_ne!(first, keys.get("depot", None).unwrap());
        assert_eq!(fs::metadata(state.file()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(state.keys().get("hq", None).unwrap(), first);
        assert!(!keys.is_renewed("hq"));
    }

    #[test]
    fn without_the_disk_none_is_made_up_and_the_kernel_s_goes_on() {
        let state = State::new();
        fs::remove_dir(state.0.path().join("netd")).unwrap();
        let mut keys = state.keys();
        let problem = keys.get("hq", None).unwrap_err();
        assert_eq!(problem, "tunnel hq waits for its key: the state partition is not there");
        let kernels = PrivateKey::new([7; 32]);
        assert_eq!(keys.get("hq", Some(&kernels)).unwrap(), kernels);
        // The disk comes: what the kernel has is stored, what it has not is drawn.
        fs::create_dir(state.0.path().join("netd")).unwrap();
        keys.get("depot", None).unwrap();
        assert_eq!(state.keys().get("hq", None).unwrap(), kernels);
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_the_other_end_has_to_be_told() {
        let state = State::new();
        fs::write(state.file(), "{\"hq\":\"c2VjcmV0\"}").unwrap();
        let mut keys = state.keys();
        let drawn = keys.get("hq", None).unwrap();
        assert!(keys.is_renewed("hq"));
        assert!(state.file().with_extension("json.damaged").exists());
        keys.is_known("hq");
        assert!(!keys.is_renewed("hq"));
        assert_eq!(state.keys().get("hq", None).unwrap(), drawn);
        // With the kernel's key at hand nothing is lost.
        fs::write(state.file(), "").unwrap();
        let mut keys = state.keys();
        assert_eq!(keys.get("hq", Some(&drawn)).unwrap(), drawn);
        assert!(!keys.is_renewed("hq"));
        assert_eq!(state.keys().get("hq", None).unwrap(), drawn);
    }

    #[test]
    fn a_key_that_cannot_be_stored_is_not_used() {
        let state = State::new();
        let mut keys = state.keys();
        assert!(keys.load().is_ok());
        fs::remove_dir_all(state.0.path().join("netd")).unwrap();
        assert_eq!(keys.get("hq", None).unwrap_err(), "tunnel hq waits: its new key cannot be stored");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_replaced() {
        let state = State::new();
        fs::create_dir(state.file()).unwrap();
        let mut keys = state.keys();
        assert!(keys.get("hq", None).unwrap_err().starts_with("tunnel hq waits for its key: /"));
        assert!(state.file().is_dir());
    }
}
