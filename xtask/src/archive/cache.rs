//! The content-addressed store of downloaded files: `deb/ab/abcdef….deb`, `index/ab/abcdef…`; and
//! `unpacked/ab/abcdef….zst`, what is in that package (`deb::Deb`).
//!
//! A file is under its final name only when its hash was right. Unfinished files wait in `partial/`, locked by the
//! process that fills them, and are resumed by the next one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::checked::Checked;
use super::http::{Client, HttpError};
use super::lock_file::{LockFile, LockedPackage};
use super::mirrors::Mirrors;
use super::progress::Progress;
use super::repository::Repository;
use crate::deb::Deb;
use crate::scratch;

/// Files downloaded at once: enough to hide a mirror's latency on small packages.
const PARALLEL_DOWNLOADS: usize = 8;
/// The folders of downloaded files.
pub(crate) const DOWNLOADED: [&str; 4] = ["deb", "index", "partial", "release"];
/// Where packages' content is, decompressed.
pub(super) const UNPACKED: &str = "unpacked";

/// How packages may be had.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FetchOptions {
    /// Mirror of the Debian archive (default: that of the host's apt configuration)
    #[arg(long, env = "KONTOR_MIRROR", value_name = "URL")]
    pub mirror: Option<String>,
    /// Mirror of the Debian security archive
    #[arg(long, env = "KONTOR_MIRROR_SECURITY", value_name = "URL")]
    pub mirror_security: Option<String>,
    /// Take packages from this folder, made by `cargo xtask lock --archive`, before any mirror
    #[arg(long, env = "KONTOR_ARCHIVE", value_name = "DIR")]
    pub archive: Option<Utf8PathBuf>,
    /// Fail when the mirror no longer has a locked package, instead of re-locking it
    #[arg(long)]
    pub locked: bool,
    /// Use no network, only the cache and the archive; fail when something is missing
    #[arg(long)]
    pub offline: bool,
    /// Accept a release file past its date (a frozen mirror): security fixes may be missing
    #[arg(long)]
    pub ignore_valid_until: bool,
    /// No progress bars
    #[arg(long, short)]
    pub quiet: bool,
}

/// What was done about one package.
enum Outcome {
    /// In the cache, hash checked.
    Ready(Utf8PathBuf),
    /// The mirror no longer has it.
    Vanished(String),
}

/// The store, and the way to fill it.
#[derive(Debug)]
pub struct Cache {
    root: Utf8PathBuf,
    options: FetchOptions,
    client: Client,
    checked: Checked,
    /// Where apt's configuration is looked for.
    etc_apt: Utf8PathBuf,
}

impl Cache {
    /// Opens `KONTOR_CACHE`, else `~/.cache/kontor`.
    pub fn open(options: &FetchOptions) -> Result<Self> {
        Self::open_at(&default_root()?, options)
    }

