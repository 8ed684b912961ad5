//! Component images: from locked packages and a declaration to one sealed EROFS file.
//!
//! Made like the base's root (`image::base`), with the run-time part of the declaration inside, and known by its fs-verity
//! digest. The same inputs give the same bytes.

use anyhow::{Context, Result, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_component::{MANIFEST_PATH, verity};
use serde::{Deserialize, Serialize};

use self::declaration::Declaration;
use crate::archive::cache::{Cache, FetchOptions, hash_file, parallel};
use crate::archive::lock_file::LockedPackage;
use crate::image::base::{self, PackageFiles};
use crate::image::declaration::Product;
use crate::image::plan::TOOLS_SET;
use crate::image::step::{Key, Steps, hex};
use crate::image::tree::{Node, Tree};
use crate::image::{archive, disk, process};
use crate::tools::Tools;
use crate::workspace::Workspace;

pub mod declaration;

/// The product whose release day is the time stamp of everything in a component.
pub const PRODUCT: &str = "branch";
const IMAGE: &str = "component.erofs";
const SEAL: &str = "seal.json";
/// Programs are started from it all day, on small processors. The first `samba-tool` after a mount took 3.3 s with this, 11.4 s
/// with zstd and clusters of 64 KiB, 1.7 to 2.7 s from an ordinary directory; the image has 82 MB instead of 61.
const EROFS_COMPRESSION: &str = "lz4hc,12";
/// Raise it when the code below changes what it makes.
const VERSION: u32 = 1;

/// By what an image is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What the kernel measures when it is sealed with fs-verity: SHA-256, 4 KiB blocks, no salt.
    pub verity: String,
}

/// A finished image.
#[derive(Debug)]
pub struct ComponentImage {
    /// The component.
    pub name: String,
    /// Its declaration.
    pub declaration: Declaration,
    /// The EROFS file.
    pub path: Utf8PathBuf,
    /// By what it is known.
    pub seal: Seal,
    tools: Tools,
    steps: Steps,
}

/// Builds a component's image.
///
/// # Errors
/// When there is no such component, its declaration is wrong, or a package cannot be had.
pub fn build(name: &str, fetch: &FetchOptions) -> Result<ComponentImage> {
    let workspace = Workspace::locate();
    let declaration = Declaration::load(name, &workspace)?;
    let mut lock = crate::image::checked_lock(&workspace)?;
    let epoch_s = Product::load(&workspace.product(PRODUCT))?.epoch_s()?;
    let steps = Steps::open(workspace.images().join("steps"))?;
    let cache = Cache::open(fetch)?;
    cache.provide(&mut lock, &[name, TOOLS_SET])?;
    let tools = Tools::prepare(&lock, &cache, workspace.target())?;
    let packages = lock.set(name)?;
    let key = key(&declaration, packages, &tools, epoch_s)?;
    let step = steps.result(&format!("component-{name}"), &key, |out| {
        let tree = tree(&declaration, packages, &cache)?;
        seal(&tree, &declaration, epoch_s, out, &tools)
    })?;
    let path = step.join(SEAL);
    let seal = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let seal = serde_json::from_slice(&seal).with_context(|| path.to_string())?;
    Ok(ComponentImage { name: name.to_owned(), declaration, path: step.join(IMAGE), seal, tools, steps })
}

fn key(declaration: &Declaration, packages: &[LockedPackage], tools: &Tools, epoch_s: u32) -> Result<Key> {
    let mut key = Key::new("component", VERSION).with(tools.root().as_str()).with(epoch_s.to_le_bytes());
    key.add(EROFS_COMPRESSION.as_bytes());
    key.add(format!("{:?}", declaration.root).as_bytes());
    key.add(declaration.manifest_text.as_bytes());
    for package in packages {
        key.add(package.sha256.as_bytes());
    }
    for path in declaration::sources(declaration) {
        key.add(&std::fs::read(&path).with_context(|| format!("cannot read {path}"))?);
    }
    Ok(key)
}

fn tree(declaration: &Declaration, packages: &[LockedPackage], cache: &Cache) -> Result<Tree> {
    let wanted: Vec<&LockedPackage> = packages.iter().collect();
    let debs: Vec<_> = wanted.iter().zip(cache.fetch(&wanted)?).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let unpacked = parallel(&debs, threads, |(package, deb)| {
        PackageFiles::read(&package.name, deb, &declaration.root.unpack, |_| ())
            .with_context(|| format!("package {}", package.name))
    })?;
    let mut tree = Tree::default();
    unpacked.into_iter().try_for_each(|package| package.add_to(&mut tree))?;
    base::declare(&mut tree, &declaration.root, &declaration.files)?;
    let manifest = Node::file(declaration.manifest_text.clone().into_bytes(), 0o644, declaration::FILE);
    tree.insert(MANIFEST_PATH, manifest)?;
    tree.complete()?;
    Ok(tree)
}

fn seal(tree: &Tree, declaration: &Declaration, epoch_s: u32, out: &Utf8Path, tools: &Tools) -> Result<()> {
    let image = out.join(IMAGE);
    let uuid = disk::named_guid(&format!("component {}", declaration.manifest.name));
    let mut command = tools.command("mkfs.erofs")?;
    command.args(["--quiet", "--tar=f", "-z", EROFS_COMPRESSION, "-U", &uuid.to_string().to_lowercase()]);
    command.args(["-T", &epoch_s.to_string(), image.as_str()]);
    // Its scratch file is as large as the tree: /tmp may be small, or TMPDIR not be there.
    command.env("TMPDIR", out);
    process::run_fed(command, |input| archive::write_tar(tree, epoch_s, input))?;
    let file = std::fs::File::open(&image).with_context(|| format!("cannot read {image}"))?;
    let bytes = file.metadata()?.len();
    let verity =
        verity::digest(std::io::BufReader::new(file)).with_context(|| format!("cannot read {image}"))?;
    let seal = Seal { bytes, sha256: hash_file(&image)?, verity: hex(&verity) };
    let path = out.join(SEAL);
    std::fs::write(&path, serde_json::to_vec_pretty(&seal)?).with_context(|| format!("cannot write {path}"))
}

impl ComponentImage {
    /// Its root as a directory, taken out of the sealed image: for a development machine, whose kernel may know neither
    /// fs-verity nor EROFS. Owners are kept when root does it.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub fn unpacked(&self) -> Result<Utf8PathBuf> {
        let name = format!("component-{}-root", self.name);
        let mut key =
            Key::new("component root", VERSION).with(&self.seal.verity).with(self.tools.root().as_str());
        // One that an ordinary user has unpacked belongs to that user: root must not run programs from it.
        key.add(&nix::unistd::geteuid().as_raw().to_le_bytes());
        let step = self.steps.result(&name, &key, |out| {
            let mut command = self.tools.command("fsck.erofs")?;
            command.arg(format!("--extract={}", out.join("root"))).arg(&self.path);
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
        let target = folder.join(format!("{}.erofs", self.name));
        let fresh = folder.join(format!(".{}.erofs", self.name));
        std::fs::copy(&self.path, &fresh).with_context(|| format!("cannot write {fresh}"))?;
        std::fs::rename(&fresh, &target).map_err(|error| anyhow!("cannot write {target}: {error}"))?;
        Ok(target)
    }
}
