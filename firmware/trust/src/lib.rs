//! Trust: which metadata and documents of a repository are genuine and current, and why others are not.
//!
//! The rules are The Update Framework's; the crate `tough` checks signatures, versions and hashes, this one the clock and what
//! expires, the limits, what is remembered across power cuts, and the names. It opens no socket: a [`tough::Transport`] is an
//! argument, and so is the time. Nothing that comes from a repository panics, and nothing of it becomes a path.
//!
//! What a repository looks like: `metadata/` and `targets/` below one address, with consistent snapshots and without
//! delegations. Objects that releases name by hash are not fetched here.

use std::path::Path;
use std::sync::PoisonError;

use kontor_update::{Channel, Refusal, Release, Version, channel, release};
use tough::schema::{Role as _, Root, Signed};
use tough::{ExpirationEnforcement, Repository, RepositoryLoader, TargetName};

mod clock;
mod error;
mod files;
mod limits;
mod store;
mod transport;

pub use clock::{Clock, SLACK_S};
pub use error::{Role, TrustError};
pub use files::Files;
pub use limits::Limits;
pub use store::Store;
pub use tough;
pub use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
pub use transport::{Folder, is_plain};
pub use url::Url;

use crate::transport::Guard;

/// Metadata that has been checked: documents can be asked for now. It does not look at the clock again: whoever wants documents
/// tomorrow looks at the repository tomorrow.
#[derive(Debug)]
pub struct Trusted {
    repository: Repository,
    limits: Limits,
}

/// Looks at the repository at `base`, checks its metadata, and remembers what it has seen.
///
/// A transport says [`TransportErrorKind::FileNotFound`] only where a server says that a file is not there: after the last root
/// there must be none, and any other failure to get the next one is an error here. How long it may take is the caller's and the
/// transport's business.
///
/// # Errors
/// With the rule that stands against it. Roots that were verified before that are remembered all the same.
pub async fn refresh<T>(
    store: &mut Store,
    base: &Url,
    transport: T,
    clock: Clock,
    limits: Limits,
) -> Result<Trusted, TrustError>
where
    T: Transport + Clone + 'static,
{
    let at = clock.checked(store.time())?;
    let (metadata, targets) = (below(base, "metadata/")?, below(base, "targets/")?);
    let (guard, passed) = Guard::new(transport, metadata.clone(), limits);
    let scratch = store.scratch()?;
    let trusted_root = store.root().to_vec();
    // What expires is checked here, by a clock that is an argument, and before anything is remembered.
    let loader = RepositoryLoader::new(&trusted_root, metadata, targets)
        .transport(guard)
        .limits(limits.into())
        .datastore(scratch.path())
        .expiration_enforcement(ExpirationEnforcement::Unsafe);
    let loaded = loader.load().await;
    let reached = match &loaded {
        Ok(repository) => repository.root().signed.version.get(),
        Err(_) => reached(scratch.path()).unwrap_or_else(|| store.root_version()),
    };
    {
        let roots = passed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        store.keep_roots(&roots, reached)?;
    }
    let repository = match loaded.map_err(TrustError::from) {
        // The newer root, which is withheld, has other keys.
        Err(TrustError::Signature { .. }) if store.check_root().is_err() => return Err(rolled_back(store)),
        loaded => loaded?,
    };
    store.check_root()?;
    let trusted = Trusted { repository, limits };
    match trusted.expiries().into_iter().find(|(_, until)| *until < at) {
        Some((role, until)) => return Err(TrustError::Expired { role, until }),
        None => store.keep(&trusted.repository, at)?,
    }
    Ok(trusted)
}

/// The last root that tough has accepted before it failed.
fn reached(scratch: &Path) -> Option<u64> {
    let bytes = std::fs::read(scratch.join("root.json")).ok()?;
    let root: Signed<Root> = serde_json::from_slice(&bytes).ok()?;
    Some(root.signed.version.get())
}

fn rolled_back(store: &Store) -> TrustError {
    let seen = TrustError::Store("a root is missing".to_owned());
    store.check_root().err().unwrap_or(seen)
}

