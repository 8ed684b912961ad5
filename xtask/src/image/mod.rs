//! The image: from locked packages, declarations and the firmware's program to one bootable disk image.
//!
//! [`build`] plans first and then does what the plan says; each step is keyed by the hash of its inputs. Nothing
//! here needs root or a tool of the host other than cargo.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::{BootState, PartitionKind};
use kontor_update::Version;

use self::budget::Measured;
use self::disk::Content;
use self::plan::Plan;
use self::release::{Builder, ReleaseFiles};
use self::step::{Key, Steps};
use crate::archive::cache::{Cache, FetchOptions};
use crate::archive::lock_file::LockFile;
use crate::archive::sets;
use crate::component::{self, Sealed};
use crate::publish::root;
use crate::sbom;
use crate::tools::Tools;
use crate::workspace::Workspace;

pub mod archive;
pub mod base;
pub mod budget;
pub mod contributors;
pub mod cpio;
pub mod declaration;
pub mod disk;
pub mod elf;
pub mod esp;
pub mod firmware;
pub mod glob;
pub mod grub;
pub mod initramfs;
pub mod kernel;
pub mod kernel_archive;
pub mod module_file;
pub mod modules;
pub mod plan;
pub mod process;
pub mod release;
pub mod seed;
pub mod slot;
pub mod step;
pub mod tree;

/// The result of the step that finds out what makes up the program.
const CONTRIBUTORS: &str = "contributors.json";

/// What to build.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// `images/NAME.toml`.
    pub product: String,
    /// The board whose ports a site file must fit; without one, that for any machine.
    pub board: Option<String>,
    /// A site file for the seed.
    pub site: Option<Utf8PathBuf>,
    /// Or its text.
    pub site_text: Option<String>,
    /// Where the image goes; by default `target/images/PRODUCT.img`.
    pub output: Option<Utf8PathBuf>,
    /// The firmware's program, if it is not to be compiled.
    pub program: Option<Utf8PathBuf>,
    /// Whether the product's components are part of it: to compare builders of the base, they are not.
    pub components: bool,
    /// Where the results of steps are kept; by default `target/images/steps`.
    pub steps: Option<Utf8PathBuf>,
    /// What the release is called; by default the workspace's version.
    pub version: Option<Version>,
    /// Its security epoch; by default the product's.
    pub security_epoch: Option<u32>,
    /// Where the root is whose releases the box will take; by default the checkout's development keys.
    pub keys: Option<Utf8PathBuf>,
    /// Another lock than the repository's: to compare releases.
    pub lock: Option<LockFile>,
    /// How packages may be had.
    pub fetch: FetchOptions,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            product: "branch".to_owned(),
            board: None,
            site: None,
            site_text: None,
            output: None,
            program: None,
            components: true,
            steps: None,
            version: None,
            security_epoch: None,
            keys: None,
            lock: None,
            fetch: FetchOptions::default(),
        }
    }
}

/// A finished image.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The disk image.
    pub path: Utf8PathBuf,
    /// The content of both slots.
    pub slot_image: Utf8PathBuf,
    /// What it calls itself.
    pub release: slot::Release,
    /// Its components' images.
    pub components: Vec<Sealed>,
    /// Of what it is made, as CycloneDX.
    pub sbom: Utf8PathBuf,
    /// Sizes and their limits.
    pub measured: Vec<Measured>,
    /// The tools it was made with; QEMU is among them.
    pub tools: Tools,
}

/// Reads declarations and lock, and plans; nothing is downloaded or written.
///
/// # Errors
/// When a file is missing or wrong.
pub fn plan(options: &ImageOptions) -> Result<Plan> {
    let workspace = Workspace::locate();
    Plan::new(options, &workspace, &checked_lock(&workspace)?)
}

