//! The archive as a whole: verified release files and indices of every suite, and what locks are made from.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::Utf8Path;

use super::cache::Cache;
use super::http::HttpError;
use super::index::Index;
use super::lock_file::{LockFile, LockedPackage};
use super::release::{KeyRing, Release, format_date};
use super::resolver;
use super::sets::{self, Declaration};

/// Suites of Debian 13. Of equal versions, the first suite's is taken.
pub const SUITES: [&str; 3] = ["trixie", "trixie-updates", "trixie-security"];
/// Components taken: free software, and the firmware that network chips need.
pub const COMPONENTS: [&str; 2] = ["main", "non-free-firmware"];
/// The one architecture.
pub const ARCHITECTURE: &str = "amd64";

/// Release files are below 200 KB today; the limit bounds what a hostile mirror can make us keep.
const RELEASE_LIMIT: u64 = 8 << 20;
/// An unpacked index is 57 MB today; the limit bounds a decompression bomb.
const INDEX_LIMIT: u64 = 1 << 30;

/// What is declared in the repository: keys and sets.
#[derive(Debug)]
pub struct Repository {
    keys: KeyRing,
    declared: BTreeMap<String, Declaration>,
}

/// The archive's verified state.
#[derive(Debug)]
pub struct Archive {
    /// Every package.
    pub index: Index,
    /// Suite → when its release file was made.
    pub made_at: BTreeMap<String, i64>,
}

impl Repository {
    /// Reads `rootfs`: its keys and the sets that it declares.
    pub fn load(rootfs: &Utf8Path) -> Result<Self> {
        Ok(Repository { keys: KeyRing::load(&rootfs.join("keys"))?, declared: sets::load(rootfs)? })
    }

    /// The repository that a lock file lies in.
    pub fn for_lock(lock: &Utf8Path) -> Result<Self> {
        Self::load(lock.parent().context("the lock file has no folder")?)
    }

    /// The declared sets.
    pub fn declared(&self) -> &BTreeMap<String, Declaration> {
        &self.declared
    }

    /// Fetches and verifies the archive's state. A state older than `lock`'s is told loudly.
    pub fn archive(&self, cache: &Cache, lock: Option<&LockFile>) -> Result<Archive> {
        let mirrors = cache.mirrors()?;
        let mut index = Index::default();
        let mut made_at = BTreeMap::new();
        for suite in SUITES {
            let base = format!("{}/dists/{suite}", mirrors.for_suite(suite));
            let release = self.release(cache, &base, suite)?;
            if let Some(locked) = lock.and_then(|lock| lock.releases.get(suite)) {
                step_back(suite, locked, release.made_at).inspect(|warning| eprintln!("warning: {warning}"));
            }
            for component in COMPONENTS {
                let text = packages(cache, &base, &release, component)
                    .with_context(|| format!("index of {suite}/{component}"))?;
                index.add(&text, suite)?;
            }
            made_at.insert(suite.to_owned(), release.made_at);
        }
        Ok(Archive { index: index.finish()?, made_at })
    }

