//! Component images: from locked packages and a declaration to one sealed EROFS file.
//!
//! Made like the base's root (`image::base`), with the run-time part of the declaration inside, and known by its fs-verity
//! digest. The same inputs give the same bytes.

use anyhow::{Context, Result, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_component::{MANIFEST_PATH, Seal, Shipped, verity};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::declaration::Declaration;
use crate::archive::cache::{Cache, FetchOptions, hash_file};
use crate::archive::lock_file::{LockFile, LockedPackage};
use crate::image::base;
use crate::image::declaration::Product;
use crate::image::plan::TOOLS_SET;
use crate::image::step::{Key, Steps, hex};
use crate::image::tree::{Node, Tree};
use crate::image::{archive, disk, process};
use crate::tools::Tools;
use crate::workspace::Workspace;

mod bytecode;
pub mod declaration;

/// The product whose release day is the time stamp of everything in a component.
pub const PRODUCT: &str = "branch";
const IMAGE: &str = "component.erofs";
const SEAL: &str = "seal.json";
const PARTS: &str = "parts.json";
/// How mkfs.erofs is to compress: not at all. What travels is compressed on its way; at rest, a change of a few octets would change
/// whole clusters and move everything behind them, and an update would fetch more than twice as much (`docs/benchmarks.md`).
const EROFS_COMPRESSION: Option<&str> = None;
/// Raise it when the code below changes what it makes.
const VERSION: u32 = 5;

/// What an image is to be made of.
#[derive(Debug)]
pub struct Source {
    /// What it is to be.
    pub declaration: Declaration,
    /// Its packages.
    pub packages: Vec<LockedPackage>,
}

/// A sealed image.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The component.
    pub name: String,
    /// The EROFS file.
    pub path: Utf8PathBuf,
    /// By what it is known.
    pub seal: Seal,
    /// The file by which the box knows it ([`Shipped::text`]).
    pub shipped: String,
    parts: Utf8PathBuf,
}

/// What the step works with.
#[derive(Debug, Clone, Copy)]
pub struct Builder<'a> {
    /// The steps' cache.
    pub steps: &'a Steps,
    /// mkfs.erofs.
    pub tools: &'a Tools,
    /// Where packages are.
    pub cache: &'a Cache,
    /// Where what is found out about packages is kept for the SBOM.
    pub target: &'a Utf8Path,
    /// The time stamp of everything in it, in seconds since 1970.
    pub epoch_s: u32,
}

/// A finished image, and what else can be made of it.
#[derive(Debug)]
pub struct ComponentImage {
    /// The image.
    pub sealed: Sealed,
    tools: Tools,
    steps: Steps,
}

/// Builds a component's image.
///
/// # Errors
/// When there is no such component, its declaration is wrong, or a package cannot be had.
pub fn build(name: &str, fetch: &FetchOptions) -> Result<ComponentImage> {
    build_edited(name, fetch, Workspace::locate().images().join("steps"), |_| ())
}

/// As [`build`], of a declaration that `edit` has changed, and with the results of steps in this directory.
///
/// # Errors
/// Those of [`build`].
pub fn build_edited(
    name: &str,
    fetch: &FetchOptions,
    steps: Utf8PathBuf,
    edit: impl FnOnce(&mut Declaration),
) -> Result<ComponentImage> {
    let workspace = Workspace::locate();
    let mut lock = crate::image::checked_lock(&workspace)?;
    // Mistakes first: they cost nothing, a download may.
    Source::load(name, &workspace, &lock)?;
    let epoch_s = Product::load(&workspace.product(PRODUCT))?.epoch_s()?;
    let steps = Steps::open(steps)?;
    let cache = Cache::open(fetch)?;
    cache.provide(&mut lock, &[name, TOOLS_SET])?;
    let tools = Tools::prepare(&lock, &cache, workspace.target())?;
    let mut source = Source::load(name, &workspace, &lock)?;
    edit(&mut source.declaration);
    let target = workspace.target();
    let builder = Builder { steps: &steps, tools: &tools, cache: &cache, target: &target, epoch_s };
    let sealed = builder.image(&source)?;
    Ok(ComponentImage { sealed, tools, steps })
}

impl Source {
    /// Reads a component's declaration and finds its packages.
    ///
    /// # Errors
    /// When there is no such component, its declaration is wrong, or the lock does not have its packages.
    pub fn load(name: &str, workspace: &Workspace, lock: &LockFile) -> Result<Self> {
        let declaration = Declaration::load(name, workspace)?;
        Ok(Self { packages: lock.set(name)?.to_vec(), declaration })
    }

    /// The component's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.declaration.manifest.name
    }
}

