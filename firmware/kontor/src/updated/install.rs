//! From fetched images to a restart: the child `install`, as root. It believes nothing of what was decided or fetched before.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use kontor_component::{SHIPPED_DIRECTORY, Shipped};
use kontor_migrate::TABLE;
use kontor_status::paths::{self, Paths};
use kontor_sys::verity;
use kontor_trust::Folder;
use kontor_update::journal::{Awaited, OnTrial};
use kontor_update::release::{Component, Image};
use kontor_update::{Choice, Release, Sha256Hex, Version, Wish, accept, choose};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::child::read_order;
use super::facts::{self, Running};
use super::places::{Places, ROOT, TRUST};
use super::slots::{self, OwnDisk};
use super::{observe, relief, store, transport};
use crate::ctl::control;
use crate::ctl::snapshot::Snapshot;
use crate::storage::{SYSTEM, Schema};

/// What is to be installed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct InstallOrder {
    /// A folder with metadata and targets.
    pub(super) repository: PathBuf,
    pub(super) work: PathBuf,
    pub(super) channel: String,
    pub(super) version: Version,
    /// Whether an operator has asked, and for which major version.
    pub(super) operator: bool,
    pub(super) major: Option<u32>,
}

impl InstallOrder {
    fn wish(&self) -> Wish {
        if self.operator { Wish::Operator { major: self.major } } else { Wish::Automatic }
    }
}

/// `install ORDER`.
pub(super) fn run(order: &Path) -> anyhow::Result<()> {
    let order: InstallOrder = read_order(order)?;
    let paths = Paths::default();
    let running = Running::find(&paths)?;
    let wish = order.wish();
    let Checked { choice, release, .. } = check(&order.repository, &order.channel, &running, wish)?;
    let release = release.context("nothing is to be installed")?;
    ensure!(choice == Choice::Take(order.version), "the channel has changed its mind: {choice:?}");
    let places = Places::new(&order.work);
    let before = before(&paths)?;
    let mut disk = OwnDisk::open()?;
    let schema = Schema::of(store::JOURNAL.as_ref()).context("the schema of the state")?.number();
    if !release.state_schema.contains(schema) {
        wait_for_schema(&mut disk, &release, order.major, schema)?;
        return control::ask(&paths.init_socket(), "reboot").context("cannot restart").map(drop);
    }
    for component in &release.components {
        place(component, &places)
            .and_then(|image| seal(&image, component, release.version))
            .with_context(|| format!("component {}", component.name))?;
    }
    let slot = &release.slot;
    let path = places.image(&slot.sha256);
    let mut image = open_image(&path)?;
    let target = disk
        .write_inactive(&mut image, slot.bytes, &slot.sha256)
        .inspect_err(|_| discard_if_wrong(&path, slot))?;
    remove_others(&release);
    let trial = OnTrial {
        version: release.version,
        from: running.facts.version,
        slot: target.letter().to_owned(),
        before,
        large: relief::large_files(paths::STATE.as_ref()),
        judged: false,
        verdict: None,
    };
    store::change(|journal| {
        journal.reads.insert(disk.booted.letter().to_owned(), TABLE.span());
        journal.reads.insert(target.letter().to_owned(), release.state_schema);
        journal.epochs.insert(disk.booted.letter().to_owned(), running.facts.security_epoch);
        journal.epochs.insert(target.letter().to_owned(), release.security_epoch);
        journal.begin(store::now(), trial);
    })?;
    disk.activate(target)?;
    drop(image);
    clear(&places);
    control::ask(&paths.init_socket(), "reboot").context("cannot restart")?;
    Ok(())
}

/// What is on `state` is brought to what the release reads at the next boot, before anybody uses it; then it is installed. What is in
/// the other slot may not read that, and would be written over anyway.
fn wait_for_schema(
    disk: &mut OwnDisk,
    release: &Release,
    major: Option<u32>,
    schema: u32,
) -> anyhow::Result<()> {
    let (version, reads) = (release.version, release.state_schema);
    if store::load()?.awaited.is_some_and(|awaited| awaited.version == version) {
        let reason = format!(
            "rule state schema: it reads schema {reads} of what this box keeps, which could not be brought there from {schema}"
        );
        store::change(|journal| {
            journal.awaited = None;
            journal.reject(store::now(), version, &reason);
        })?;
        bail!(reason);
    }
    disk.give_up_inactive()?;
    let awaited = Awaited { version, reads, major };
    store::change(|journal| journal.wait_for_schema(store::now(), awaited))
}

