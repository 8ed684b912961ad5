//! The steps of a release: kernel, base, slot, and the files that boot them.
//!
//! Each step names its inputs in its key; raise a step's version when its code changes what it makes.

use anyhow::{Context, Result, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::PartitionKind;
use kontor_component::SHIPPED_DIRECTORY;

use super::base::PackageFiles;
use super::budget::Measured;
use super::declaration::Product;
use super::disk::{self, BiosBoot};
use super::kernel::Selection;
use super::kernel_archive::KernelArchive;
use super::plan::Plan;
use super::step::{Key, Steps};
use super::tree::{Node, Tree};
use super::{archive, base, esp, grub, initramfs, process, slot};
use crate::archive::cache::Cache;
use crate::archive::lock_file::LockedPackage;
use crate::component::Sealed;
use crate::deb::Kind;
use crate::sbom::facts;
use crate::tools::Tools;

/// Bytes compressed together: larger is smaller on the wire, but costs RAM and time at each first access.
pub const EROFS_CLUSTER: &str = "65536";
/// The kernel reads zstd with a small, fixed memory. Level 9 takes five times as long, for 6 % less.
pub const EROFS_COMPRESSION: &str = "zstd,level=4";
/// Ends of files lie with their inodes: half a page less per file, and one read less. mkfs.erofs searches for how much
/// fills a cluster; what it may try decides its time. One and a half clusters take 0.43 s of processor time. Level 3 with
/// two clusters took 0.74 s, for 0.2 % less; one cluster takes 0.28 s, for 3 % more.
pub const EROFS_OPTIONS: [&str; 3] = ["-E", "ztailpacking", "--max-extent-bytes=98304"];

/// What the steps work with.
#[derive(Debug, Clone, Copy)]
pub struct Builder<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The steps' cache.
    pub steps: &'a Steps,
    /// mkfs.erofs, mke2fs, depmod, grub-mkimage.
    pub tools: &'a Tools,
    /// Where packages are.
    pub cache: &'a Cache,
    /// Where what is found out about packages is kept for the SBOM.
    pub target: &'a Utf8Path,
    /// The components, which base and `system` depend on.
    pub components: &'a [Sealed],
}

/// The sealed base and what it was made of.
#[derive(Debug)]
pub struct Base {
    kernel: Selection,
    directory: Utf8PathBuf,
    key: Key,
}

/// What the base is made of.
#[derive(Debug)]
pub struct Sources {
    kernel: Selection,
    packages: Option<Vec<PackageFiles>>,
    /// Of the step `base`.
    key: Key,
}

/// GRUB and the system partition.
#[derive(Debug)]
pub struct BootFiles {
    grub: Utf8PathBuf,
    system: Utf8PathBuf,
}

/// Everything that goes onto the disk.
#[derive(Debug)]
pub struct ReleaseFiles {
    slot: Utf8PathBuf,
    base: Utf8PathBuf,
    kernel: Utf8PathBuf,
    program: Utf8PathBuf,
    boot: BootFiles,
    components: Vec<Sealed>,
}

