//! `cargo xtask bench build`: how long an image takes from cached packages when nothing is built yet, against tools
//! that make less of the same packages; and how long after one line of the firmware has changed.
//!
//! Our crates are compiled once, beforehand: the compiler's time is reported apart and is no part of a sample. Nor is
//! the unpacking of anybody's tools. See `docs/benchmarks.md` for what is compared with what.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use serde_json::json;

use self::peers::Peers;
use super::report::OURS;
use super::{Report, Subject, Summary};
use crate::archive::cache::{Cache, FetchOptions};
use crate::archive::lock_file::LockFile;
use crate::command::bench::Common;
use crate::component;
use crate::component::declaration::Declaration;
use crate::deb::Deb;
use crate::image::plan::BASE_SET;
use crate::image::{self, ImageOptions, firmware};
use crate::sbom::facts;
use crate::scratch;
use crate::workspace::Workspace;

mod peers;
mod repository;
pub mod room;

/// How the names of this benchmark's directories begin.
const SCRATCH: &str = ".bench-build-";
/// The series of images made after the program alone has changed.
const EDIT: &str = "edit";
/// Ours, with packages as they come from the mirror and nothing kept of what is in them.
const FIRST: &str = "ours-first";
/// The series of component images made after the declaration's run-time part alone has changed.
const COMPONENT_EDIT: &str = "component-edit";
/// The largest component.
const COMPONENT: &str = "samba";
/// What it may take, from the command to the sealed image.
const COMPONENT_EDIT_BUDGET_S: f64 = 3.0;
/// What a new image may take beyond the compile after one line has changed: `ratio.edit` is the median divided by this.
const EDIT_BUDGET_S: f64 = 3.0;
/// Peers, as they are called in the report.
const MMDEBSTRAP: &str = "mmdebstrap";
const MKOSI: &str = "mkosi";

/// Measures.
///
/// # Errors
/// When the firmware does not compile, something mmdebstrap needs is missing, or a subject fails.
pub fn run(common: &Common) -> Result<Report> {
    let workspace = Workspace::locate();
    let lock = LockFile::load(workspace.lock_file())?;
    let peers = Peers::prepare(&lock, &Cache::open(&common.fetch)?, &workspace)?;
    let began = Instant::now();
    let program = firmware::build(&workspace)?;
    let compile_s = began.elapsed().as_secs_f64();
    scratch::sweep(&workspace.target(), SCRATCH);
    let meter = Meter { folder: workspace.target(), cpu_s: RefCell::default() };
    let ours = Ours { program, fetch: common.fetch.clone() };
    let kept = meter.directory()?;
    let edited = utf8(kept.0.path())?;
    ours.build(edited, &ours.program)?;
    let mkosi = meter.sample("first try of mkosi", |directory| peers.mkosi(directory));
    ours.component(edited, None)?;
    let mut subjects = vec![
        Subject::new(OURS, |_| {
            facts::forget(&workspace.target())?;
            meter.sample(OURS, |directory| ours.build(directory, &ours.program))
        }),
        Subject::new(FIRST, |_| {
            facts::forget(&workspace.target())?;
            ours.forget_content(&lock)?;
            meter.sample(FIRST, |directory| ours.build(directory, &ours.program))
        }),
        Subject::new(MMDEBSTRAP, |_| meter.sample(MMDEBSTRAP, |directory| peers.mmdebstrap(directory))),
        Subject::new(EDIT, |round| {
            let program = ours.edited(edited, round)?;
            meter.sample(EDIT, |_| ours.build(edited, &program))
        }),
        Subject::new(COMPONENT_EDIT, |round| {
            meter.sample(COMPONENT_EDIT, |_| ours.component(edited, Some(round)))
        }),
    ];
    if mkosi.is_ok() {
        subjects.push(Subject::new(MKOSI, |_| meter.sample(MKOSI, |directory| peers.mkosi(directory))));
    }
    let mut samples = super::run(common.rounds, "s", subjects)?;
    let (first, edit) = (taken(&mut samples, FIRST)?, taken(&mut samples, EDIT)?);
    let component_edit = taken(&mut samples, COMPONENT_EDIT)?;
    let mut report = Report::new("build", "s", &samples)?;
    report.ratio.insert(EDIT.to_owned(), edit.median / EDIT_BUDGET_S);
    report.ratio.insert(COMPONENT_EDIT.to_owned(), component_edit.median / COMPONENT_EDIT_BUDGET_S);
    let peer = report.peers.get(MMDEBSTRAP).map(|peer| first.median / peer.median);
    let mut detail = |name: &str, value| report.detail.insert(name.to_owned(), value);
    detail("compile_s", compile_s.into());
    detail("cpu_s", meter.cpu());
    detail("edit_s", json!(edit));
    detail("edit_ratio_is", format!("edit_s.median / {EDIT_BUDGET_S} s, beyond the compile").into());
    detail("component_edit_s", json!(component_edit));
    detail(
        "component_edit_ratio_is",
        format!("component_edit_s.median / {COMPONENT_EDIT_BUDGET_S} s").into(),
    );
    detail("first_s", json!(first));
    detail("first_ratio_mmdebstrap", json!(peer));
    if let Err(error) = mkosi {
        detail("mkosi_cannot_run", format!("{error:#}").into());
    }
    Ok(report)
}

