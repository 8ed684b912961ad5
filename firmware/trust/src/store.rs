//! What a box remembers: the roots that lead from the shipped one to the newest, and the last timestamp and snapshot it has seen.
//!
//! tough would write these files in place, where a power cut leaves half of one; it works on a scratch copy, and what it has
//! verified is put here. Roots come first: a cut after them leaves newer roots and an older memory, which says by whose keys it
//! was signed. `N.root.json` are the signed files as they were published, checked one by the other at each opening; `seen.json`
//! is ours, with a checksum in its first line: a bad block must not make it say less. Targets are not kept: no rule compares them, the snapshot has their version.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tough::Repository;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{RoleType, Root, Signed, Snapshot, Timestamp};

use crate::error::{Role, TrustError};
use crate::files::{Directory, Files, replace};

const SEEN: &str = "seen.json";
/// The form of [`Memory`].
const SCHEMA: u32 = 1;
/// A time that has been is written when it has grown by so much: each write costs flash.
const TIME_STEP_S: u64 = 3600;

/// The memory of a repository. One process has it at a time.
#[derive(Debug)]
pub struct Store {
    files: Box<dyn Files>,
    shipped: Shipped,
    root: Signed<Root>,
    root_bytes: Vec<u8>,
    memory: Option<Memory>,
    reports: Vec<String>,
}

/// The root that the running release trusts.
#[derive(Debug)]
struct Shipped {
    version: u64,
    sha256: String,
}

/// `seen.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Memory {
    schema: u32,
    /// The hash of the shipped root under which this was seen.
    shipped_root: String,
    /// The newest root at that time.
    root_version: u64,
    /// A time that has been, in seconds since 1970.
    at: u64,
    /// Whose signatures the following have. Where a newer root has others, they count no longer: that is how a repository
    /// recovers whose versions a thief has driven up (TUF 5.3.11).
    timestamp_keys: Vec<Decoded<Hex>>,
    snapshot_keys: Vec<Decoded<Hex>>,
    timestamp: Signed<Timestamp>,
    snapshot: Signed<Snapshot>,
}

impl Store {
    /// Opens the memory in this directory, and makes the directory if need be. What is damaged is set aside as `*.damaged` and
    /// reported; it is never a reason to stop.
    ///
    /// # Errors
    /// When the shipped root is none, or the directory cannot be used.
    pub fn open(directory: &Path, shipped_root: &[u8]) -> Result<Self, TrustError> {
        std::fs::create_dir_all(directory).map_err(|error| failed("making", directory, &error))?;
        Self::open_files(Box::new(Directory(directory.to_owned())), shipped_root)
    }