impl Builder<'_> {
    /// Step `kernel`, and the base's packages, read at the same time, unless the base is there.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn sources(&self) -> Result<Sources> {
        let wanted = self.plan.modules();
        let form = self.plan.module_form();
        let kernel_key =
            Key::new("kernel", 4).with(&self.plan.kernel.sha256).with(self.tools.root().as_str());
        let kernel_key = kernel_key.with(form.name()).with(wanted.join(" "));
        let key = self.base_key(&kernel_key)?;
        let (directory, packages) = std::thread::scope(|scope| {
            let packages = (!self.steps.has("base", &key)).then(|| scope.spawn(|| self.packages()));
            let directory = self.steps.result("kernel", &kernel_key, |out| {
                self.kernel_archive()?.select(&wanted, form, out, self.tools)
            });
            let panicked = |_| Err(anyhow!("reading the base's packages panicked"));
            (directory, packages.map(|thread| thread.join().unwrap_or_else(panicked)))
        });
        Ok(Sources { kernel: Selection::open(directory?)?, packages: packages.transpose()?, key })
    }

    /// Step `base`.
    ///
    /// # Errors
    /// When it fails.
    pub fn base(&self, sources: Sources) -> Result<Base> {
        let Sources { kernel, packages, key } = sources;
        let directory = self.steps.result("base", &key, |out| {
            let packages = packages.map_or_else(|| self.packages(), Ok)?;
            self.make_base(out, packages, &kernel)
        })?;
        Ok(Base { kernel, directory, key })
    }

    fn packages(&self) -> Result<Vec<PackageFiles>> {
        let packages: Vec<&LockedPackage> = self.plan.packages.iter().collect();
        base::read_packages(&packages, &self.plan.base.unpack, self.cache, self.target)
    }

    fn kernel_archive(&self) -> Result<KernelArchive> {
        let package = &self.plan.kernel;
        let debs = self.cache.debs(&[package])?;
        let deb = debs.first().context("no kernel package")?;
        let archive = KernelArchive::read(deb)?;
        // Without one the SBOM looks for a link to that of another package.
        if let Some((path, bytes)) = archive.copyright() {
            let mut facts = facts::Reader::new(&package.name);
            facts.see(path, &Kind::File { bytes: bytes.to_vec() });
            facts.keep(package, deb.path(), self.target)?;
        }
        Ok(archive)
    }

    fn base_key(&self, kernel: &Key) -> Result<Key> {
        let mut key = Key::new("base", 1).with(kernel.hex()).with(self.tools.root().as_str());
        key.add([EROFS_COMPRESSION, EROFS_CLUSTER].join(" ").as_bytes());
        key.add(EROFS_OPTIONS.join(" ").as_bytes());
        for package in &self.plan.packages {
            key.add(package.sha256.as_bytes());
        }
        key.add(format!("{:?}", self.plan.base).as_bytes());
        for file in self.plan.base.file.iter().filter_map(|file| file.source.as_deref()) {
            let path = base::source_path(&self.plan.base_files, file);
            key.add(&std::fs::read(&path).with_context(|| format!("cannot read {path}"))?);
        }
        for file in &self.plan.boards {
            key.add(file.board.name.as_bytes());
            key.add(file.text.as_bytes());
        }
        for component in self.components {
            key.add(component.shipped.as_bytes());
        }
        key.add(format!("{:?}", self.plan.release).as_bytes());
        Ok(key)
    }

    fn make_base(&self, out: &Utf8Path, packages: Vec<PackageFiles>, kernel: &Selection) -> Result<()> {
        let tree = self.base_tree(packages, kernel)?;
        let epoch_s = self.plan.release.epoch_s;
        let mut command = self.tools.command("mkfs.erofs")?;
        let uuid = super::disk::named_guid("file system base").to_string().to_lowercase();
        command.args(["--quiet", "--tar=f", "-z", EROFS_COMPRESSION, "-C", EROFS_CLUSTER, "-U", &uuid]);
        command.args(EROFS_OPTIONS);
        command.args(["-T", &epoch_s.to_string(), out.join("base.erofs").as_str()]);
        // Its scratch file is as large as the base: /tmp may be small, or TMPDIR not be there.
        command.env("TMPDIR", out);
        process::run_fed(command, |input| archive::write_tar(&tree, epoch_s, input))?;
        write(&out.join("parts.json"), &serde_json::to_vec(&tree.sizes())?)
    }

    fn base_tree(&self, packages: Vec<PackageFiles>, kernel: &Selection) -> Result<Tree> {
        let mut tree = Tree::default();
        packages.into_iter().try_for_each(|package| package.add_to(&mut tree))?;
        base::declare(&mut tree, &self.plan.base, &self.plan.base_files)?;
        kernel.add_to(&mut tree)?;
        for (path, text) in [
            ("/usr/lib/os-release", self.plan.release.os_release()),
            ("/usr/share/kontor/release.toml", self.plan.release.to_toml(&kernel.version)),
        ] {
            tree.insert(path, Node::file(text.into_bytes(), 0o644, "kontor"))?;
        }
        for file in &self.plan.boards {
            let path = format!("/usr/share/kontor/board/{}.toml", file.board.name);
            tree.insert(&path, Node::file(file.text.clone().into_bytes(), 0o644, "kontor"))?;
        }
        for Sealed { name, shipped, .. } in self.components {
            let node = Node::file(shipped.clone().into_bytes(), 0o644, "kontor");
            tree.insert(&format!("{SHIPPED_DIRECTORY}/{name}.toml"), node)?;
        }
        tree.complete()?;
        Ok(tree)
    }

    /// Steps `grub` and `system`.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn boot_files(&self) -> Result<BootFiles> {
        let configuration = grub::configuration(&self.plan.boards);
        let tools = self.tools.root().as_str();
        let esp =
            self.plan.table.find(PartitionKind::Esp).context("no EFI system partition in the layout")?;
        let key = Key::new("grub", 2).with(&configuration).with(tools).with(esp.length().to_le_bytes());
        let grub = self.steps.result("grub", &key, |out| {
            grub::make_cores(out, &configuration, self.tools)?;
            let partition = esp::esp(esp.length(), &read(&out.join("BOOTX64.EFI"))?)?;
            disk::write_file(&out.join("esp.img"), &partition)
        })?;
        let (size, epoch_s) = (self.plan.product.partition_mib.system, self.plan.release.epoch_s);
        let mut key = Key::new("system", 2).with(size.to_le_bytes()).with(epoch_s.to_le_bytes()).with(tools);
        for component in self.components {
            key.add(component.seal.sha256.as_bytes());
        }
        let system = self.steps.result("system", &key, |out| self.make_system(out))?;
        Ok(BootFiles { grub, system })
    }

    fn make_system(&self, out: &Utf8Path) -> Result<()> {
        let read = |component: &Sealed| Ok((component.seal.path(), read(&component.path)?));
        let files: Vec<(String, Vec<u8>)> = self.components.iter().map(read).collect::<Result<_>>()?;
        slot::make_system(
            out,
            self.plan.product.partition_mib.system,
            &files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>(),
            self.plan.release.epoch_s,
            self.tools,
        )
    }

    /// Step `slot`: the program and the base become a release.
    ///
    /// # Errors
    /// When it fails.
    pub fn release(&self, program: Utf8PathBuf, base: Base, boot: BootFiles) -> Result<ReleaseFiles> {
        let bytes = std::fs::read(&program).with_context(|| format!("cannot read {program}"))?;
        let size = self.plan.product.partition_mib.slot;
        let key = Key::new("slot", 2).with(base.key.hex()).with(&bytes).with(size.to_le_bytes());
        let slot = self.steps.result("slot", &key, |out| self.make_slot(out, &bytes, &base))?;
        let components = self.components.to_vec();
        Ok(ReleaseFiles {
            slot,
            base: base.directory,
            kernel: base.kernel.image(),
            program,
            boot,
            components,
        })
    }

    fn make_slot(&self, out: &Utf8Path, program: &[u8], base: &Base) -> Result<()> {
        let release = &self.plan.release;
        let kernel = read(&base.kernel.image())?;
        let sealed = read(&base.directory.join("base.erofs"))?;
        let initrd = initramfs::initramfs(
            program,
            &sealed,
            &base.kernel.early()?,
            &base.kernel.background()?,
            release.epoch_s,
        );
        let files = [("vmlinuz", kernel.as_slice()), ("initrd", initrd.as_slice())];
        let manifest = slot::manifest(release, &base.kernel.version, &files, self.components);
        let files = [files[0], files[1], ("manifest.toml", manifest.as_bytes())];
        let compressed = std::thread::scope(|scope| {
            let compressed = scope.spawn(|| slot::compressed_size(&files));
            slot::make(out, self.plan.product.partition_mib.slot, &files, release.epoch_s, self.tools)?;
            compressed.join().map_err(|_| anyhow!("measuring the slot panicked"))?
        })?;
        write(&out.join("manifest.toml"), manifest.as_bytes())?;
        write(&out.join("compressed.json"), &serde_json::to_vec(&compressed)?)
    }
}