    /// Opens the store in a directory, which is made if it is missing.
    pub fn open_at(root: &Utf8Path, options: &FetchOptions) -> Result<Self> {
        // Also when nothing turns out to be missing: a mistyped folder must not go unnoticed until then.
        if let Some(archive) = options.archive.as_ref().filter(|archive| !archive.as_str().is_empty()) {
            super::keep::opened(archive)?;
        }
        for folder in DOWNLOADED {
            let path = root.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("making the cache folder {path}"))?;
        }
        Ok(Cache {
            root: root.to_owned(),
            options: options.clone(),
            client: Client::new()?,
            checked: Checked::default(),
            etc_apt: "/etc/apt".into(),
        })
    }

    /// Replaces the HTTP client.
    pub fn with_client(self, client: Client) -> Self {
        Cache { client, ..self }
    }

    /// The HTTP client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How packages may be had.
    pub fn options(&self) -> &FetchOptions {
        &self.options
    }

    /// The mirrors in use.
    pub fn mirrors(&self) -> Result<Mirrors> {
        let options = &self.options;
        Mirrors::choose(options.mirror.as_deref(), options.mirror_security.as_deref(), &self.etc_apt)
    }

    /// Whether release files past their date count: said on the command line, or in the configuration of the host's apt.
    pub fn stale_is_fine(&self) -> bool {
        self.options.ignore_valid_until || super::mirrors::stale_is_fine(&self.etc_apt)
    }

    /// Where apt's configuration is looked for, instead of `/etc/apt`.
    pub fn with_apt_configuration(self, etc_apt: &Utf8Path) -> Self {
        Cache { etc_apt: etc_apt.to_owned(), ..self }
    }

    /// Makes every package of the named sets available. Packages that the mirror no longer has are locked anew: `lock`
    /// and its file change, and the change is printed. Call it once before [`Cache::fetch`].
    pub fn provide(&self, lock: &mut LockFile, sets: &[&str]) -> Result<()> {
        let packages: Vec<LockedPackage> = {
            let slices = sets.iter().map(|set| lock.set(set)).collect::<Result<Vec<_>>>()?;
            slices.concat()
        };
        let outcomes = self.outcomes(&packages.iter().collect::<Vec<_>>())?;
        let vanished: Vec<(&LockedPackage, &String)> = packages
            .iter()
            .zip(&outcomes)
            .filter_map(|(package, outcome)| match outcome {
                Outcome::Vanished(why) => Some((package, why)),
                Outcome::Ready(_) => None,
            })
            .collect();
        if vanished.is_empty() {
            return Ok(());
        }
        self.relock(lock, &vanished)?;
        let wanted: Vec<LockedPackage> = {
            let slices = sets.iter().map(|set| lock.set(set)).collect::<Result<Vec<_>>>()?;
            slices.concat()
        };
        self.fetch(&wanted.iter().collect::<Vec<_>>()).map(drop)
    }

    /// The files of these packages, in order: from the store, else from the mirror.
    pub fn fetch(&self, packages: &[&LockedPackage]) -> Result<Vec<Utf8PathBuf>> {
        let outcomes = self.outcomes(packages)?;
        outcomes
            .into_iter()
            .zip(packages)
            .map(|(outcome, package)| match outcome {
                Outcome::Ready(path) => Ok(path),
                Outcome::Vanished(why) => Err(anyhow!(why).context(format!(
                    "{} {} cannot be had; run `cargo xtask lock`",
                    package.name, package.version
                ))),
            })
            .collect()
    }

    /// As [`Cache::fetch`], for packages that more than one build reads: their content is kept decompressed.
    pub fn debs(&self, packages: &[&LockedPackage]) -> Result<Vec<Deb>> {
        let copy = |package: &LockedPackage| self.path_of(UNPACKED, &package.sha256, ".zst");
        let paths = self.fetch(packages)?.into_iter().zip(packages);
        Ok(paths.map(|(path, package)| Deb::new(path, copy(package))).collect())
    }

    /// For each of these packages, in order, its file or why it cannot be had. Other troubles are errors.
    pub(super) fn available(&self, packages: &[&LockedPackage]) -> Result<Vec<Result<Utf8PathBuf, String>>> {
        let outcomes = self.outcomes(packages)?.into_iter();
        Ok(outcomes
            .map(|outcome| match outcome {
                Outcome::Ready(path) => Ok(path),
                Outcome::Vanished(why) => Err(why),
            })
            .collect())
    }

    /// Where everything is kept.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// Where the verified release file of a suite that was made at `date` is kept, for archives.
    pub(super) fn release_path(&self, suite: &str, date: &str) -> Utf8PathBuf {
        self.root.join("release").join(format!("{suite}-{date}.asc"))
    }

    /// A file known by its hash from `url`, kept under `folder`.
    pub fn file(&self, folder: &str, url: &str, sha256: &str, size: u64) -> Result<Utf8PathBuf> {
        let path = self.path_of(folder, sha256, "");
        if !has(&path, sha256, size)? {
            self.download(url, sha256, size, &path, &|_| {})?;
        }
        Ok(path)
    }

    fn relock(&self, lock: &mut LockFile, vanished: &[(&LockedPackage, &String)]) -> Result<()> {
        let list = || vanished.iter().map(|(_, why)| format!("  {why}")).collect::<Vec<_>>().join("\n");
        if self.options.locked {
            bail!(
                "the mirror no longer has these locked packages:\n{}\n--locked forbids to lock them anew: run `cargo xtask lock`, \
                 review the change and commit rootfs/packages.lock",
                list()
            );
        }
        eprintln!("warning: the mirror no longer has these locked packages; locking them anew:\n{}", list());
        let repository = Repository::for_lock(lock.path())?;
        let sources: Vec<&str> = vanished.iter().map(|(package, _)| package.source.as_str()).collect();
        let before = lock.clone();
        repository.relock_sources(self, lock, &sources)?;
        for line in before.changes(lock) {
            eprintln!("warning: {}: {line}", lock.path());
        }
        lock.save()
    }

    fn outcomes(&self, packages: &[&LockedPackage]) -> Result<Vec<Outcome>> {
        let distinct: BTreeMap<&str, &LockedPackage> =
            packages.iter().map(|package| (package.sha256.as_str(), *package)).collect();
        let distinct: Vec<&LockedPackage> = distinct.into_values().collect();
        let ready = parallel(&distinct, num_cpus(), |package| self.has_package(package))?;
        let missing: Vec<&LockedPackage> =
            distinct.iter().zip(&ready).filter(|(_, ready)| !**ready).map(|(package, _)| *package).collect();
        let vanished = self.download_missing(&missing)?;
        Ok(packages
            .iter()
            .map(|package| match vanished.get(package.sha256.as_str()) {
                Some(why) => Outcome::Vanished(why.clone()),
                None => Outcome::Ready(self.package_path(package)),
            })
            .collect())
    }

    fn has_package(&self, package: &LockedPackage) -> Result<bool> {
        let path = self.package_path(package);
        if self.checked.knows(&path, &package.sha256) {
            return Ok(true);
        }
        let right = has(&path, &package.sha256, package.size)?;
        if right {
            self.checked.remember(&path, &package.sha256);
        }
        Ok(right)
    }

    fn download_missing(&self, missing: &[&LockedPackage]) -> Result<BTreeMap<String, String>> {
        let missing = &self.missing_in_archive(missing)?[..];
        if missing.is_empty() {
            return Ok(BTreeMap::new());
        }
        if self.options.offline {
            bail!("{}", self.offline_and_missing(missing));
        }
        let mirrors = self.mirrors()?;
        let total = missing.iter().map(|package| package.size).sum();
        let progress = Progress::new(self.options.quiet, missing.len(), total);
        let started = Instant::now();
        let results = parallel(missing, PARALLEL_DOWNLOADS, |package| {
            let url = format!("{}/{}", mirrors.for_suite(&package.suite), escape(&package.pool_path));
            let path = self.package_path(package);
            let result = progress.track(&package.name, |report| {
                self.download(&url, &package.sha256, package.size, &path, report)
            });
            match result {
                Ok(()) => Ok(None),
                Err(error) => match error.downcast_ref::<HttpError>() {
                    Some(HttpError::NotFound { .. }) => Ok(Some(error.to_string())),
                    _ => Err(error.context(format!("downloading {} {}", package.name, package.version))),
                },
            }
        })?;
        progress.finish("downloaded", started.elapsed());
        let vanished = missing.iter().zip(results);
        Ok(vanished.filter_map(|(package, why)| Some((package.sha256.clone(), why?))).collect())
    }

    /// Takes what the archive has; the rest. A damaged file of the archive is told, and counts as missing.
    fn missing_in_archive<'a>(&self, missing: &[&'a LockedPackage]) -> Result<Vec<&'a LockedPackage>> {
        let archive = self.options.archive.as_ref().filter(|archive| !archive.as_str().is_empty());
        let Some(archive) = archive.filter(|_| !missing.is_empty()) else { return Ok(missing.to_vec()) };
        let archive = super::keep::opened(archive)?;
        let mirrors = Mirrors::in_archive(&archive);
        let taken = parallel(missing, num_cpus(), |package| {
            let url = format!("{}/{}", mirrors.for_suite(&package.suite), escape(&package.pool_path));
            let path = self.package_path(package);
            match self.download(&url, &package.sha256, package.size, &path, &|_| {}) {
                Ok(()) => Ok(true),
                Err(error) => match error.downcast_ref::<HttpError>() {
                    Some(HttpError::NotFound { .. }) => Ok(false),
                    Some(HttpError::Local(_)) => Err(error),
                    _ => {
                        eprintln!("warning: the archive's copy is of no use: {error:#}");
                        Ok(false)
                    }
                },
            }
        })?;
        Ok(missing.iter().zip(taken).filter(|(_, taken)| !taken).map(|(package, _)| *package).collect())
    }

    fn offline_and_missing(&self, missing: &[&LockedPackage]) -> String {
        let line = |package: &&LockedPackage| {
            let LockedPackage { name, version, pool_path, .. } = package;
            let place = self.package_path(package);
            format!("  {name} {version}: {pool_path}\n    would be {place}")
        };
        let mut lines: Vec<String> = missing.iter().map(line).collect();
        lines.sort();
        format!(
            "--offline, but {} of the locked packages are not here:\n{}\nRun the same command once without --offline where \
             a mirror can be reached, or give --archive DIR with a folder made by `cargo xtask lock --archive DIR`",
            lines.len(),
            lines.join("\n")
        )
    }

    /// Downloads into `partial/`, checks the hash, and moves the file to `path`.
    fn download(
        &self,
        url: &str,
        sha256: &str,
        size: u64,
        path: &Utf8Path,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        if self.options.offline && !url.starts_with("file://") {
            bail!("--offline, but the cache {} lacks {url}", self.root);
        }
        let partial = self.root.join("partial").join(sha256);
        let Some(mut file) = lock_partial(&partial, path, sha256, size)? else { return Ok(()) };
        let resumed = file.metadata().with_context(|| format!("reading {partial}"))?.len() > 0;
        self.client.download(url, &mut file, size, report)?;
        let mut found = hash_file(&partial)?;
        if found != sha256 && resumed {
            // The kept part may be what was wrong.
            file.set_len(0).with_context(|| format!("emptying {partial}"))?;
            self.client.download(url, &mut file, size, report)?;
            found = hash_file(&partial)?;
        }
        if found != sha256 {
            fs::remove_file(&partial).with_context(|| format!("removing {partial}"))?;
            bail!("{url}: wrong content: SHA-256 is {found}, the signed index says {sha256}");
        }
        file.sync_data().map_err(HttpError::Local)?;
        let folder = path.parent().context("a cache path has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
        fs::rename(&partial, path).with_context(|| format!("moving {partial} to {path}"))?;
        scratch::settle_name(path)
    }

    fn package_path(&self, package: &LockedPackage) -> Utf8PathBuf {
        self.path_of("deb", &package.sha256, ".deb")
    }

    fn path_of(&self, folder: &str, sha256: &str, extension: &str) -> Utf8PathBuf {
        let (prefix, _) = sha256.split_at(2);
        self.root.join(folder).join(prefix).join(format!("{sha256}{extension}"))
    }
}