impl Builder<'_> {
    /// Step `component-NAME`.
    ///
    /// # Errors
    /// When a package cannot be had or read.
    pub fn image(&self, source: &Source) -> Result<Sealed> {
        let step = self.steps.result(&format!("component-{}", source.name()), &self.key(source)?, |out| {
            let tree = self.tree(source)?;
            write_json(&out.join(PARTS), &tree.sizes())?;
            seal(&tree, &source.declaration, self.epoch_s, out, self.tools)
        })?;
        let seal = read_json(&step.join(SEAL))?;
        Ok(Sealed {
            name: source.name().to_owned(),
            path: step.join(IMAGE),
            shipped: Shipped::text(&source.declaration.manifest_text, &seal),
            seal,
            parts: step.join(PARTS),
        })
    }

    fn key(&self, source: &Source) -> Result<Key> {
        let declaration = &source.declaration;
        let mut key = Key::new("component", VERSION).with(self.tools.root().as_str());
        key.add(&self.epoch_s.to_le_bytes());
        key.add(EROFS_COMPRESSION.unwrap_or_default().as_bytes());
        key.add(format!("{:?}", declaration.root).as_bytes());
        key.add(declaration.manifest_text.as_bytes());
        for package in &source.packages {
            key.add(package.sha256.as_bytes());
        }
        for path in declaration::sources(declaration) {
            key.add(&std::fs::read(&path).with_context(|| format!("cannot read {path}"))?);
        }
        Ok(key)
    }

    fn tree(&self, source: &Source) -> Result<Tree> {
        let declaration = &source.declaration;
        let unpacked = base::read_packages(
            &source.packages.iter().collect::<Vec<_>>(),
            &declaration.root.unpack,
            self.cache,
            self.target,
        )?;
        let mut tree = Tree::default();
        unpacked.into_iter().try_for_each(|package| package.add_to(&mut tree))?;
        let unpacked = Tools::of_packages(source.name(), &source.packages, self.cache, self.target)?;
        bytecode::compile(&mut tree, &unpacked)?;
        base::declare(&mut tree, &declaration.root, &declaration.files)?;
        let manifest = Node::file(declaration.manifest_text.clone().into_bytes(), 0o644, declaration::FILE);
        tree.insert(MANIFEST_PATH, manifest)?;
        tree.complete()?;
        Ok(tree)
    }
}

impl Sealed {
    /// How much each of its packages adds, in bytes before compression.
    ///
    /// # Errors
    /// When the step's result cannot be read.
    pub fn parts(&self) -> Result<Vec<(String, u64)>> {
        read_json(&self.parts)
    }
}

fn read_json<T: DeserializeOwned>(path: &Utf8Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    serde_json::from_slice(&text).with_context(|| path.to_string())
}

fn write_json(path: &Utf8Path, value: &impl Serialize) -> Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(value)?).with_context(|| format!("cannot write {path}"))
}

fn seal(tree: &Tree, declaration: &Declaration, epoch_s: u32, out: &Utf8Path, tools: &Tools) -> Result<()> {
    let image = out.join(IMAGE);
    let uuid = disk::named_guid(&format!("component {}", declaration.manifest.name));
    let mut command = tools.command("mkfs.erofs")?;
    command.args(["--quiet", "--tar=f", "-U", &uuid.to_string().to_lowercase()]);
    command.args(EROFS_COMPRESSION.into_iter().flat_map(|algorithm| ["-z", algorithm]));
    command.args(["-T", &epoch_s.to_string(), image.as_str()]);
    // Its scratch file is as large as the tree: /tmp may be small, or TMPDIR not be there.
    command.env("TMPDIR", out);
    process::run_fed(command, |input| archive::write_tar(tree, epoch_s, input))?;
    let file = std::fs::File::open(&image).with_context(|| format!("cannot read {image}"))?;
    let bytes = file.metadata()?.len();
    let verity =
        verity::digest(std::io::BufReader::new(file)).with_context(|| format!("cannot read {image}"))?;
    let seal = Seal { bytes, sha256: hash_file(&image)?, verity: hex(&verity) };
    write_json(&out.join(SEAL), &seal)
}

impl ComponentImage {
    /// Its root as a directory, taken out of the sealed image: for a development machine, whose kernel may know neither
    /// fs-verity nor EROFS. Owners are kept when root does it.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub fn unpacked(&self) -> Result<Utf8PathBuf> {
        let name = format!("component-{}-root", self.sealed.name);
        let mut key = Key::new("component root", VERSION)
            .with(&self.sealed.seal.verity)
            .with(self.tools.root().as_str());
        // One that an ordinary user has unpacked belongs to that user: root must not run programs from it.
        key.add(&nix::unistd::geteuid().as_raw().to_le_bytes());
        let step = self.steps.result(&name, &key, |out| {
            let mut command = self.tools.command("fsck.erofs")?;
            command.arg(format!("--extract={}", out.join("root"))).arg(&self.sealed.path);
            process::run(command).map(drop)
        })?;
        Ok(step.join("root"))
    }

    /// Puts the image under a name that is easy to find, `target/images/component/NAME.erofs`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish(&self) -> Result<Utf8PathBuf> {
        let folder = Workspace::locate().images().join("component");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder}"))?;
        let target = folder.join(format!("{}.erofs", self.sealed.name));
        let fresh = folder.join(format!(".{}.erofs", self.sealed.name));
        std::fs::copy(&self.sealed.path, &fresh).with_context(|| format!("cannot write {fresh}"))?;
        std::fs::rename(&fresh, &target).map_err(|error| anyhow!("cannot write {target}: {error}"))?;
        Ok(target)
    }
}
