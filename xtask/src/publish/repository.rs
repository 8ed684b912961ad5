//! The repository: static files that any web server can serve, and what a publisher may do to them.
//!
//! Everything is checked before anything is written. Then objects, targets and metadata get new names, and `timestamp.json`,
//! which alone says what is current, is replaced last: whoever reads meanwhile, or after an interruption, has the old state.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::num::NonZeroU64;

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_trust::tough::TargetName;
use kontor_trust::tough::schema::{
    Hashes, Metafile, Role, RoleType, Signed, Snapshot, Target, Targets, Timestamp,
};
use kontor_update::{Channel, Release};
use nix::fcntl::{Flock, FlockArg};

use super::keys::{Keys, decoded};
use super::root::Chain;
use super::{DAY_S, SPEC_VERSION, atomic, json, objects, timestamp};

/// Targets are signed at releases, of which there is one a year at least.
pub const TARGETS_DAYS: u64 = 365;
/// Signed by cron: a month leaves time to notice that it stands still, and bounds what a frozen mirror can do.
pub const ONLINE_DAYS: u64 = 30;
/// From so many days before their end on, publishers are warned, and targets are signed anew with the next release.
pub const EARLY_OFFLINE_DAYS: u64 = 30;
/// The same for what cron signs.
pub const EARLY_ONLINE_DAYS: u64 = 7;
const METADATA: &str = "metadata";
const TIMESTAMP: &str = "timestamp.json";

/// A repository, opened by who has keys for it.
#[derive(Debug)]
pub struct Repository {
    root: Utf8PathBuf,
    keys: Keys,
    /// `None` before anything was published.
    state: Option<State>,
    /// Targets that were signed and are not current yet: the keys of snapshot are elsewhere, or a publication was interrupted.
    pending: Option<Signed<Targets>>,
    /// What should be published.
    targets: BTreeMap<String, Vec<u8>>,
    /// Who has signed what is published can sign no more: the keys may have been stolen.
    replaced_keys: bool,
    _lock: Flock<File>,
}

/// What is published.
#[derive(Debug)]
struct State {
    targets: Signed<Targets>,
    snapshot: Signed<Snapshot>,
    timestamp: Signed<Timestamp>,
}

/// What a call has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had to be done.
    Unchanged,
    /// The targets are signed; snapshot and timestamp are signed where their keys are, by `publish --refresh`.
    AwaitsRefresh,
    /// Readers see it.
    Published,
}