/// Builds the disk image.
///
/// # Errors
/// When anything fails or a size is over its budget; there is then no new image, and an old one is as it was.
pub fn build(options: &ImageOptions) -> Result<BuiltImage> {
    let built = Build::prepare(options)?;
    let (files, sbom) = built.release(|| built.sbom().make(&built.steps))?;
    let measured = built.measured(&files, false)?;
    budget::check(&measured)?;
    let began = Instant::now();
    disk::write(&built.plan.output, &built.plan.table, &files.bios_boot()?, &built.contents(&files))?;
    built.steps.say(format_args!(
        "disk: done in {:.1} s: {}",
        began.elapsed().as_secs_f32(),
        built.plan.output
    ));
    sbom.copy_beside(&built.plan.output)?;
    Ok(BuiltImage {
        path: built.plan.output,
        slot_image: files.slot_image(),
        release: built.plan.release,
        components: files.components().to_vec(),
        sbom: sbom.document,
        measured,
        tools: built.tools,
    })
}

/// Builds what goes into a slot and measures it; no disk image.
///
/// # Errors
/// When a step fails. A size over its budget is not an error here.
pub fn measure(options: &ImageOptions) -> Result<Vec<Measured>> {
    let built = Build::prepare(options)?;
    let (files, ()) = built.release(|| Ok(()))?;
    built.measured(&files, true)
}

/// Builds what a release ships: the slot's image, and those of the components. No disk image.
///
/// # Errors
/// When a step fails.
pub fn shipped(options: &ImageOptions) -> Result<(Utf8PathBuf, Vec<Sealed>)> {
    let built = Build::prepare(options)?;
    let (files, ()) = built.release(|| Ok(()))?;
    Ok((files.slot_image(), files.components().to_vec()))
}

/// Makes the document that says what an image is made of; nothing is built.
///
/// # Errors
/// When a package cannot be had, or a part names no licence.
pub fn sbom(options: &ImageOptions) -> Result<sbom::Written> {
    let workspace = Workspace::locate();
    let lock = checked_lock(&workspace)?;
    let plan = Plan::new(options, &workspace, &lock)?;
    let steps = Steps::open(workspace.images().join("steps"))?;
    let cache = Cache::open(&options.fetch)?;
    sbom::Source { plan: &plan, lock: &lock, cache: &cache, workspace: &workspace }.make(&steps)
}

/// Everything a build needs before its first step.
struct Build {
    plan: Plan,
    lock: LockFile,
    steps: Steps,
    tools: Tools,
    cache: Cache,
    workspace: Workspace,
    program: Option<Utf8PathBuf>,
}

impl Build {
    fn prepare(options: &ImageOptions) -> Result<Self> {
        let workspace = Workspace::locate();
        if options.keys.is_none() {
            root::development(&workspace)?;
        }
        let mut lock = options.lock.clone().map_or_else(|| checked_lock(&workspace), Ok)?;
        // Mistakes first: a plan costs nothing, a download may.
        let plan = Plan::new(options, &workspace, &lock)?;
        let steps = Steps::open(options.steps.clone().unwrap_or_else(|| workspace.images().join("steps")))?;
        let cache = Cache::open(&options.fetch)?;
        cache.provide(&mut lock, &plan.sets())?;
        let tools = Tools::prepare(&lock, &cache, workspace.target())?;
        steps.say("packages and tools: ready");
        // The lock may have changed with what the mirror has.
        let plan = Plan::new(options, &workspace, &lock)?;
        Ok(Self { plan, lock, steps, tools, cache, workspace, program: options.program.clone() })
    }