/// What a repository says.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) choice: Choice,
    /// The release that is to be taken, accepted.
    pub(super) release: Option<Release>,
    /// What of its metadata expires before long, for people.
    pub(super) warnings: Vec<String>,
}

/// What the repository in this folder says to do, and the release that is to be taken, accepted.
///
/// # Errors
/// With the rule that stands against it.
pub(super) fn check(
    repository: &Path,
    channel: &str,
    running: &Running,
    wish: Wish,
) -> anyhow::Result<Checked> {
    let folder = Folder::open(repository).with_context(|| repository.display().to_string())?;
    let root = fs::read(ROOT).context(ROOT)?;
    transport::runtime()?.block_on(async {
        let base = folder.base().clone();
        let trusted = transport::refresh(Path::new(TRUST), &root, &base, folder, running.built_at).await?;
        let channel = trusted.channel(channel).await?;
        let choice = choose(&running.facts, &channel, wish, store::now())?;
        let warnings = warnings(&trusted.expiries(), store::now());
        let Choice::Take(version) = choice else { return Ok(Checked { choice, release: None, warnings }) };
        let release = trusted.release(&running.facts.product, version).await?;
        accept(&running.facts, &release, version, wish)?;
        Ok(Checked { choice, release: Some(release), warnings })
    })
}

/// Of a server's daily duty a week is left, of what is signed by hand a month.
fn warnings(expiries: &[(kontor_trust::Role, u64)], now: u64) -> Vec<String> {
    const DAY: u64 = 86_400;
    let early =
        |role| if matches!(role, kontor_trust::Role::Root | kontor_trust::Role::Targets) { 30 } else { 7 };
    expiries
        .iter()
        .filter(|(role, until)| until.saturating_sub(now) < early(*role) * DAY)
        .map(|(role, until)| {
            let days = until.saturating_sub(now) / DAY;
            format!("the repository's {role} expires in {days} days: whoever publishes has to sign it anew")
        })
        .collect()
}

/// What works now: the new release will be held against it, and in any case against what makes a gateway.
fn before(paths: &Paths) -> anyhow::Result<kontor_update::Health> {
    let components: Vec<String> = shipped().into_iter().map(|shipped| shipped.manifest.name).collect();
    let snapshot = Snapshot::take(paths);
    ensure!(
        snapshot.init.is_some() && snapshot.net.is_some() && snapshot.storage.is_some(),
        "the box does not say what works now: a new release could not be judged"
    );
    let name = facts::own_name(paths);
    let seen = observe::look_with(&snapshot, &components, name.as_deref(), observe::ROOM_BYTES_BEFORE);
    let mut before = seen.now;
    for name in ["service netd", "service dhcpd", "service dnsd", "disk state"] {
        before.add(name);
    }
    Ok(before)
}

/// The components of the release that runs.
pub(super) fn shipped() -> Vec<Shipped> {
    Shipped::load_all(SHIPPED_DIRECTORY.as_ref()).0
}

pub(super) fn component_folder() -> PathBuf {
    Path::new(SYSTEM).join("component")
}

/// The component's image under its own name, checked; one that is there already is left alone.
fn place(component: &Component, places: &Places) -> anyhow::Result<PathBuf> {
    let folder = component_folder();
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let target = folder.join(format!("{}.erofs", component.verity));
    if is_there(&target, component)? {
        // Who put it there may have been stopped before its name was durable.
        File::open(&folder)?.sync_all().with_context(|| folder.display().to_string())?;
        return Ok(target);
    }
    let source = places.image(&component.image.sha256);
    let mut from = open_image(&source)?;
    // A file of root's own: whoever fetched the other one may still have it open.
    let fresh = folder.join(".new");
    let _ = fs::remove_file(&fresh);
    let mut to = File::create_new(&fresh).with_context(|| fresh.display().to_string())?;
    let found = slots::copy(&mut from, &mut to, component.image.bytes)
        .inspect_err(|_| discard_if_wrong(&source, &component.image))?;
    if found != component.image.sha256 {
        discard(&source);
        bail!("rule hash: the image is not what the release says");
    }
    to.sync_all()?;
    fs::rename(&fresh, &target).with_context(|| target.display().to_string())?;
    File::open(&folder)?.sync_all()?;
    Ok(target)
}

