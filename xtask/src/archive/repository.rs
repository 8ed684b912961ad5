//! The archive as a whole: verified release files and indices of every suite, and what locks are made from.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::cache::Cache;
use super::consistency::{self, Misfit};
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

/// A signed release file and the indexes it vouches for.
#[derive(Debug)]
pub struct Evidence {
    /// The text of `InRelease`.
    pub release: String,
    /// When it was made (ISO 8601).
    pub date: String,
    /// Path below the suite's folder, and the file in the cache.
    pub indexes: Vec<(String, Utf8PathBuf)>,
    /// SHA-256 of every package that the indexes name.
    pub vouched: HashSet<String>,
}

fn gathered(cache: &Cache, base: &str, text: String, release: &Release) -> Result<Evidence> {
    let mut evidence = Evidence {
        release: text,
        date: format_date(release.made_at),
        indexes: Vec::new(),
        vouched: HashSet::new(),
    };
    for component in COMPONENTS {
        let (file, path) = index_file(cache, base, release, component)?;
        let hashes = unpacked(&file)?;
        evidence
            .vouched
            .extend(hashes.lines().filter_map(|line| line.strip_prefix("SHA256: ")).map(str::to_owned));
        evidence.indexes.push((path, file));
    }
    Ok(evidence)
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
        let kept = cache.release_path(suite, &format_date(release.made_at));
        std::fs::write(&kept, &text).with_context(|| format!("writing {kept}"))?;
        if release.valid_until.is_some_and(|end| end < now) {
            eprintln!("warning: the release file of {suite} is past its date: security fixes may be missing");
        }
        Ok(release)
    }

    /// What proves the packages of a suite: the release file made at `date` if it can still be had, else the mirror's
    /// present one, and the indexes that it vouches for.
    pub fn evidence(&self, cache: &Cache, suite: &str, date: &str) -> Result<Evidence> {
        let mirrors = cache.mirrors()?;
        let base = format!("{}/dists/{suite}", mirrors.for_suite(suite));
        let kept = cache.release_path(suite, date);
        if let Ok(text) = std::fs::read_to_string(&kept)
            && let Ok(release) = Release::verify(&text, &self.keys)
            && let Ok(evidence) = gathered(cache, &base, text, &release)
        {
            return Ok(evidence);
        }
        let release = self.release(cache, &base, suite)?;
        let text = std::fs::read_to_string(cache.release_path(suite, &format_date(release.made_at)))?;
        gathered(cache, &base, text, &release)
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

    /// [`Repository::relock_sources`] from an archive state at hand. What stays must fit what is new: where it does not, its
    /// sources are renewed, too.
    pub fn relock_from(&self, archive: &Archive, lock: &mut LockFile, sources: &[&str]) -> Result<()> {
        let mut sources: BTreeSet<String> = sources.iter().map(|source| (*source).to_owned()).collect();
        loop {
            let mut renewed = lock.clone();
            let misfits = self.relock_once(archive, &mut renewed, &sources)?;
            let Some(first) = misfits.first() else {
                *lock = renewed;
                return Ok(());
            };
            let before = sources.len();
            sources.extend(misfits.iter().flat_map(|misfit| misfit.sources.clone()));
            ensure!(
                sources.len() > before,
                "the packages asked for do not fit those that stay: {}; run `cargo xtask lock` without --package",
                first.why
            );
            eprintln!("note: {}: renewing that, too", first.why);
        }
    }

    /// Renews these sources in every set that has them; what does not fit then.
    fn relock_once(
        &self,
        archive: &Archive,
        lock: &mut LockFile,
        sources: &BTreeSet<String>,
    ) -> Result<Vec<Misfit>> {
        let names: Vec<String> = lock.sets().map(|(name, _)| name.to_owned()).collect();
        let mut misfits = Vec::new();
        for name in names {
            let old = lock.set(&name)?;
            if !old.iter().any(|package| sources.contains(&package.source)) {
                continue;
            }
            let Some(declaration) = self.declared.get(&name) else {
                bail!("the lock has a set {name:?} that nothing declares: run `cargo xtask lock`")
            };
            let current = resolve(&archive.index, &name, declaration)?;
            let mut mixed: Vec<LockedPackage> =
                old.iter().filter(|package| !sources.contains(&package.source)).cloned().collect();
            let kept: HashSet<String> = mixed.iter().map(|package| package.name.clone()).collect();
            mixed.extend(current.into_iter().filter(|package| !kept.contains(&package.name)));
            misfits.extend(misfits_of(&archive.index, declaration, &mixed)?);
            lock.replace(&name, mixed);
        }
        Ok(misfits)
    }
}

/// What does not fit in a set; packages that are taken without their dependencies do not count.
fn misfits_of(index: &Index, declaration: &Declaration, set: &[LockedPackage]) -> Result<Vec<Misfit>> {
    let names: Vec<&str> = declaration.closure.iter().map(String::as_str).collect();
    let excluded: HashSet<&str> = declaration.exclude.iter().map(String::as_str).collect();
    let closure = resolver::resolve(index, &names, &excluded)?;
    let closure: HashSet<String> =
        closure.into_iter().map(|number| index.package(number).name.clone()).collect();
    consistency::misfits(index, set, &closure, &excluded)
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
    unpacked(&index_file(cache, base, release, component)?.0)
}

/// The compressed index of a component, verified, and its path below the suite's folder.
fn index_file(
    cache: &Cache,
    base: &str,
    release: &Release,
    component: &str,
) -> Result<(Utf8PathBuf, String)> {
    let folder = format!("{component}/binary-{ARCHITECTURE}");
    let path = format!("{folder}/Packages.xz");
    let (sha256, size) =
        release.files.get(&path).with_context(|| format!("the release file lists no {path}"))?;
    let hashed = format!("{folder}/by-hash/SHA256/{sha256}");
    if release.by_hash {
        match cache.file("index", &format!("{base}/{hashed}"), sha256, *size) {
            // Not every mirror keeps the by-hash folders that the release file promises.
            Err(error) if is_not_found(&error) => {}
            result => return Ok((result?, hashed)),
        }
    }
    Ok((cache.file("index", &format!("{base}/{path}"), sha256, *size)?, path))
}

fn unpacked(file: &Utf8Path) -> Result<String> {
    let compressed = std::fs::read(file).with_context(|| format!("reading {file}"))?;
    let mut text = String::new();
    liblzma::read::XzDecoder::new_multi_decoder(compressed.as_slice())
        .take(INDEX_LIMIT + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("unpacking {file}"))?;
    ensure!(text.len() as u64 <= INDEX_LIMIT, "{file} unpacks to more than {INDEX_LIMIT} bytes");
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