/// Where packages are kept: `KONTOR_CACHE`, else below `XDG_CACHE_HOME`, else `~/.cache/kontor`.
pub fn default_root() -> Result<Utf8PathBuf> {
    if let Some(path) = std::env::var("KONTOR_CACHE").ok().filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    if let Some(path) = std::env::var("XDG_CACHE_HOME").ok().filter(|path| path.starts_with('/')) {
        return Ok(Utf8PathBuf::from(path).join("kontor"));
    }
    // Without HOME, the account's.
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let home = home.context("no place for the cache: there is no home directory; set KONTOR_CACHE")?;
    Ok(Utf8PathBuf::try_from(home)?.join(".cache/kontor"))
}

/// Opens the partial file and waits for its lock. `None` when another process finished the file meanwhile.
fn lock_partial(partial: &Utf8Path, path: &Utf8Path, sha256: &str, size: u64) -> Result<Option<Flock<File>>> {
    loop {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(partial);
        let file = file.with_context(|| format!("opening {partial}"))?;
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| anyhow!(errno))
            .with_context(|| format!("locking {partial}"))?;
        // While we waited, the holder may have finished (renamed) or thrown away (unlinked) this very file.
        let inode = file.metadata().with_context(|| format!("reading {partial}"))?.ino();
        if fs::metadata(partial).is_ok_and(|now| now.ino() == inode) {
            if has(path, sha256, size)? {
                fs::remove_file(partial).with_context(|| format!("removing {partial}"))?;
                return Ok(None);
            }
            return Ok(Some(file));
        }
        if has(path, sha256, size)? {
            return Ok(None);
        }
    }
}

