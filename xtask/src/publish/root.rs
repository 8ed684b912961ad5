//! `root.json`: which keys may sign what, until when; its versions, and the one that an image trusts.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::num::NonZeroU64;

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_trust::tough::schema::{RoleKeys, RoleType, Root, Signed};

use super::keys::{self, Keys};
use super::{DAY_S, SPEC_VERSION, atomic, now, timestamp};
use crate::workspace::Workspace;

/// The newest root in a directory of keys.
pub const FILE: &str = "root.json";
/// In the root itself, signed: nobody can pass a development root off as another.
const DEVELOPMENT: &str = "x-kontor-development";
/// Roots are signed at a ceremony; two years leave room for one a year.
pub const ROOT_DAYS: u64 = 730;

/// The roles, in the order in which people meet them.
pub const ROLES: [RoleType; 4] = [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// How many keys a role has, and how many must sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// Keys.
    pub keys: u64,
    /// Signatures.
    pub threshold: u64,
}

/// Roots by their version, each as it is published and checked by the one before.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    roots: BTreeMap<u64, (Vec<u8>, Signed<Root>)>,
}

/// What an image trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedRoot {
    /// `root.json`.
    pub bytes: Vec<u8>,
    /// Its version.
    pub version: u64,
    /// Whether anybody who has the builder's checkout can sign for it.
    pub development: bool,
}

impl Chain {
    /// Reads `N.root.json` and `root.json` of these directories.
    ///
    /// # Errors
    /// When there is none, two of one version differ, or one does not follow from the one before.
    pub fn open(directories: &[Utf8PathBuf]) -> Result<Self> {
        let mut chain = Self::default();
        for directory in directories {
            let entries = directory.read_dir_utf8().with_context(|| format!("cannot read {directory}"))?;
            for entry in entries {
                let path = entry?.into_path();
                let name = path.file_name().unwrap_or_default();
                if name == FILE || name.ends_with(".root.json") {
                    chain.insert(&path)?;
                }
            }
        }
        let names: Vec<&str> = directories.iter().map(|directory| directory.as_str()).collect();
        ensure!(!chain.roots.is_empty(), "there is no {FILE} in {}; `keys init` makes one", names.join(", "));
        chain.check()?;
        Ok(chain)
    }

    fn insert(&mut self, path: &Utf8Path) -> Result<()> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
        let root: Signed<Root> =
            serde_json::from_slice(&bytes).with_context(|| format!("{path} is no root"))?;
        root.signed.verify_role(&root).map_err(|error| anyhow!("{path}: {error}"))?;
        let version = root.signed.version.get();
        if let Some((known, _)) = self.roots.get(&version) {
            ensure!(*known == bytes, "{path} is another root {version} than that beside it");
        }
        self.roots.insert(version, (bytes, root));
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let pairs = self.roots.values().zip(self.roots.values().skip(1));
        for ((_, old), (_, new)) in pairs {
            let (from, to) = (old.signed.version, new.signed.version);
            ensure!(
                from.get() + 1 == to.get(),
                "root {} is missing, between {from} and {to}",
                from.get() + 1
            );
            old.signed
                .verify_role(new)
                .map_err(|error| anyhow!("root {to} does not follow {from}: {error}"))?;
        }
        Ok(())
    }

    /// The newest.
    ///
    /// # Panics
    /// Never: a chain that was opened has one.
    #[must_use]
    pub fn newest(&self) -> &Signed<Root> {
        &self.roots.last_key_value().expect("a chain has a root").1.1
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &[u8], &Root)> {
        self.roots.iter().map(|(version, (bytes, root))| (*version, bytes.as_slice(), &root.signed))
    }

    /// Whether this is a continuation of the other, or the other of this: where both have a version it is the same.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let mut both = self
            .roots
            .iter()
            .filter_map(|(version, (bytes, _))| other.roots.get(version).map(|(others, _)| others == bytes));
        let mut any = false;
        both.all(|same| {
            any = true;
            same
        }) && any
    }
}

/// Makes the first root and all keys in a new or empty directory.
///
/// # Errors
/// When something is there already, or cannot be written.
pub fn init(directory: &Utf8Path, quorums: &BTreeMap<&str, Quorum>, development: bool) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {directory}"))?;
    let mut entries = fs::read_dir(directory).with_context(|| format!("cannot read {directory}"))?;
    ensure!(entries.next().is_none(), "{directory} is not empty; keys are never overwritten");
    let mut root = Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: timestamp(now()? + ROOT_DAYS * DAY_S)?,
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    if development {
        root._extra.insert(DEVELOPMENT.to_owned(), true.into());
    }
    let mut keys = Keys::without_root(Chain::default());
    for role in ROLES {
        let quorum = quorums.get(role.to_string().as_str()).copied();
        set_role(&mut root, role, quorum.unwrap_or(Quorum { keys: 1, threshold: 1 }), directory, &mut keys)?;
    }
    write(directory, &keys, root, &[])
}