    fn release(&self, cache: &Cache, base: &str, suite: &str) -> Result<Release> {
        ensure!(!cache.options().offline, "--offline: the archive's state cannot be asked for");
        let url = format!("{base}/InRelease");
        let bytes = cache.client().get(&url, RELEASE_LIMIT)?;
        let text = String::from_utf8(bytes).map_err(|_| anyhow!("{url}: not text"))?;
        let release = Release::verify(&text, &self.keys).with_context(|| url.clone())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64);
        release.check(suite, now, cache.stale_is_fine()).with_context(|| url.clone())?;
        if release.valid_until.is_some_and(|end| end < now) {
            eprintln!("warning: the release file of {suite} is past its date: security fixes may be missing");
        }
        Ok(release)
    }

    /// Resolves every declared set.
    pub fn lock(&self, archive: &Archive, path: &Utf8Path) -> Result<LockFile> {
        let mut lock = LockFile::new(path);
        for (name, declaration) in &self.declared {
            lock.replace(name, resolve(&archive.index, name, declaration)?);
            lock.requests.insert(name.clone(), declaration.fingerprint());
        }
        lock.releases = archive.made_at.iter().map(|(suite, at)| (suite.clone(), format_date(*at))).collect();
        Ok(lock)
    }

    /// Locks the binary packages of these sources anew, and whatever their new versions need in addition; everything
    /// else stays as it is. Packages of one source move together because they depend on each other's exact version.
    pub fn relock_sources(&self, cache: &Cache, lock: &mut LockFile, sources: &[&str]) -> Result<()> {
        let archive = self.archive(cache, Some(lock))?;
        self.relock_from(&archive, lock, sources)
    }

    /// [`Repository::relock_sources`] from an archive state at hand.
    pub fn relock_from(&self, archive: &Archive, lock: &mut LockFile, sources: &[&str]) -> Result<()> {
        let sources: HashSet<&str> = sources.iter().copied().collect();
        let names: Vec<String> = lock.sets().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let old = lock.set(&name)?;
            if !old.iter().any(|package| sources.contains(package.source.as_str())) {
                continue;
            }
            let Some(declaration) = self.declared.get(&name) else {
                bail!("the lock has a set {name:?} that nothing declares: run `cargo xtask lock`")
            };
            let current = resolve(&archive.index, &name, declaration)?;
            let kept: Vec<LockedPackage> =
                old.iter().filter(|p| !sources.contains(p.source.as_str())).cloned().collect();
            let names: HashSet<&str> = kept.iter().map(|p| p.name.as_str()).collect();
            let new: Vec<LockedPackage> =
                current.into_iter().filter(|p| !names.contains(p.name.as_str())).collect();
            lock.replace(&name, kept.iter().cloned().chain(new).collect());
        }
        Ok(())
    }
}

fn resolve(index: &Index, name: &str, declaration: &Declaration) -> Result<Vec<LockedPackage>> {
    let numbers =
        resolver::resolve_set(index, declaration).with_context(|| format!("resolving the set {name:?}"))?;
    Ok(numbers.into_iter().map(|number| LockedPackage::from(index.package(number))).collect())
}

/// What to say when the mirror's state is older than the one the lock was made from.
fn step_back(suite: &str, locked: &str, made_at: i64) -> Option<String> {
    let now = format_date(made_at);
    // ISO 8601 in UTC sorts as text.
    (now.as_str() < locked).then(|| {
        format!(
            "the mirror's {suite} is OLDER than the lock ({now} < {locked}): a stale mirror, or somebody holds back \
             security fixes"
        )
    })
}

fn packages(cache: &Cache, base: &str, release: &Release, component: &str) -> Result<String> {
    let folder = format!("{component}/binary-{ARCHITECTURE}");
    let path = format!("{folder}/Packages.xz");
    let (sha256, size) =
        release.files.get(&path).with_context(|| format!("the release file lists no {path}"))?;
    let plain = format!("{base}/{path}");
    let hashed = format!("{base}/{folder}/by-hash/SHA256/{sha256}");
    let url = if release.by_hash { &hashed } else { &plain };
    let file = match cache.file("index", url, sha256, *size) {
        // Not every mirror keeps the by-hash folders that the release file promises.
        Err(error) if release.by_hash && is_not_found(&error) => {
            cache.file("index", &plain, sha256, *size)?
        }
        result => result?,
    };
    let compressed = std::fs::read(&file).with_context(|| format!("reading {file}"))?;
    let mut text = String::new();
    liblzma::read::XzDecoder::new_multi_decoder(compressed.as_slice())
        .take(INDEX_LIMIT)
        .read_to_string(&mut text)
        .with_context(|| format!("unpacking {url}"))?;
    Ok(text)
}

fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(HttpError::NotFound { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_archive_than_the_locks_is_told() {
        let locked = "2026-09-12T07:55:41Z";
        assert!(
            step_back("trixie", locked, 1_000_000_000).unwrap().contains("OLDER than the lock (2001-09-09")
        );
        assert_eq!(step_back("trixie", locked, 2_000_000_000), None);
    }
}