    /// As [`Store::open`], in whatever holds the files.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open_files(files: Box<dyn Files>, shipped_root: &[u8]) -> Result<Self, TrustError> {
        let root: Signed<Root> = serde_json::from_slice(shipped_root)
            .map_err(|error| TrustError::ShippedRoot(error.to_string()))?;
        root.signed.verify_role(&root).map_err(|error| TrustError::ShippedRoot(error.to_string()))?;
        let shipped = Shipped { version: root.signed.version.get(), sha256: sha256(shipped_root) };
        let root_bytes = shipped_root.to_vec();
        let mut store = Self { files, shipped, root, root_bytes, memory: None, reports: Vec::new() };
        store.follow_roots()?;
        store.remember()?;
        Ok(store)
    }

    /// What was damaged, for the operator.
    #[must_use]
    pub fn reports(&self) -> &[String] {
        &self.reports
    }

    /// The version of the newest root.
    #[must_use]
    pub fn root_version(&self) -> u64 {
        self.root.signed.version.get()
    }

    /// The newest root, as it was published.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        &self.root_bytes
    }

    /// A time that has been.
    pub(crate) fn time(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.at)
    }

    /// From the shipped root to the newest that is here, each checked by the one before.
    fn follow_roots(&mut self) -> Result<(), TrustError> {
        loop {
            let name = root_name(self.root_version() + 1);
            let Some(bytes) = self.read(&name)? else { return Ok(()) };
            match next_root(&self.root, &bytes) {
                Ok(root) => (self.root, self.root_bytes) = (root, bytes),
                Err(problem) => return self.set_aside(&name, &problem),
            }
        }
    }

    fn remember(&mut self) -> Result<(), TrustError> {
        let Some(bytes) = self.read(SEEN)? else { return Ok(()) };
        match self.memory_of(&bytes) {
            Ok(memory) => self.memory = Some(memory),
            Err(problem) => {
                self.set_aside(SEEN, &problem)?;
                self.reports.push(
                    "until the next look at the repository nothing tells older metadata from newer"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    fn memory_of(&self, bytes: &[u8]) -> Result<Memory, String> {
        let text = checked(bytes).ok_or("its checksum is wrong")?;
        let memory: Memory = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if memory.schema != SCHEMA {
            return Err(format!("schema {} is not known", memory.schema));
        }
        // tough would ignore what is not signed, and nobody would know. Another root's memory is no damage.
        let root = &self.root.signed;
        if self.counts(&memory) && memory.shipped_root == self.shipped.sha256 {
            root.verify_role(&memory.timestamp).map_err(|error| error.to_string())?;
            root.verify_role(&memory.snapshot).map_err(|error| error.to_string())?;
        }
        Ok(memory)
    }

    /// Whether the keys that have signed it are still those of the newest root.
    fn counts(&self, memory: &Memory) -> bool {
        let keys = |role| keys(&self.root.signed, role);
        memory.timestamp_keys == keys(RoleType::Timestamp) && memory.snapshot_keys == keys(RoleType::Snapshot)
    }

    /// A directory for tough, with what it compares the repository with.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir, TrustError> {
        let made = || -> io::Result<tempfile::TempDir> {
            let scratch = tempfile::Builder::new().prefix("kontor-trust-").tempdir()?;
            if let Some(memory) = self.memory.as_ref().filter(|memory| self.counts(memory)) {
                let path = |name| scratch.path().join(name);
                std::fs::write(path("timestamp.json"), serde_json::to_vec(&memory.timestamp)?)?;
                std::fs::write(path("snapshot.json"), serde_json::to_vec(&memory.snapshot)?)?;
            }
            Ok(scratch)
        };
        made().map_err(|error| failed("making a scratch directory in", &std::env::temp_dir(), &error))
    }

    /// Keeps the roots that lead to this version; they are verified once more, each by the one before.
    pub(crate) fn keep_roots(
        &mut self,
        roots: &BTreeMap<u64, Vec<u8>>,
        reached: u64,
    ) -> Result<(), TrustError> {
        while self.root_version() < reached {
            let version = self.root_version() + 1;
            let bytes = roots.get(&version).ok_or_else(|| lost_root(version))?;
            let root = next_root(&self.root, bytes).map_err(|_| lost_root(version))?;
            self.replace(&root_name(version), bytes)?;
            (self.root, self.root_bytes) = (root, bytes.clone());
        }
        Ok(())
    }

    /// The newest root that was ever seen must not be forgotten, even when its file was damaged.
    pub(crate) fn check_root(&self) -> Result<(), TrustError> {
        let (offered, shipped) = (self.root_version(), &self.shipped.sha256);
        match &self.memory {
            Some(memory) if memory.root_version > offered && memory.shipped_root == *shipped => {
                Err(TrustError::Rollback { role: Role::Root, offered, seen: memory.root_version })
            }
            _ => Ok(()),
        }
    }

    /// Keeps what was verified and is not expired.
    pub(crate) fn keep(&mut self, repository: &Repository, at: u64) -> Result<(), TrustError> {
        let root = &self.root.signed;
        let fresh = Memory {
            schema: SCHEMA,
            shipped_root: self.shipped.sha256.clone(),
            root_version: self.root_version(),
            at,
            timestamp_keys: keys(root, RoleType::Timestamp),
            snapshot_keys: keys(root, RoleType::Snapshot),
            timestamp: repository.timestamp().clone(),
            snapshot: repository.snapshot().clone(),
        };
        let same = self.memory.as_ref().is_some_and(|old| {
            old.at.saturating_add(TIME_STEP_S) > at && Memory { at, ..old.clone() } == fresh
        });
        if !same {
            let text = serde_json::to_vec(&fresh).map_err(|error| TrustError::Store(error.to_string()))?;
            self.replace(SEEN, &[sha256(&text).as_bytes(), b"\n", &text].concat())?;
            self.memory = Some(fresh);
            self.remove_stale_roots();
        }
        Ok(())
    }

    /// Roots that the shipped one has overtaken. Nobody misses one that stays.
    fn remove_stale_roots(&self) {
        for name in self.files.names().unwrap_or_default() {
            let version = name.strip_suffix(".root.json").and_then(|version| version.parse::<u64>().ok());
            if version.is_some_and(|version| version <= self.shipped.version) {
                let _ = self.files.remove(&name);
            }
        }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, TrustError> {
        self.files.read(name).map_err(|error| failed("reading", &PathBuf::from(name), &error))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), TrustError> {
        replace(self.files.as_ref(), name, bytes)
            .map_err(|error| failed("writing", &PathBuf::from(name), &error))
    }

    fn set_aside(&mut self, name: &str, problem: &str) -> Result<(), TrustError> {
        let kept = format!("{name}.damaged");
        self.files
            .rename(name, &kept)
            .map_err(|error| failed("setting aside", &PathBuf::from(name), &error))?;
        self.reports.push(format!("what was remembered in {name} is unusable, kept as {kept}: {problem}"));
        Ok(())
    }
}

/// A root that follows another, or why it does not.
fn next_root(current: &Signed<Root>, bytes: &[u8]) -> Result<Signed<Root>, String> {
    let next: Signed<Root> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    current.signed.verify_role(&next).map_err(|error| error.to_string())?;
    next.signed.verify_role(&next).map_err(|error| error.to_string())?;
    let (found, expected) = (next.signed.version.get(), current.signed.version.get() + 1);
    if found == expected { Ok(next) } else { Err(format!("it is version {found}, not {expected}")) }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What comes after the first line, if that is its checksum.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    let (sum, text) = (&bytes[..at], &bytes[at + 1..]);
    (sum == sha256(text).as_bytes()).then_some(text)
}

fn keys(root: &Root, role: RoleType) -> Vec<Decoded<Hex>> {
    root.roles.get(&role).map(|role| role.keyids.clone()).unwrap_or_default()
}

fn root_name(version: u64) -> String {
    format!("{version}.root.json")
}

fn lost_root(version: u64) -> TrustError {
    TrustError::Store(format!("root {version} was verified, but its bytes are gone"))
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> TrustError {
    TrustError::Store(format!("{doing} {}: {error}", path.display()))
}