impl ReleaseFiles {
    /// The content of both slots.
    #[must_use]
    pub fn slot_image(&self) -> Utf8PathBuf {
        self.slot.join("slot.img")
    }

    /// The components that belong to it.
    #[must_use]
    pub fn components(&self) -> &[Sealed] {
        &self.components
    }

    /// The file system with the components.
    #[must_use]
    pub fn system_image(&self) -> Utf8PathBuf {
        self.boot.system.join("system.img")
    }

    /// The partition with GRUB for UEFI.
    #[must_use]
    pub fn esp_image(&self) -> Utf8PathBuf {
        self.boot.grub.join("esp.img")
    }

    /// GRUB for BIOS.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn bios_boot(&self) -> Result<BiosBoot> {
        Ok(BiosBoot {
            boot: read(&self.boot.grub.join("boot.img"))?,
            core: read(&self.boot.grub.join("core.img"))?,
        })
    }

    /// Sizes with their limits and parts. What makes up the program takes long to find out; `contributors` is asked when it
    /// is over its budget, or when `all` is wanted.
    ///
    /// # Errors
    /// When a step's result cannot be read, and those of `contributors`.
    pub fn measured(
        &self,
        product: &Product,
        all: bool,
        contributors: impl FnOnce(&Utf8Path) -> Result<Vec<(String, u64)>>,
    ) -> Result<Vec<Measured>> {
        let budgets = product.budget_kib;
        let program = size(&self.program)?;
        let mut parts: Vec<(String, u64)> = serde_json::from_slice(&read(&self.base.join("parts.json"))?)?;
        parts.push(("kernel".to_owned(), size(&self.kernel)?));
        parts.push(("the program kontor".to_owned(), program));
        let compressed = serde_json::from_slice(&read(&self.slot.join("compressed.json"))?)?;
        let slot = Measured {
            name: "the slot image".to_owned(),
            bytes: compressed,
            limit_kib: budgets.slot_compressed,
            parts,
        };
        let (name, limit_kib) = ("the program kontor".to_owned(), budgets.kontor);
        let mut program = Measured { name, bytes: program, limit_kib, parts: Vec::new() };
        if all || program.is_over() {
            program.parts = contributors(&self.program)?;
        }
        let mut measured = vec![slot, program];
        for component in &self.components {
            measured.push(Measured {
                name: format!("the component {}", component.name),
                bytes: component.seal.bytes,
                limit_kib: budgets.component,
                parts: component.parts()?,
            });
        }
        Ok(measured)
    }
}