/// Makes new keys for a role, of which there are as many as before unless it is said otherwise, and the root that says so, signed by
/// the old root's keys and the new one's. Without a role only the expiry is new.
///
/// # Errors
/// When the root's keys are not here.
pub fn next(directories: &[Utf8PathBuf], role: Option<RoleType>, quorum: Option<Quorum>) -> Result<u64> {
    let directory = directories.first().context("no directory of keys is named")?;
    let mut keys = Keys::open(directories)?;
    keys.need(RoleType::Root)?;
    let mut root = keys.root().clone();
    let old = root_ids(&root);
    let version = root.version.get() + 1;
    root.version = NonZeroU64::new(version).context("the version is used up")?;
    root.expires = timestamp(now()? + ROOT_DAYS * DAY_S)?;
    if let Some(role) = role {
        let before = root
            .roles
            .get(&role)
            .map(|keys| Quorum { keys: keys.keyids.len() as u64, threshold: keys.threshold.get() });
        let quorum = quorum.or(before).context("the role has no keys")?;
        set_role(&mut root, role, quorum, directory, &mut keys)?;
    }
    write(directory, &keys, root, &old)?;
    Ok(version)
}

fn set_role(
    root: &mut Root,
    role: RoleType,
    quorum: Quorum,
    directory: &Utf8Path,
    keys: &mut Keys,
) -> Result<()> {
    let Quorum { keys: count, threshold } = quorum;
    ensure!(
        (1..=count).contains(&threshold) && count <= 20,
        "{role}: {threshold} of {count} keys cannot sign; the threshold is at least 1 and at most the number of keys, 20 at most"
    );
    let mut keyids = Vec::new();
    for _ in 0..count {
        let key = keys.add(keys::make(directory, role)?)?;
        let id = keys::decoded(&keys::id(&key)?)?;
        root.keys.insert(id.clone(), key);
        keyids.push(id);
    }
    let threshold = NonZeroU64::new(threshold).context("a threshold of 0")?;
    root.roles.insert(role, RoleKeys { keyids, threshold, _extra: HashMap::new() });
    let used: Vec<_> = root.roles.values().flat_map(|role| role.keyids.clone()).collect();
    root.keys.retain(|id, _| used.contains(id));
    Ok(())
}

fn root_ids(root: &Root) -> Vec<String> {
    let ids = root.roles.get(&RoleType::Root).map(|keys| keys.keyids.as_slice()).unwrap_or_default();
    ids.iter().map(|id| keys::hex(id)).collect()
}

/// Signs by the keys of this root and of the one before, and writes it under both names.
fn write(directory: &Utf8Path, keys: &Keys, root: Root, old: &[String]) -> Result<()> {
    let mut ids = root_ids(&root);
    ids.extend(old.iter().filter(|id| !ids.contains(id)).cloned().collect::<Vec<_>>());
    let signed = keys.sign_by(root, &ids)?;
    signed.signed.verify_role(&signed).map_err(|error| anyhow!("the new root: {error}"))?;
    let bytes = super::json(&signed)?;
    atomic(&directory.join(format!("{}.root.json", signed.signed.version)), &bytes)?;
    atomic(&directory.join(FILE), &bytes)
}

/// Whether a root is one that was made for trying things.
#[must_use]
pub fn is_development(root: &Root) -> bool {
    root._extra.get(DEVELOPMENT) == Some(&true.into())
}

/// Where the development keys of this checkout are.
#[must_use]
pub fn development_directory(workspace: &Workspace) -> Utf8PathBuf {
    workspace.target().join("keys/development")
}

/// The development keys of this checkout, made at the first call and never again.
///
/// # Errors
/// When they cannot be written.
pub fn development(workspace: &Workspace) -> Result<Utf8PathBuf> {
    let directory = development_directory(workspace);
    if directory.join(FILE).exists() {
        return Ok(directory);
    }
    let parent = workspace.target().join("keys");
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {parent}"))?;
    let (made, _claim) = crate::scratch::directory(&parent, ".development-")?;
    let path = Utf8Path::from_path(made.path()).context("the path is not UTF-8")?;
    init(path, &BTreeMap::new(), true)?;
    match fs::rename(path, &directory) {
        // Another build at the same time was faster: its keys are the checkout's.
        Err(_) if directory.join(FILE).exists() => {}
        renamed => renamed.with_context(|| format!("cannot make {directory}"))?,
    }
    Ok(directory)
}

/// What an image trusts that is built with these keys; `None` when the checkout has no development keys yet.
///
/// # Errors
/// When the directory has no usable root.
pub fn trusted(keys: Option<&Utf8Path>, workspace: &Workspace) -> Result<Option<TrustedRoot>> {
    let directory = match keys {
        Some(directory) => directory.to_owned(),
        None => development_directory(workspace),
    };
    if keys.is_none() && !directory.join(FILE).exists() {
        return Ok(None);
    }
    let path = directory.join(FILE);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let root: Signed<Root> = serde_json::from_slice(&bytes).with_context(|| format!("{path} is no root"))?;
    if let Err(error) = root.signed.verify_role(&root) {
        bail!("{path}: {error}");
    }
    let (version, development) = (root.signed.version.get(), is_development(&root.signed));
    Ok(Some(TrustedRoot { bytes, version, development }))
}