/// Takes out a series that is not a peer's.
fn taken(samples: &mut BTreeMap<String, Vec<f64>>, name: &str) -> Result<Summary> {
    let series = samples.remove(name).and_then(|series| Summary::of(&series));
    series.with_context(|| format!("no samples of {name}"))
}

/// Our own builder.
struct Ours {
    program: Utf8PathBuf,
    fetch: FetchOptions,
}

impl Ours {
    /// A disk image in `directory`, which keeps the results of the steps, too.
    fn build(&self, directory: &Utf8Path, program: &Utf8Path) -> Result<()> {
        let options = ImageOptions {
            output: Some(directory.join("disk.img")),
            steps: Some(directory.join("steps")),
            program: Some(program.to_owned()),
            // The peers build what the base is made of, and nothing else.
            components: false,
            fetch: self.fetch.clone(),
            ..ImageOptions::default()
        };
        image::build(&options).map(drop)
    }

    /// The component's image; after the first, with another run-time part in each round. Everything is done that
    /// `cargo xtask component build` does.
    fn component(&self, directory: &Utf8Path, round: Option<u32>) -> Result<()> {
        let edit = |declaration: &mut Declaration| {
            if let Some(round) = round {
                declaration.manifest_text += &format!("# round {round}\n");
            }
        };
        component::build_edited(COMPONENT, &self.fetch, directory.join("steps"), edit).map(drop)
    }

    /// As on a machine that has the packages, but has never looked into them.
    fn forget_content(&self, lock: &LockFile) -> Result<()> {
        let packages = lock.set(BASE_SET)?;
        let debs = Cache::open(&self.fetch)?.debs(&packages.iter().collect::<Vec<_>>())?;
        debs.iter().try_for_each(Deb::forget)
    }

    /// The program as another compile would have made it: the same but for some bytes. Nothing but the program
    /// depends on the firmware's sources, so what follows the compile is the same work.
    fn edited(&self, directory: &Utf8Path, round: u32) -> Result<Utf8PathBuf> {
        let mut bytes =
            std::fs::read(&self.program).with_context(|| format!("cannot read {}", self.program))?;
        bytes.extend_from_slice(format!("\nround {round}\n").as_bytes());
        let path = directory.join("kontor");
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {path}"))?;
        Ok(path)
    }
}

/// Gives each sample an empty directory, and takes its times.
struct Meter {
    folder: Utf8PathBuf,
    cpu_s: RefCell<BTreeMap<String, Vec<f64>>>,
}

impl Meter {
    fn directory(&self) -> Result<(tempfile::TempDir, scratch::Claim)> {
        scratch::directory(&self.folder, SCRATCH)
    }

    /// Wall time; CPU time is kept under the subject's name.
    fn sample(&self, subject: &str, work: impl FnOnce(&Utf8Path) -> Result<()>) -> Result<f64> {
        let (directory, _claim) = self.directory()?;
        let (cpu, began) = (cpu_s()?, Instant::now());
        work(utf8(directory.path())?)?;
        let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_s()? - cpu);
        self.cpu_s.borrow_mut().entry(subject.to_owned()).or_default().push(cpu);
        Ok(wall)
    }

    fn cpu(&self) -> serde_json::Value {
        let cpu_s = self.cpu_s.borrow();
        cpu_s.iter().map(|(name, series)| (name.clone(), json!(Summary::of(series)))).collect()
    }
}

/// CPU time of this process and of all its children so far.
fn cpu_s() -> Result<f64> {
    let seconds = |usage: Usage| {
        let (user, system) = (usage.user_time(), usage.system_time());
        (user.tv_sec() + system.tv_sec()) as f64 + (user.tv_usec() + system.tv_usec()) as f64 / 1e6
    };
    Ok(seconds(getrusage(UsageWho::RUSAGE_SELF)?) + seconds(getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

fn utf8(path: &std::path::Path) -> Result<&Utf8Path> {
    Utf8Path::from_path(path).context("the target folder's path is not UTF-8")
}