fn read(path: &Utf8Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {path}"))
}

fn write(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {path}"))
}

fn size(path: &Utf8Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("cannot read {path}"))?.len())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::image::budget;
    use crate::workspace::Workspace;

    /// Measures a release whose program has this many bytes more than it may.
    fn measured(over: i64, all: bool) -> Result<Vec<Measured>> {
        let product = Product::load(&Workspace::locate().product("branch")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().to_owned();
        let length = usize::try_from(i64::try_from(product.budget_kib.kontor << 10).unwrap() + over).unwrap();
        write(&path.join("kontor"), &vec![0; length]).unwrap();
        write(&path.join("parts.json"), b"[[\"nftables\", 700]]").unwrap();
        write(&path.join("compressed.json"), b"1024").unwrap();
        let files = ReleaseFiles {
            slot: path.clone(),
            base: path.clone(),
            kernel: path.join("kontor"),
            program: path.join("kontor"),
            boot: BootFiles { grub: path.clone(), system: path.clone() },
            components: Vec::new(),
        };
        files.measured(&product, all, |program| match program == path.join("kontor") {
            true => Ok(vec![("crate tokio".to_owned(), 4096)]),
            false => bail!("asked about {program}"),
        })
    }

    #[test]
    fn what_makes_up_the_program_is_found_out_when_it_matters() {
        let parts = |over, all| measured(over, all).unwrap().remove(1).parts;
        assert!(parts(0, false).is_empty());
        assert_eq!(parts(0, true), [("crate tokio".to_owned(), 4096)]);
        let error = budget::check(&measured(1, false).unwrap()).unwrap_err().to_string();
        assert!(
            error.starts_with("the program kontor is 8193 KiB, 1 KiB over its budget of 8192 KiB\n"),
            "{error}"
        );
        assert!(error.ends_with("\n         4 KiB  crate tokio"), "{error}");
    }
}
