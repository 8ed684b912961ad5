//! `cargo xtask bench delta`: what an update fetches, of real package history, ours and other techniques on the same images.
//!
//! New is the release of the repository's lock; old the same with the versions that the mirror still has beside the locked
//! ones. Both are built by the builder's own steps. Octets do not depend on the machine; rounds are for the time of
//! applying. See `docs/benchmarks.md` for what is counted.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_delta::patch;
use kontor_delta::plan::Allowance;
use serde_json::{Value, json};

use self::history::Older;
use self::ours::Published;
use super::ours::dump;
use super::{LEAST_ROUNDS, Report, Summary};
use crate::archive::cache::{Cache, FetchOptions};
use crate::archive::index::Index;
use crate::archive::lock_file::LockFile;
use crate::archive::repository::Repository;
use crate::command::bench::Common;
use crate::component::Sealed;
use crate::image::{self, ImageOptions, checked_lock, firmware, process};
use crate::scratch;
use crate::tools::Tools;
use crate::workspace::Workspace;

mod history;
mod ours;
mod payload;
mod techniques;

const SCRATCH: &str = ".bench-delta-";
const COMPONENT: &str = "samba";
/// What is compared: the pair's name, and what was older before.
const PAIRS: [(&str, Older<'static>); 5] = [
    ("samba", Older::Source("samba")),
    ("openssl", Older::Source("openssl")),
    ("krb5", Older::Source("krb5")),
    ("kernel", Older::Kernel),
    ("monthly", Older::All),
];
/// The security fix by which ours is judged: the largest there is, a rebuild of all of Samba.
const SECURITY_FIX: &str = "samba";
const KERNEL: &str = "kernel";

/// What a release ships, in memory.
struct Shipped {
    slot: Vec<u8>,
    /// The file in the slot.
    kernel: Vec<u8>,
    component: Vec<u8>,
    sealed: Sealed,
}

/// Measures.
///
/// # Errors
/// When the mirror has no older versions, a package cannot be had, or an image that was put together is not the new one.
pub fn run(common: &Common) -> Result<Report> {
    ensure!(common.rounds >= LEAST_ROUNDS, "at least {LEAST_ROUNDS} rounds");
    let workspace = Workspace::locate();
    scratch::sweep(&workspace.target(), SCRATCH);
    let (folder, _claim) = scratch::directory(&workspace.target(), SCRATCH)?;
    let folder = Utf8Path::from_path(folder.path()).context("the target folder's path is not UTF-8")?;
    let rig = Rig::prepare(&workspace, folder, common)?;
    let new = rig.ship(&rig.lock, folder)?;
    eprintln!("publishing the new release");
    let tree = rig.unpacked(&new.sealed, &folder.join("new"))?;
    let published = publish(new.slot, new.component)?;
    let (mut pairs, mut decompressed_kernel) = (BTreeMap::new(), Value::Null);
    for (name, older) in PAIRS {
        let (lock, changes) =
            history::older(&rig.lock, &rig.index, older, COMPONENT, &folder.join("packages.lock"))?;
        eprintln!("{name}: {} packages differ", changes.len());
        let old = rig.ship(&lock, folder)?;
        let is_fix = matches!(older, Older::Source(_));
        let mut pair = Pair::measure(&published, &old, common.rounds, is_fix)?;
        if is_fix {
            let root = folder.join(name);
            pair.per_file = Some(techniques::per_file(&rig.unpacked(&old.sealed, &root)?, &tree)?);
            std::fs::remove_dir_all(&root).with_context(|| format!("cannot remove {root}"))?;
        }
        if older == Older::Kernel {
            decompressed_kernel = decompressed(&old.kernel, &new.kernel)?;
        }
        pair.changes = changes;
        eprintln!("{name}: {}", pair.json());
        pairs.insert(name, pair);
    }
    let mut report = report(&published, &pairs)?;
    report.detail.insert("decompressed_kernel".to_owned(), decompressed_kernel);
    Ok(report)
}

/// What would be fetched of the kernel alone, did it lie decompressed at rest.
fn decompressed(old: &[u8], new: &[u8]) -> Result<Value> {
    let [old_payload, new_payload] = [payload::decompressed(old)?, payload::decompressed(new)?];
    let patch = patch::make(&old_payload, &new_payload, patch::Options::default())?;
    Ok(json!({ "vmlinuz": new.len(), "decompressed": new_payload.len(), "patch": patch.len() }))
}

/// Both images at once: a stream is made by one processor.
fn publish(slot: Vec<u8>, component: Vec<u8>) -> Result<[Published; 2]> {
    std::thread::scope(|scope| {
        let slot = scope.spawn(|| Published::new(slot));
        let component = Published::new(component)?;
        let slot = slot.join().map_err(|_| anyhow!("publishing the slot panicked"))??;
        Ok([slot, component])
    })
}

/// Everything the releases are built with.
struct Rig {
    lock: LockFile,
    index: Index,
    tools: Tools,
    program: Utf8PathBuf,
    fetch: FetchOptions,
}

impl Rig {
    fn prepare(workspace: &Workspace, folder: &Utf8Path, common: &Common) -> Result<Self> {
        let mut lock = checked_lock(workspace)?;
        let cache = Cache::open(&common.fetch)?;
        let index = Repository::for_lock(lock.path())?.archive(&cache, Some(&lock))?.index;
        cache.provide(&mut lock, &[image::plan::BASE_SET, image::plan::TOOLS_SET, COMPONENT])?;
        let tools = Tools::prepare(&lock, &cache, workspace.target())?;
        // From here on nothing may lock anything anew.
        let lock = LockFile::parse(&folder.join("packages.lock"), &lock.to_text()?)?;
        let fetch = FetchOptions { locked: true, ..common.fetch.clone() };
        Ok(Self { lock, index, tools, program: firmware::build(workspace)?, fetch })
    }

    fn ship(&self, lock: &LockFile, folder: &Utf8Path) -> Result<Shipped> {
        let options = ImageOptions {
            lock: Some(lock.clone()),
            steps: Some(folder.join("steps")),
            program: Some(self.program.clone()),
            fetch: self.fetch.clone(),
            ..ImageOptions::default()
        };
        let (slot, components) = image::shipped(&options)?;
        let sealed = components.into_iter().find(|sealed| sealed.name == COMPONENT);
        let sealed = sealed.with_context(|| format!("the product has no component {COMPONENT}"))?;
        let read = |path: &Utf8Path| std::fs::read(path).with_context(|| format!("cannot read {path}"));
        let kernel = folder.join("vmlinuz");
        dump(&self.tools, &slot, "vmlinuz", &kernel)?;
        Ok(Shipped { slot: read(&slot)?, kernel: read(&kernel)?, component: read(&sealed.path)?, sealed })
    }

    fn unpacked(&self, sealed: &Sealed, root: &Utf8Path) -> Result<Utf8PathBuf> {
        let mut command = self.tools.command("fsck.erofs")?;
        command.arg(format!("--extract={root}")).arg(&sealed.path);
        process::run(command)?;
        Ok(root.to_owned())
    }
}

/// Octets of one update, by technique; only images that have changed count.
#[derive(Default)]
struct Pair {
    changes: Vec<String>,
    full: u64,
    ours: u64,
    chunks: u64,
    ways: Vec<&'static str>,
    rauc4k: u64,
    casync16k: u64,
    zsync: u64,
    patch_from: u64,
    /// Of the component's files; the slot, whose files are two, is counted as its whole patch.
    per_file: Option<u64>,
    slot: u64,
    slot_patch_from: u64,
    apply_s: Vec<f64>,
}

impl Pair {
    /// The patch of the whole image takes longest, and is made for fixes alone.
    fn measure(published: &[Published; 2], old: &Shipped, rounds: u32, is_fix: bool) -> Result<Self> {
        let mut pair = Self { apply_s: vec![0.0; rounds as usize], ..Self::default() };
        let olds = [&old.slot, &old.component];
        for (number, new) in published.iter().enumerate().filter(|(number, new)| new.image != *olds[*number])
        {
            let old = olds[number];
            let patch = ours::publish_patch(new, old)?;
            for round in 0..rounds as usize {
                let have = [old.as_slice(), olds[1 - number]];
                let fetched = ours::fetch(new, &have, Some(&patch), &mut Allowance::default())?;
                pair.apply_s[round] += fetched.apply_s;
                if round == 0 {
                    pair.ours += fetched.bytes;
                    pair.chunks += fetched.chunks;
                    pair.ways.push(fetched.way);
                    pair.slot += if number == 0 { fetched.bytes } else { 0 };
                }
            }
            pair.full += new.full.len() as u64;
            pair.rauc4k += techniques::rauc4k(old, &new.image)?;
            pair.casync16k += techniques::casync16k(old, &new.image)?;
            pair.zsync += techniques::zsync(old, &new.image)?;
            let patch_from = if is_fix { techniques::patch_from(old, &new.image)? } else { 0 };
            pair.patch_from += patch_from;
            pair.slot_patch_from += if number == 0 { patch_from } else { 0 };
        }
        Ok(pair)
    }

    /// Each file by itself: those of the component, and the slot as one.
    fn per_file_with_slot(&self) -> Option<u64> {
        self.per_file.map(|per_file| per_file + self.slot_patch_from)
    }

    fn json(&self) -> Value {
        json!({
            "changes": self.changes, "full": self.full, "ours": self.ours, "chunks": self.chunks, "ways": self.ways,
            "rauc4k": self.rauc4k, "casync16k": self.casync16k, "zsync": self.zsync, "patch_from": self.per_file.map(|_| self.patch_from),
            "per_file": self.per_file_with_slot(), "slot": self.slot, "of_full": self.ours as f64 / self.full as f64,
            "apply_s": Summary::of(&self.apply_s),
        })
    }
}

fn report(published: &[Published; 2], pairs: &BTreeMap<&str, Pair>) -> Result<Report> {
    let fix = pairs.get(SECURITY_FIX).context("no pair with a security fix")?;
    let series = |bytes: u64| Summary { min: bytes as f64, median: bytes as f64, max: bytes as f64 };
    let per_file = fix.per_file_with_slot().context("no differences by the file")?;
    let peers = [
        ("full", fix.full),
        ("per_file_diff", per_file),
        ("rauc4k", fix.rauc4k),
        ("casync16k", fix.casync16k),
        ("zsync", fix.zsync),
        ("patch_from", fix.patch_from),
    ];
    let ratio = |ours: u64, peer: u64| ours as f64 / peer as f64;
    let mut ratios: BTreeMap<String, f64> =
        peers.iter().map(|(name, peer)| ((*name).to_owned(), ratio(fix.ours, *peer))).collect();
    ratios.remove("full");
    ratios.insert("full_security_fix".to_owned(), ratio(fix.ours, fix.full));
    let kernel = pairs.get(KERNEL).context("no pair with another kernel")?;
    ratios.insert("full_kernel".to_owned(), ratio(kernel.ours, kernel.full));
    // Everything changed: a box that has nothing of it.
    let full: u64 = published.iter().map(|one| one.full.len() as u64).sum();
    let mut allowance = Allowance::default();
    let nothing: Vec<ours::Fetched> =
        published.iter().map(|one| ours::fetch(one, &[], None, &mut allowance)).collect::<Result<_>>()?;
    let all: u64 = nothing.iter().map(|fetched| fetched.bytes).sum();
    ratios.insert("full_all".to_owned(), ratio(all, full));
    let mut detail: BTreeMap<String, Value> =
        pairs.iter().map(|(name, pair)| (format!("pair_{name}"), pair.json())).collect();
    for (name, one) in ["slot", "component"].into_iter().zip(published) {
        let figures = json!({
            "image": one.image.len(), "full": one.full.len(), "index": one.index.len(),
            "index_of_full": ratio(one.index.len() as u64, one.full.len() as u64),
        });
        detail.insert(format!("image_{name}"), figures);
    }
    detail.insert("all_bytes".to_owned(), json!(all));
    detail.insert("all_beyond_full".to_owned(), json!(all as i64 - full as i64));
    detail.insert("security_fix_is".to_owned(), json!(SECURITY_FIX));
    Ok(Report {
        bench: "delta".to_owned(),
        unit: "bytes".to_owned(),
        ours: series(fix.ours),
        peers: peers.into_iter().map(|(name, bytes)| (name.to_owned(), series(bytes))).collect(),
        ratio: ratios,
        detail,
    })
}