/// Seals the image, and compares the seal with the one by which the release will know it: whatever else is wrong shows on trial,
/// but an image that it would not take can be told before the box is restarted for nothing.
fn seal(path: &Path, component: &Component, version: Version) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let sealed = verity::seal(&file);
    let Some(found) = measured(&file).with_context(|| path.display().to_string())? else {
        return sealed.with_context(|| format!("cannot seal {}", path.display()));
    };
    if found == component.verity {
        return Ok(());
    }
    // What it was copied from had the hash that is signed. Does what has been sealed?
    let is_right =
        slots::hash(&mut &file, component.image.bytes).is_ok_and(|hash| hash == component.image.sha256);
    let _ = fs::remove_file(path);
    ensure!(is_right, "{} reads back other bytes than were written: replace the disk", path.display());
    let reason = format!("rule seal: its image is sealed by {found}, the release says {}", component.verity);
    let remembered = format!("component {}: {reason}", component.name);
    store::change(|journal| journal.reject(store::now(), version, &remembered))?;
    bail!(reason)
}

/// By what the kernel knows a sealed file.
fn measured(file: &File) -> std::io::Result<Option<Sha256Hex>> {
    Ok(verity::measure(file)?.map(|digest| Sha256Hex::from_bytes(&digest)))
}

/// An image as a child has left it: an ordinary file, or nothing.
fn open_image(path: &Path) -> anyhow::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    ensure!(file.metadata()?.is_file(), "{} is no file", path.display());
    Ok(file)
}

/// After an error, which may be that of the disk it was to be written to.
fn discard_if_wrong(path: &Path, image: &Image) {
    let found = open_image(path).and_then(|mut file| slots::hash(&mut file, image.bytes));
    if !found.is_ok_and(|found| found == image.sha256) {
        discard(path);
    }
}

/// One that is not what it should be is fetched anew.
fn discard(path: &Path) {
    let _ = fs::remove_file(path);
}

/// Sealed it is known by what the kernel measures; one that no component has used yet is read.
fn is_there(path: &Path, component: &Component) -> anyhow::Result<bool> {
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    if file.metadata()?.len() != component.image.bytes {
        return Ok(false);
    }
    if let Some(found) = measured(&file).with_context(|| path.display().to_string())? {
        return Ok(found == component.verity);
    }
    Ok(slots::hash(&mut file, component.image.bytes).is_ok_and(|found| found == component.image.sha256))
}

/// Images of neither the release that runs nor the new one: their slot has just been written over.
fn remove_others(release: &Release) {
    let ours = shipped().into_iter().map(|shipped| shipped.seal.verity);
    let theirs = release.components.iter().map(|component| component.verity.to_string());
    let kept: BTreeSet<String> = ours.chain(theirs).map(|digest| format!("{digest}.erofs")).collect();
    let folder = component_folder();
    let Ok(entries) = fs::read_dir(&folder) else { return };
    for entry in entries.flatten() {
        if !kept.contains(&*entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())
                .unwrap_or_else(|error| eprintln!("error: {}: {error}", entry.path().display()));
        }
    }
}

/// What was fetched is not needed any more; what cannot be removed is in nobody's way.
fn clear(places: &Places) {
    for folder in [places.images(), places.objects()] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use kontor_trust::Role;

    use super::*;

    #[test]
    fn what_expires_is_said_early() {
        const DAY: u64 = 86_400;
        let now = 1_795_824_000;
        let check = |role, days, expect: Option<&str>| {
            assert_eq!(warnings(&[(role, now + days * DAY)], now).first().map(String::as_str), expect);
        };
        check(Role::Timestamp, 8, None);
        let said = "the repository's timestamp expires in 6 days: whoever publishes has to sign it anew";
        check(Role::Timestamp, 6, Some(said));
        check(Role::Root, 31, None);
        assert!(!warnings(&[(Role::Root, now + 29 * DAY)], now).is_empty());
    }
}