    fn sbom(&self) -> sbom::Source<'_> {
        sbom::Source { plan: &self.plan, lock: &self.lock, cache: &self.cache, workspace: &self.workspace }
    }

    /// Compiles the program while everything that does not need it is made, and does `aside`.
    ///
    /// Packages are read first, by all processors: everything else waits for them. What follows, until the disk, is one
    /// process after the other; beside that there is time for the boot files and for `aside`.
    fn release<T: Send>(&self, aside: impl FnOnce() -> Result<T> + Send) -> Result<(ReleaseFiles, T)> {
        std::thread::scope(|scope| {
            let program = scope.spawn(|| self.compiled());
            let components = self.components()?;
            let program = || program.join().map_err(|_| anyhow!("compiling the firmware panicked"))?;
            self.assemble(&components, program, aside)
        })
    }

    fn components(&self) -> Result<Vec<Sealed>> {
        let Self { plan, steps, tools, cache, .. } = self;
        let (target, epoch_s) = (self.workspace.target(), plan.release.epoch_s);
        let builder = component::Builder { steps, tools, cache, target: &target, epoch_s };
        plan.components.iter().map(|source| builder.image(source)).collect()
    }

    /// Everything but the components; `program` waits for the compile.
    fn assemble<T: Send>(
        &self,
        components: &[Sealed],
        program: impl FnOnce() -> Result<Utf8PathBuf>,
        aside: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(ReleaseFiles, T)> {
        let Self { plan, steps, tools, cache, .. } = self;
        let target = self.workspace.target();
        let builder = Builder { plan, steps, tools, cache, target: &target, components };
        std::thread::scope(|scope| {
            let sources = builder.sources()?;
            let boot = scope.spawn(|| builder.boot_files());
            let aside = scope.spawn(aside);
            let base = builder.base(sources);
            let program = program()?;
            let boot = boot.join().map_err(|_| anyhow!("making the boot files panicked"))??;
            let files = builder.release(program, base?, boot)?;
            Ok((files, aside.join().map_err(|_| anyhow!("making the SBOM panicked"))??))
        })
    }

    fn compiled(&self) -> Result<Utf8PathBuf> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        let began = Instant::now();
        let program = firmware::build(&self.workspace)?;
        self.steps.say(format_args!("kontor: compiled in {:.1} s", began.elapsed().as_secs_f32()));
        Ok(program)
    }

    fn measured(&self, files: &ReleaseFiles, all: bool) -> Result<Vec<Measured>> {
        files.measured(&self.plan.product, all, |program| self.contributors(program))
    }

    /// What makes up the program.
    fn contributors(&self, program: &Utf8Path) -> Result<Vec<(String, u64)>> {
        let shipped = std::fs::read(program).with_context(|| format!("cannot read {program}"))?;
        let key = Key::new("contributors", 1).with(&shipped);
        let found = self.steps.result("contributors", &key, |out| {
            let parts = contributors::of(&self.with_symbols(out).unwrap_or_else(|error| {
                self.steps.say(format_args!("kontor: no symbols, only sections: {error:#}"));
                shipped.clone()
            }));
            Ok(std::fs::write(out.join(CONTRIBUTORS), serde_json::to_vec(&parts)?)?)
        })?;
        let path = found.join(CONTRIBUTORS);
        let text = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        serde_json::from_slice(&text).with_context(|| format!("in {path}"))
    }

    fn with_symbols(&self, out: &Utf8Path) -> Result<Vec<u8>> {
        if let Some(program) = &self.program {
            bail!("{program} was not compiled here");
        }
        let path = out.join("kontor");
        firmware::link_with_symbols(&self.workspace, &path)?;
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {path}"))?;
        Ok(bytes)
    }

    fn contents(&self, files: &ReleaseFiles) -> Vec<(PartitionKind, Content)> {
        let mut contents = vec![
            (PartitionKind::Esp, Content::File(files.esp_image())),
            (PartitionKind::BootState, Content::Bytes(kontor_boot::frame::bootstate(&BootState::fresh()))),
            (PartitionKind::SlotA, Content::File(files.slot_image())),
            (PartitionKind::SlotB, Content::File(files.slot_image())),
            (PartitionKind::System, Content::File(files.system_image())),
        ];
        if let Some(seed) = &self.plan.seed {
            contents.push((PartitionKind::Seed, Content::Bytes(seed.clone())));
        }
        contents
    }
}

/// The lock, which must be that of the declared sets.
///
/// # Errors
/// When it cannot be read or was made for others.
pub(crate) fn checked_lock(workspace: &Workspace) -> Result<LockFile> {
    let lock = LockFile::load(workspace.lock_file())?;
    lock.check_requests(&sets::load(&workspace.root().join("rootfs"))?)?;
    Ok(lock)
}