impl Repository {
    /// Opens a repository, or an empty folder for one.
    ///
    /// # Errors
    /// When it is another root's, or not whole.
    pub fn open(root: &Utf8Path, keys: Keys) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("cannot make {root}"))?;
        let lock = Flock::lock(File::open(root)?, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| anyhow!("somebody else publishes to {root}: {error}"))?;
        let metadata = root.join(METADATA);
        let published = metadata.join(TIMESTAMP).exists();
        if metadata.join("1.root.json").exists() || published {
            let chain = Chain::open(std::slice::from_ref(&metadata))?;
            ensure!(
                chain.agrees_with(&keys.chain),
                "{root} is a repository of another root than that of the keys"
            );
        }
        let mut repository = Self {
            root: root.to_owned(),
            keys,
            state: None,
            pending: None,
            targets: BTreeMap::new(),
            replaced_keys: false,
            _lock: lock,
        };
        if published {
            repository.state = Some(repository.state()?);
        }
        repository.follow_targets()?;
        Ok(repository)
    }

    fn state(&self) -> Result<State> {
        let timestamp: Signed<Timestamp> = self.read(TIMESTAMP, None)?;
        let meta = timestamp.signed.meta.get("snapshot.json").context("timestamp.json names no snapshot")?;
        let snapshot: Signed<Snapshot> =
            self.read(&format!("{}.snapshot.json", meta.version), meta.hashes.as_ref())?;
        let meta = snapshot.signed.meta.get("targets.json").context("the snapshot names no targets")?;
        let targets: Signed<Targets> =
            self.read(&format!("{}.targets.json", meta.version), meta.hashes.as_ref())?;
        Ok(State { targets, snapshot, timestamp })
    }

    /// Finds the newest targets, current or not, and reads the documents they name.
    fn follow_targets(&mut self) -> Result<()> {
        let mut version = self.state.as_ref().map_or(0, |state| state.targets.signed.version.get());
        loop {
            version += 1;
            let name = format!("{version}.targets.json");
            if !self.root.join(METADATA).join(&name).exists() {
                break;
            }
            self.pending = Some(self.read(&name, None)?);
        }
        let Some(newest) = self.newest() else { return Ok(()) };
        let mut documents = BTreeMap::new();
        for (name, target) in &newest.signed.targets {
            let (name, hash) = (name.raw(), super::keys::hex(&target.hashes.sha256));
            let path = self.target_path(name, &hash);
            let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
            ensure!(objects::sha256(&bytes) == hash, "{path} has other bytes than its name says");
            documents.insert(name.to_owned(), bytes);
        }
        self.replaced_keys = self.keys.root().verify_role(newest).is_err();
        self.targets = documents;
        Ok(())
    }

    /// The newest targets, current or not.
    fn newest(&self) -> Option<&Signed<Targets>> {
        self.pending.as_ref().or(self.state.as_ref().map(|state| &state.targets))
    }

    /// Reads metadata that some root vouches for; it may have expired.
    fn read<T: Role + serde::de::DeserializeOwned>(
        &self,
        name: &str,
        hashes: Option<&Hashes>,
    ) -> Result<Signed<T>> {
        let path = self.root.join(METADATA).join(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        if let Some(hashes) = hashes {
            let found = objects::sha256(&bytes);
            ensure!(found == super::keys::hex(&hashes.sha256), "{path} has other bytes than were signed");
        }
        let signed: Signed<T> = serde_json::from_slice(&bytes).with_context(|| path.to_string())?;
        let vouched = self.keys.chain.iter().rev().any(|(_, _, root)| root.verify_role(&signed).is_ok());
        ensure!(vouched, "{path} is not signed by keys of any root here");
        Ok(signed)
    }

    /// The keys it was opened with.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A channel, as it should be published.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn channel(&self, name: &str) -> Result<Option<Channel>> {
        let bytes = self.targets.get(&Channel::target(name));
        Ok(bytes.map(|bytes| Channel::parse(name, bytes)).transpose()?)
    }

    /// Every release that is published.
    ///
    /// # Errors
    /// When one is damaged.
    pub fn releases(&self) -> Result<Vec<Release>> {
        let manifests = self.targets.iter().filter(|(name, _)| name.starts_with("release/"));
        manifests.map(|(name, bytes)| Release::parse(bytes).with_context(|| name.clone())).collect()
    }

    /// Sets a channel.
    ///
    /// # Errors
    /// When it contradicts itself.
    pub fn set_channel(&mut self, channel: &Channel) -> Result<()> {
        channel.check().map_err(|problem| anyhow!("{problem}"))?;
        self.targets.insert(Channel::target(&channel.channel), channel.to_json());
        Ok(())
    }

    /// Adds a release; one that is there must have the same bytes.
    ///
    /// # Errors
    /// When there is another one of that version.
    pub fn add_release(&mut self, release: &Release) -> Result<()> {
        let name = Release::target(&release.product, release.version);
        let bytes = release.to_json();
        if let Some(known) = self.targets.get(&name) {
            ensure!(
                *known == bytes,
                "{} {} is published already, with other bytes; a version is never used twice",
                release.product,
                release.version
            );
        }
        self.targets.insert(name, bytes);
        Ok(())
    }

    /// Fails when an object that any release names is not there; `whole` hashes them, too.
    ///
    /// # Errors
    /// With the object.
    pub fn check_objects(&self, whole: bool, elsewhere: Option<&Utf8Path>) -> Result<()> {
        let own = self.objects();
        for release in self.releases()? {
            for object in release.objects() {
                let folder = match elsewhere {
                    Some(elsewhere) if !objects::path(&own, object).exists() => elsewhere,
                    _ => &own,
                };
                let checked =
                    if whole { objects::check(object, folder) } else { objects::check_size(object, folder) };
                checked.with_context(|| format!("{} {} is not whole", release.product, release.version))?;
            }
        }
        Ok(())
    }

    /// Where objects are.
    #[must_use]
    pub fn objects(&self) -> Utf8PathBuf {
        self.root.join(objects::FOLDER)
    }

    /// Signs and writes what has changed. `later` leaves snapshot and timestamp to who has their keys.
    ///
    /// # Errors
    /// When keys are missing, before anything is written; or the disk fails, and readers have the old state.
    pub fn commit(self, now: u64, later: bool) -> Result<Outcome> {
        self.ensure_root_is_valid(now)?;
        let targets = self.next_targets(now)?;
        if targets.is_none() && self.pending.is_none() {
            return Ok(Outcome::Unchanged);
        }
        if !later {
            self.need_online()?;
        }
        self.write_targets(targets.as_ref())?;
        if later {
            return Ok(Outcome::AwaitsRefresh);
        }
        self.write_online(targets, now)
    }

    /// Signs snapshot (if targets have changed, or it expires with the next timestamp) and timestamp anew.
    ///
    /// # Errors
    /// As [`Repository::commit`].
    pub fn refresh(self, now: u64) -> Result<Outcome> {
        self.ensure_root_is_valid(now)?;
        self.need_online()?;
        ensure!(self.newest().is_some(), "nothing is published in {}", self.root);
        self.write_online(None, now)
    }

    /// Fails when something to sign with is missing or has expired, before anything is written; and when new keys would vouch for
    /// what was signed by keys that have been replaced, which nobody has said they should.
    ///
    /// # Errors
    /// With what is missing.
    pub fn ensure_can_sign(&self, now: u64, later: bool, vouch: bool) -> Result<()> {
        self.ensure_root_is_valid(now)?;
        if self.replaced_keys && !vouch {
            let named =
                |(name, bytes): (&String, &Vec<u8>)| format!("\n  {}  {name}", objects::sha256(bytes));
            let all: String = self.targets.iter().map(named).collect();
            bail!(
                "what is published was signed by keys that have been replaced; if they were stolen, some of it may be a thief's. \
                 Compare it with your own copies, then --vouch signs all of it:{all}"
            );
        }
        self.keys.need(RoleType::Targets)?;
        if later { Ok(()) } else { self.need_online() }
    }

    /// What expires soon, for who runs the repository.
    ///
    /// # Errors
    /// When what is published cannot be read.
    pub fn warnings(root: &Utf8Path, now: u64) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for (role, until) in verify(root, now)?.expiries() {
            let early = match role {
                kontor_trust::Role::Root | kontor_trust::Role::Targets => EARLY_OFFLINE_DAYS,
                kontor_trust::Role::Snapshot | kontor_trust::Role::Timestamp => EARLY_ONLINE_DAYS,
            };
            let days = until.saturating_sub(now) / DAY_S;
            if days < early {
                warnings.push(format!("{role} expires in {days} days; then boxes take no updates any more"));
            }
        }
        Ok(warnings)
    }

    fn ensure_root_is_valid(&self, now: u64) -> Result<()> {
        let until = u64::try_from(self.keys.root().expires.as_second()).unwrap_or(0);
        ensure!(
            until > now,
            "root {} has expired; `keys renew` signs the next one",
            self.keys.root().version
        );
        Ok(())
    }

    fn need_online(&self) -> Result<()> {
        [RoleType::Snapshot, RoleType::Timestamp].into_iter().try_for_each(|role| {
            self.keys.need(role).with_context(|| {
                format!("the keys of {role} are elsewhere; --sign-later signs the targets alone, and `publish --refresh` there does the rest")
            })
        })
    }

    /// The targets that have to be signed; none when they are as they were. A version that is pending is never used again: who
    /// has a copy of the folder may have made it current.
    fn next_targets(&self, now: u64) -> Result<Option<Signed<Targets>>> {
        let fresh = |targets: &Targets| {
            let left = u64::try_from(targets.expires.as_second()).unwrap_or(0).saturating_sub(now);
            left > EARLY_OFFLINE_DAYS * DAY_S
        };
        let mut version = 1;
        if let Some(newest) = self.newest() {
            if self.same_targets(&newest.signed) && fresh(&newest.signed) && !self.replaced_keys {
                return Ok(None);
            }
            version += newest.signed.version.get();
        }
        let version = NonZeroU64::new(version).context("the version is used up")?;
        let mut targets =
            Targets::new(SPEC_VERSION.to_owned(), version, timestamp(now + TARGETS_DAYS * DAY_S)?);
        for (name, bytes) in &self.targets {
            let name = TargetName::new(name.as_str()).map_err(|error| anyhow!("{error}"))?;
            targets.add_target(name, target(bytes)?);
        }
        self.keys.sign(targets).map(Some)
    }

    fn same_targets(&self, signed: &Targets) -> bool {
        signed.targets.len() == self.targets.len()
            && self.targets.iter().all(|(name, bytes)| {
                let known = TargetName::new(name.as_str()).ok().and_then(|name| signed.targets.get(&name));
                known.is_some_and(|known| super::keys::hex(&known.hashes.sha256) == objects::sha256(bytes))
            })
    }

    fn write_targets(&self, targets: Option<&Signed<Targets>>) -> Result<()> {
        for (name, bytes) in &self.targets {
            put(&self.target_path(name, &objects::sha256(bytes)), bytes)?;
        }
        if let Some(targets) = targets {
            let name = format!("{}.targets.json", targets.signed.version);
            put(&self.root.join(METADATA).join(name), &json(targets)?)?;
        }
        Ok(())
    }

    /// Snapshot, roots, and last the timestamp. The roots come late: between a root with new keys and a timestamp that they
    /// have signed, readers find that nothing fits.
    fn write_online(&self, targets: Option<Signed<Targets>>, now: u64) -> Result<Outcome> {
        let targets = targets.as_ref().or(self.newest());
        let targets = targets.context("there are no targets")?;
        ensure!(
            self.keys.root().verify_role(targets).is_ok(),
            "targets {} is not signed by the keys of the newest root; publish anew where those are",
            targets.signed.version
        );
        let metadata = self.root.join(METADATA);
        let path = metadata.join(format!("{}.targets.json", targets.signed.version));
        let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        let (snapshot, snapshot_bytes) = self.snapshot(targets.signed.version, &bytes, now)?;
        let version = self.state.as_ref().map_or(0, |state| state.timestamp.signed.version.get()) + 1;
        let version = NonZeroU64::new(version).context("the version is used up")?;
        let expires = timestamp(now + ONLINE_DAYS * DAY_S)?;
        let mut signed = Timestamp::new(SPEC_VERSION.to_owned(), version, expires);
        signed.meta.insert("snapshot.json".to_owned(), metafile(snapshot, &snapshot_bytes)?);
        let signed = json(&self.keys.sign(signed)?)?;
        for (version, bytes, _) in self.keys.chain.iter() {
            put(&metadata.join(format!("{version}.root.json")), bytes)?;
        }
        atomic(&metadata.join(TIMESTAMP), &signed)?;
        Ok(Outcome::Published)
    }

    /// The snapshot that names these targets: the published one while it is good for a timestamp's time, else a new one.
    fn snapshot(&self, targets: NonZeroU64, bytes: &[u8], now: u64) -> Result<(NonZeroU64, Vec<u8>)> {
        let known = self.state.as_ref().map(|state| &state.snapshot);
        let meta = metafile(targets, bytes)?;
        let until = now + ONLINE_DAYS * DAY_S;
        let path = |version| self.root.join(METADATA).join(format!("{version}.snapshot.json"));
        if let Some(known) = known
            && known.signed.meta.get("targets.json") == Some(&meta)
            && u64::try_from(known.signed.expires.as_second()).unwrap_or(0) + DAY_S >= until
            && self.keys.root().verify_role(known).is_ok()
        {
            let path = path(known.signed.version);
            return Ok((
                known.signed.version,
                fs::read(&path).with_context(|| format!("cannot read {path}"))?,
            ));
        }
        let version = known.map_or(0, |known| known.signed.version.get()) + 1;
        let version = NonZeroU64::new(version).context("the version is used up")?;
        let mut snapshot = Snapshot::new(SPEC_VERSION.to_owned(), version, timestamp(until)?);
        snapshot.meta.insert("targets.json".to_owned(), meta);
        let bytes = json(&self.keys.sign(snapshot)?)?;
        put(&path(version), &bytes)?;
        Ok((version, bytes))
    }

    fn target_path(&self, name: &str, hash: &str) -> Utf8PathBuf {
        self.root.join("targets").join(format!("{hash}.{name}"))
    }
}