/// Whether `path` is there and right; a damaged file is removed, loudly.
fn has(path: &Utf8Path, sha256: &str, size: u64) -> Result<bool> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(false) };
    if metadata.len() == size && hash_file(path)? == sha256 {
        used(path, &metadata);
        return Ok(true);
    }
    eprintln!("warning: {path} is damaged: fetching it again");
    fs::remove_file(path).with_context(|| format!("removing {path}"))?;
    Ok(false)
}

/// Renews the time stamp by which unused files are found, once a day; a cache that cannot be written only ages.
pub(crate) fn used(path: &Utf8Path, metadata: &fs::Metadata) {
    let now = SystemTime::now();
    let fresh = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < Duration::from_secs(86_400));
    if !metadata.modified().is_ok_and(fresh) {
        let _ = File::open(path).and_then(|file| file.set_modified(now));
    }
}

/// SHA-256 of a file in lower-case hexadecimal.
pub fn hash_file(path: &Utf8Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {path}"))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).with_context(|| format!("reading {path}"))? {
            0 => return Ok(super::hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Pool paths may hold `+`, `~` and `%3a`; only what RFC 3986 forbids in a path is escaped.
pub fn escape(path: &str) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/+:@=,".contains(&byte);
    path.bytes().map(|b| if legal(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn num_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` on every item with so many threads; results in order. The first error stops handing out work.
pub(crate) fn parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<R>>>> = Mutex::new(items.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { return };
                    let result = work(item);
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    if let Ok(mut results) = results.lock() {
                        results[number] = Some(result);
                    }
                }
            });
        }
    });
    let results = results.into_inner().map_err(|_| anyhow!("a worker thread panicked"))?;
    let mut done = Vec::with_capacity(items.len());
    let mut skipped = false;
    for result in results {
        match result {
            Some(result) => done.push(result?),
            None => skipped = true,
        }
    }
    if skipped { bail!("stopped early") } else { Ok(done) }
}
