//! Signing keys: each in a file of its own, in a directory that is not the repository's.
//!
//! A key is known by what it is, not by the name of its file. Which key may sign what stands in `root.json`, of which every
//! version lies beside the keys. Directories may be different ones for keys that are kept apart.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::signature::Ed25519KeyPair;
use camino::{Utf8Path, Utf8PathBuf};
use kontor_trust::tough::schema::decoded::{Decoded, Hex};
use kontor_trust::tough::schema::key::Key;
use kontor_trust::tough::schema::{Role, RoleType, Root, Signature, Signed};
use kontor_trust::tough::sign::Sign as _;

use super::root::Chain;

/// What files of private keys are called.
const EXTENSION: &str = "pem";
const PEM_TAG: &str = "PRIVATE KEY";

/// Private keys and the roots that say what they may sign.
#[derive(Debug)]
pub struct Keys {
    /// Every root there is.
    pub chain: Chain,
    pairs: BTreeMap<String, Pair>,
}

/// A private key, and where it is.
#[derive(Debug)]
struct Pair {
    pair: Ed25519KeyPair,
    path: Utf8PathBuf,
}

impl Keys {
    /// Reads the keys and roots in these directories.
    ///
    /// # Errors
    /// When there is no root, the roots do not follow from each other, or a file is no key.
    pub fn open(directories: &[Utf8PathBuf]) -> Result<Self> {
        let chain = Chain::open(directories)?;
        let mut pairs = BTreeMap::new();
        for directory in directories {
            for entry in directory.read_dir_utf8().with_context(|| format!("cannot read {directory}"))? {
                let path = entry?.into_path();
                if path.extension() == Some(EXTENSION) {
                    let pair = read(&path)?;
                    pairs.insert(id(&pair.tuf_key())?, Pair { pair, path });
                }
            }
        }
        Ok(Self { chain, pairs })
    }

    /// The newest root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.chain.newest().signed
    }

    /// How many keys of this role are here, and how many signatures it needs.
    #[must_use]
    pub fn available(&self, role: RoleType) -> (usize, u64) {
        let Some(keys) = self.root().roles.get(&role) else { return (0, 1) };
        let here = keys.keyids.iter().filter(|id| self.pairs.contains_key(&hex(id)));
        (here.count(), keys.threshold.get())
    }

    /// Fails when the keys that are here cannot sign for a role.
    ///
    /// # Errors
    /// With the identities of the keys that are not here.
    pub fn need(&self, role: RoleType) -> Result<()> {
        let (here, threshold) = self.available(role);
        if here as u64 >= threshold {
            return Ok(());
        }
        let keys = self.root().roles.get(&role).map(|keys| keys.keyids.as_slice()).unwrap_or_default();
        let missing: Vec<String> =
            keys.iter().map(|id| hex(id)).filter(|id| !self.pairs.contains_key(id)).collect();
        let missing: Vec<&str> = missing.iter().map(|id| short(id)).collect();
        bail!(
            "{role} needs {threshold} signatures, and {here} of its keys are here; missing: {} (--keys names further directories)",
            missing.join(" ")
        )
    }

    /// Signs by every key of the role that is here.
    ///
    /// # Errors
    /// When there are too few.
    pub fn sign<T: Role>(&self, signed: T) -> Result<Signed<T>> {
        self.need(T::TYPE)?;
        let keys = self.root().roles.get(&T::TYPE).with_context(|| format!("no role {}", T::TYPE))?;
        let ids: Vec<String> = keys.keyids.iter().map(|id| hex(id)).collect();
        self.sign_by(signed, &ids)
    }

    /// Signs by those of these keys that are here.
    pub(super) fn sign_by<T: Role>(&self, signed: T, ids: &[String]) -> Result<Signed<T>> {
        let form = signed.canonical_form().map_err(|error| anyhow!("{error}"))?;
        let mut signatures = Vec::new();
        for id in ids {
            if let Some(Pair { pair, .. }) = self.pairs.get(id) {
                let sig = pair.sign(&form).as_ref().to_vec().into();
                signatures.push(Signature { keyid: decoded(id)?, sig });
            }
        }
        Ok(Signed { signed, signatures })
    }

    /// Where the private key with this identity is.
    #[must_use]
    pub fn path(&self, id: &str) -> Option<&Utf8Path> {
        self.pairs.get(id).map(|pair| pair.path.as_path())
    }

    /// Takes a key in that was just made.
    pub(super) fn add(&mut self, path: Utf8PathBuf) -> Result<Key> {
        let pair = read(&path)?;
        let key = pair.tuf_key();
        self.pairs.insert(id(&key)?, Pair { pair, path });
        Ok(key)
    }

    /// A set of keys before there is a root.
    pub(super) fn without_root(chain: Chain) -> Self {
        Self { chain, pairs: BTreeMap::new() }
    }
}

/// Makes a key for this role, under a name that nothing has.
///
/// # Errors
/// When it cannot be written.
pub(super) fn make(directory: &Utf8Path, role: RoleType) -> Result<Utf8PathBuf> {
    let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("the generator of random numbers fails"))?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| anyhow!("the new key cannot be encoded"))?;
    let text = pem::encode(&pem::Pem::new(PEM_TAG, der.as_ref()));
    for number in 1..10_000 {
        let path = directory.join(format!("{role}-{number}.{EXTENSION}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
                written.with_context(|| format!("cannot write {path}"))?;
                return Ok(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {path}")),
        }
    }
    bail!("{directory} is full of keys")
}

fn read(path: &Utf8Path) -> Result<Ed25519KeyPair> {
    let text = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    let pem = pem::parse(text).with_context(|| format!("{path} is no key"))?;
    ensure!(pem.tag() == PEM_TAG, "{path} has {:?}, not a private key", pem.tag());
    Ed25519KeyPair::from_pkcs8(pem.contents()).map_err(|error| anyhow!("{path} is no Ed25519 key: {error}"))
}

/// Private keys in a work tree are published with the next `git add`.
///
/// # Errors
/// When the directory lies in one.
pub fn ensure_outside_git(directory: &Utf8Path) -> Result<()> {
    let there = directory.ancestors().find(|parent| parent.exists()).unwrap_or(Utf8Path::new("."));
    let there = if there.as_str().is_empty() { Utf8Path::new(".") } else { there }.canonicalize_utf8()?;
    match there.ancestors().find(|parent| parent.join(".git").exists()) {
        Some(tree) => bail!("{directory} lies in the git work tree {tree}; keys belong somewhere else"),
        None => Ok(()),
    }
}

/// A key's identity.
pub(super) fn id(key: &Key) -> Result<String> {
    Ok(hex(&key.key_id().map_err(|error| anyhow!("{error}"))?))
}

/// As it stands in `root.json`.
pub(super) fn hex(bytes: &[u8]) -> String {
    crate::image::step::hex(bytes)
}

pub(super) fn decoded(id: &str) -> Result<Decoded<Hex>> {
    id.parse().map_err(|error| anyhow!("{id}: {error}"))
}

/// Enough of an identity to tell keys apart.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