/// Writes a file that has its own name, unless it is there as it should be.
fn put(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).ok().as_deref() == Some(bytes) {
        return Ok(());
    }
    atomic(path, bytes)
}

fn hashes(bytes: &[u8]) -> Result<Hashes> {
    Ok(Hashes { sha256: decoded(&objects::sha256(bytes))?, _extra: HashMap::new() })
}

fn target(bytes: &[u8]) -> Result<Target> {
    Ok(Target {
        length: bytes.len() as u64,
        hashes: hashes(bytes)?,
        custom: HashMap::new(),
        _extra: HashMap::new(),
    })
}

fn metafile(version: NonZeroU64, bytes: &[u8]) -> Result<Metafile> {
    Ok(Metafile {
        length: Some(bytes.len() as u64),
        hashes: Some(hashes(bytes)?),
        version,
        _extra: HashMap::new(),
    })
}

/// Reads a repository as a box with its first root would.
///
/// # Errors
/// With the rule that stands against it.
pub fn verify(root: &Utf8Path, now: u64) -> Result<kontor_trust::Trusted> {
    use kontor_trust::{Clock, Folder, Limits, Store, refresh};
    let shipped = root.join(METADATA).join("1.root.json");
    let shipped = fs::read(&shipped).with_context(|| format!("cannot read {shipped}"))?;
    let memory = tempfile::tempdir()?;
    let mut store = Store::open(memory.path(), &shipped)?;
    let folder = Folder::open(root.as_std_path()).with_context(|| format!("cannot open {root}"))?;
    let looked = async {
        let base = folder.base().clone();
        refresh(&mut store, &base, folder, Clock { now, floor: 0 }, Limits::default()).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    match runtime.block_on(looked) {
        Ok(trusted) => Ok(trusted),
        Err(error) => bail!("a box would refuse what is published in {root}: {error}"),
    }
}
