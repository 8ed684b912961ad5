//! What a publisher does: publish a release to a channel, withdraw one, sign anew. A test can call it as the command does.
//!
//! Nothing is written before everything is known to be right; done twice, it changes nothing.

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8Path;
use kontor_update::channel::{Current, Wave, Withdrawn};
use kontor_update::{Channel, Release, Version, release::is_name};

use super::keys::Keys;
use super::objects;
use super::release::Folder;
use super::repository::{Outcome, Repository, verify};

/// Who gets a release, and when.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// The channel's name.
    pub channel: String,
    /// The waves; as they were when the release is current already, else all at once.
    pub waves: Option<Vec<Wave>>,
    /// When the first one begins; as it was, else now. In seconds since 1970.
    pub start_at: Option<u64>,
    /// Sign the targets alone: the keys of snapshot and timestamp are elsewhere.
    pub later: bool,
    /// Sign also what was signed by keys that have been replaced.
    pub vouch: bool,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { channel: "stable".to_owned(), waves: None, start_at: None, later: false, vouch: false }
    }
}

/// Publishes every product of a release.
///
/// # Errors
/// With the reason, before anything is written; or when the disk fails, and readers have the old state.
pub fn publish(to: &Utf8Path, keys: Keys, folder: &Folder, rollout: &Rollout, now: u64) -> Result<Outcome> {
    let mut repository = Repository::open(to, keys)?;
    repository.ensure_can_sign(now, rollout.later, rollout.vouch)?;
    let mut channel = channel(&repository, &rollout.channel)?;
    for release in &folder.releases {
        enter(&repository, &mut channel, release, rollout, now)?;
        repository.add_release(release)?;
    }
    repository.set_channel(&channel)?;
    repository.check_objects(true, Some(&folder.objects()))?;
    for object in folder.releases.iter().flat_map(Release::objects) {
        objects::transfer(object, &folder.objects(), &repository.objects())?;
    }
    finish(to, repository.commit(now, rollout.later)?, now)
}

/// Withdraws a release. Boxes that run it go back to the newest release before it; where there is none, nothing is current.
///
/// # Errors
/// As [`publish`].
pub fn withdraw(
    to: &Utf8Path,
    keys: Keys,
    rollout: &Rollout,
    (product, version): (&str, Version),
    reason: &str,
    now: u64,
) -> Result<(Outcome, Option<Version>)> {
    let mut repository = Repository::open(to, keys)?;
    repository.ensure_can_sign(now, rollout.later, rollout.vouch)?;
    let mut channel = channel(&repository, &rollout.channel)?;
    let releases = repository.releases()?;
    let known = |release: &&Release| release.product == product && release.version == version;
    ensure!(
        releases.iter().any(|release| known(&release)),
        "{product} {version} was never published in {to}"
    );
    if channel.is_withdrawn(product, version).is_none() {
        let (product, reason) = (product.to_owned(), reason.to_owned());
        channel.withdrawn.push(Withdrawn { product, version, reason });
    }
    if channel.current(product, version.major).is_some_and(|current| current.version == version) {
        channel.current.retain(|current| (current.product.as_str(), current.version) != (product, version));
        if let Some(before) = fallback(&releases, &channel, product, version) {
            let product = product.to_owned();
            channel.current.push(Current { product, version: before, start_at: now, waves: Vec::new() });
        }
    }
    let current = channel.current(product, version.major).map(|current| current.version);
    repository.set_channel(&channel)?;
    repository.check_objects(false, None)?;
    Ok((finish(to, repository.commit(now, rollout.later)?, now)?, current))
}

/// Signs snapshot and timestamp anew, as cron does; takes in targets that were signed elsewhere.
///
/// # Errors
/// As [`publish`].
pub fn refresh(to: &Utf8Path, keys: Keys, now: u64) -> Result<Outcome> {
    let repository = Repository::open(to, keys)?;
    repository.check_objects(false, None)?;
    finish(to, repository.refresh(now)?, now)
}

fn channel(repository: &Repository, name: &str) -> Result<Channel> {
    ensure!(is_name(name), "{name:?} is not a channel's name");
    Ok(repository.channel(name)?.unwrap_or_else(|| Channel::new(name)))
}

/// The newest release before a withdrawn one that boxes would take.
fn fallback(releases: &[Release], channel: &Channel, product: &str, withdrawn: Version) -> Option<Version> {
    let epoch = releases
        .iter()
        .find(|release| release.product == product && release.version == withdrawn)
        .map_or(0, |release| release.security_epoch);
    let fits = |release: &&Release| {
        release.product == product
            && release.version.major == withdrawn.major
            && release.version < withdrawn
            && release.security_epoch >= epoch
            && channel.is_withdrawn(product, release.version).is_none()
    };
    releases.iter().filter(fits).map(|release| release.version).max()
}

/// Makes a release what the channel's boxes of its major version should run.
fn enter(
    repository: &Repository,
    channel: &mut Channel,
    release: &Release,
    rollout: &Rollout,
    now: u64,
) -> Result<()> {
    let Release { product, version, security_epoch, .. } = release;
    if let Some(reason) = channel.is_withdrawn(product, *version) {
        bail!("{product} {version} is withdrawn ({reason}); release a new version");
    }
    let known = channel.current(product, version.major).cloned();
    if let Some(known) = &known {
        ensure!(
            known.version <= *version,
            "{product} {version} is lower than {}, which is current; `publish --withdraw` is the way back",
            known.version
        );
        let manifest = repository
            .releases()?
            .into_iter()
            .find(|other| other.product == *product && other.version == known.version)
            .with_context(|| format!("the manifest of {product} {} is missing", known.version))?;
        ensure!(
            manifest.security_epoch <= *security_epoch,
            "{product} {version} has security epoch {security_epoch}, {} has {}: no box would take it",
            known.version,
            manifest.security_epoch
        );
    }
    let known = known.filter(|known| known.version == *version);
    let start_at = rollout.start_at.or(known.as_ref().map(|known| known.start_at)).unwrap_or(now);
    let waves = rollout.waves.clone().or(known.map(|known| known.waves)).unwrap_or_default();
    let entry = Current { product: product.clone(), version: *version, start_at, waves };
    let same = |current: &&mut Current| current.product == *product && current.version.major == version.major;
    match channel.current.iter_mut().find(same) {
        Some(current) => *current = entry,
        None => channel.current.push(entry),
    }
    Ok(())
}

/// What was published must be what a box accepts.
fn finish(to: &Utf8Path, outcome: Outcome, now: u64) -> Result<Outcome> {
    if outcome == Outcome::Published {
        verify(to, now)?;
    }
    Ok(outcome)
}