fn below(base: &Url, folder: &str) -> Result<Url, TrustError> {
    let text = base.as_str().trim_end_matches('/');
    Url::parse(&format!("{text}/{folder}"))
        .map_err(|error| TrustError::Fetch { what: base.to_string(), problem: error.to_string() })
}

impl Trusted {
    /// When which role's metadata expires, in seconds since 1970; in the order in which they are checked.
    #[must_use]
    pub fn expiries(&self) -> [(Role, u64); 4] {
        let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
        let repository = &self.repository;
        [
            (Role::Root, seconds(repository.root().signed.expires().as_second())),
            (Role::Timestamp, seconds(repository.timestamp().signed.expires().as_second())),
            (Role::Snapshot, seconds(repository.snapshot().signed.expires().as_second())),
            (Role::Targets, seconds(repository.targets().signed.expires().as_second())),
        ]
    }

    /// What expires first: whoever runs the repository must sign that role anew before.
    #[must_use]
    pub fn expires_at(&self) -> (Role, u64) {
        let [first, others @ ..] = self.expiries();
        others.into_iter().fold(first, |soonest, other| if other.1 < soonest.1 { other } else { soonest })
    }

    /// The version of each role's metadata.
    #[must_use]
    pub fn versions(&self) -> [(Role, u64); 4] {
        let repository = &self.repository;
        [
            (Role::Root, repository.root().signed.version.get()),
            (Role::Timestamp, repository.timestamp().signed.version.get()),
            (Role::Snapshot, repository.snapshot().signed.version.get()),
            (Role::Targets, repository.targets().signed.version.get()),
        ]
    }

    /// The names of all targets, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.repository.targets().signed.targets.keys().map(TargetName::raw).collect();
        names.sort_unstable();
        names
    }

    /// A target's bytes, of which there may be this many.
    ///
    /// # Errors
    /// With the rule that stands against it, or when it cannot be fetched.
    pub async fn target(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, TrustError> {
        let not_one = || TrustError::TargetName(name.chars().take(80).collect());
        if !name.split('/').all(is_plain) {
            return Err(not_one());
        }
        let target_name = TargetName::new(name).map_err(|_| not_one())?;
        let no_target = || TrustError::NoTarget(name.to_owned());
        let target = self.repository.targets().signed.targets.get(&target_name).ok_or_else(no_target)?;
        let limit = max_bytes.min(self.limits.target_bytes);
        if target.length > limit {
            return Err(TrustError::Length { what: name.to_owned(), limit });
        }
        let stream = self.repository.read_target(&target_name).await?.ok_or_else(no_target)?;
        Ok(tough::IntoVec::into_vec(stream).await?)
    }

    /// A channel.
    ///
    /// # Errors
    /// Those of [`Trusted::target`], or when it is no channel of that name.
    pub async fn channel(&self, name: &str) -> Result<Channel, TrustError> {
        if !release::is_name(name) {
            return Err(TrustError::TargetName(name.chars().take(80).collect()));
        }
        let target = Channel::target(name);
        let bytes = self.target(&target, channel::MAX_BYTES).await?;
        let document = |problem: String| TrustError::Document { name: target.clone(), problem };
        Channel::parse(name, &bytes).map_err(|error| document(error.to_string()))
    }

    /// A release's manifest. Whether a box may run it, [`kontor_update::accept`] decides.
    ///
    /// # Errors
    /// Those of [`Trusted::target`], or when it is no manifest, or another release's.
    pub async fn release(&self, product: &str, version: Version) -> Result<Release, TrustError> {
        if !release::is_name(product) {
            return Err(TrustError::TargetName(product.chars().take(80).collect()));
        }
        let target = Release::target(product, version);
        let bytes = self.target(&target, release::MAX_BYTES).await?;
        let document = |problem: String| TrustError::Document { name: target.clone(), problem };
        let release = Release::parse(&bytes).map_err(|error| document(error.to_string()))?;
        if release.product != product {
            return Err(TrustError::Refused(Refusal::Product(release.product.chars().take(40).collect())));
        }
        if release.version != version {
            return Err(TrustError::Refused(Refusal::OtherVersion(release.version)));
        }
        Ok(release)
    }
}
