//! The plan: everything a build will do, as a value that can be printed.
//!
//! Making it reads TOML files and the lock, nothing else; a plan that exists is valid.

use std::fmt;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::gpt::Table;

use super::ImageOptions;
use super::declaration::{BaseFile, BoardFile, Product};
use super::disk;
use super::module_file::Form;
use super::seed;
use super::slot::Release;
use crate::archive::lock_file::{LockFile, LockedPackage};
use crate::component;
use crate::publish::root::{self, TrustedRoot};
use crate::workspace::Workspace;

/// The set of packages the base is made of.
pub const BASE_SET: &str = "base";
/// The set the build's tools come from.
pub const TOOLS_SET: &str = "tools";
/// What an image is called that is no release.
const DEFAULT_VERSION: &str = env!("CARGO_PKG_VERSION");
/// What a kernel's package is called.
const KERNEL_PREFIX: &str = "linux-image-";

/// A validated, complete plan.
#[derive(Debug)]
pub struct Plan {
    /// The product's file.
    pub product: Product,
    /// The boards' files, merged.
    pub boards: Vec<BoardFile>,
    /// The base's file.
    pub base: BaseFile,
    /// Where files declared by the base are.
    pub base_files: Utf8PathBuf,
    /// Packages of the base without the kernel.
    pub packages: Vec<LockedPackage>,
    /// The kernel's package.
    pub kernel: LockedPackage,
    /// Components, in the product's order.
    pub components: Vec<component::Source>,
    /// What the release calls itself.
    pub release: Release,
    /// Whose releases the box will take; development keys that are not made yet are `None`.
    pub root: Option<TrustedRoot>,
    /// Partitions.
    pub table: Table,
    /// The seed's bytes, if there is a site file.
    pub seed: Option<Vec<u8>>,
    /// The finished image.
    pub output: Utf8PathBuf,
}

impl Plan {
    /// Reads and validates everything the options name.
    ///
    /// # Errors
    /// When a file is missing or wrong.
    pub fn new(options: &ImageOptions, workspace: &Workspace, lock: &LockFile) -> Result<Self> {
        let product = Product::load(&workspace.product(&options.product))?;
        let boards = BoardFile::load_all(&product, workspace)?;
        let epoch_s = product.epoch_s()?;
        let root = root::trusted(options.keys.as_deref(), workspace)?;
        let release = Release {
            product: product.name.clone(),
            boards: product.board.clone(),
            version: options
                .version
                .map_or_else(|| DEFAULT_VERSION.to_owned(), |version| version.to_string()),
            date: product.date.clone(),
            epoch_s,
            security_epoch: options.security_epoch.unwrap_or(product.security_epoch),
            development: root.as_ref().is_none_or(|root| root.development),
        };
        let (kernel, packages) = split_kernel(lock.set(BASE_SET)?)?;
        let components = if options.components { product.component.as_slice() } else { &[] };
        let load = |name: &String| component::Source::load(name, workspace, lock);
        let components = components.iter().map(load).collect::<Result<_>>()?;
        let default_output = || workspace.images().join(format!("{}.img", options.product));
        Ok(Self {
            base: BaseFile::load(&workspace.base().join("base.toml"))?,
            base_files: workspace.base().join("files"),
            packages,
            kernel,
            components,
            release,
            root,
            table: disk::layout(&product.partition_mib),
            seed: site_text(options, &product, &boards)?
                .map(|site| seed::seed(&site, None, epoch_s))
                .transpose()?,
            output: ordinary(options.output.clone().unwrap_or_else(default_output))?,
            product,
            boards,
        })
    }

    /// The sets of packages that its steps need.
    #[must_use]
    pub fn sets(&self) -> Vec<&str> {
        [BASE_SET, TOOLS_SET].into_iter().chain(self.components.iter().map(component::Source::name)).collect()
    }

    /// The kernel command line of a machine that no board is for in particular, without the slot.
    #[must_use]
    pub fn cmdline(&self) -> &[String] {
        self.boards.iter().find(|file| file.is_fallback()).map_or(&[], |file| &file.board.kernel_cmdline)
    }

    /// How they go onto the box.
    #[must_use]
    pub fn module_form(&self) -> Form {
        Form::new(self.product.kernel.module_signatures)
    }

    /// Every kernel module that any of the boards needs.
    #[must_use]
    pub fn modules(&self) -> Vec<String> {
        let mut modules: Vec<String> = self.boards.iter().flat_map(BoardFile::modules).collect();
        modules.sort();
        modules.dedup();
        modules
    }
}

fn split_kernel(packages: &[LockedPackage]) -> Result<(LockedPackage, Vec<LockedPackage>)> {
    let (mut kernels, others): (Vec<_>, Vec<_>) =
        packages.iter().cloned().partition(|package| package.name.starts_with(KERNEL_PREFIX));
    ensure!(kernels.len() == 1, "the set {BASE_SET:?} has {} kernels, not one", kernels.len());
    Ok((kernels.remove(0), others))
}

/// The image is made under another name and renamed: over a device that would hide the device, not write to it.
fn ordinary(output: Utf8PathBuf) -> Result<Utf8PathBuf> {
    let replaceable = std::fs::symlink_metadata(&output).map_or(true, |metadata| metadata.is_file());
    ensure!(
        replaceable && output.file_name().is_some(),
        "{output} is no ordinary file; build the image into one and copy it to the disk"
    );
    Ok(output)
}

/// The board of a product by its name; without one, the board for any machine.
///
/// # Errors
/// When the product has no such board.
pub fn named_board<'a>(
    name: Option<&str>,
    product: &Product,
    boards: &'a [BoardFile],
) -> Result<&'a BoardFile> {
    let wanted = |file: &&BoardFile| name.map_or(file.is_fallback(), |name| file.board.name == name);
    boards.iter().find(wanted).with_context(|| {
        let (name, known) = (name.unwrap_or_default(), product.board.join(", "));
        format!("product {:?} is not built for board {name:?}, only for {known}", product.name)
    })
}

/// The site file's text, once it is valid.
fn site_text(options: &ImageOptions, product: &Product, boards: &[BoardFile]) -> Result<Option<String>> {
    let board = named_board(options.board.as_deref(), product, boards)?;
    let (name, text) = match (&options.site, &options.site_text) {
        (Some(path), None) => {
            (path.as_path(), std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?)
        }
        (None, Some(text)) => (Utf8Path::new("site.toml"), text.clone()),
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => anyhow::bail!("a site file is given twice"),
    };
    kontor_config::Site::parse(name.as_str(), &text, &board.board)
        .map_err(|report| anyhow::anyhow!("{name} has mistakes\n\n{report}"))?;
    Ok(Some(text))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Release { product, boards, version, date, .. } = &self.release;
        writeln!(f, "product    {product} {version} of {date}")?;
        match &self.root {
            Some(TrustedRoot { version, development: false, .. }) => {
                writeln!(f, "trusts     root {version}")?
            }
            _ => writeln!(f, "trusts     this checkout's development keys")?,
        }
        writeln!(f, "boards     {}", boards.join(" "))?;
        writeln!(f, "kernel     {} {}", self.kernel.name, self.kernel.version)?;
        writeln!(f, "modules    {}: {}", self.module_form().name(), self.modules().join(" "))?;
        writeln!(f, "packages   {}", self.packages.len())?;
        for package in &self.packages {
            writeln!(f, "           {} {}", package.name, package.version)?;
        }
        for component in &self.components {
            writeln!(f, "component  {}: {} packages", component.name(), component.packages.len())?;
        }
        writeln!(
            f,
            "users      {}",
            names(self.base.user.iter().map(|user| format!("{}={}", user.name, user.id)))
        )?;
        writeln!(f, "partitions")?;
        for entry in &self.table.entries {
            let name = entry.kind().map_or("?", |kind| kind.name());
            writeln!(
                f,
                "           {} {name:<10} {:>6} MiB at {:>6} MiB",
                entry.number,
                entry.length() >> 20,
                entry.offset() >> 20
            )?;
        }
        let seed = if self.seed.is_some() { "with a site file" } else { "empty" };
        writeln!(f, "seed       {seed}")?;
        let budgets = self.product.budget_kib;
        writeln!(
            f,
            "budgets    slot {} KiB compressed, kontor {} KiB, each component {} KiB",
            budgets.slot_compressed, budgets.kontor, budgets.component
        )?;
        writeln!(f, "output     {}", self.output)?;
        for BoardFile { board, text, .. } in &self.boards {
            let cmdline = board.kernel_cmdline.join(" ");
            write!(
                f,
                "\nboard {}, cmdline {cmdline} kontor.slot=a|b, as the box reads it:\n{text}",
                board.name
            )?;
        }
        Ok(())
    }
}

fn names(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(change: impl FnOnce(&mut ImageOptions)) -> Result<Plan> {
        let workspace = Workspace::locate();
        let mut options = ImageOptions::default();
        change(&mut options);
        Plan::new(&options, &workspace, &LockFile::load(workspace.lock_file()).unwrap())
    }

    #[track_caller]
    fn check_error(change: impl FnOnce(&mut ImageOptions), expected: &str) {
        let error = format!("{:#}", plan(change).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn the_repositorys_own_products_can_be_planned() {
        let text = plan(|_| ()).unwrap().to_string();
        for expected in [
            "slot-b",
            "nftables 1.",
            "kontor-netd=201",
            "component  samba: ",
            "seed       empty",
            "board qemu, cmdline",
        ] {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
        for only_the_builders in ["[machine]", "usb-storage\"", "inherit"] {
            assert!(!text.contains(only_the_builders), "{only_the_builders} reaches the box:\n{text}");
        }
    }

    #[test]
    fn drivers_of_every_board_are_in_the_one_image() {
        let modules = plan(|_| ()).unwrap().modules();
        for module in ["igb", "igc", "virtio_net", "nvme", "ahci", "sp5100_tco", "iTCO_wdt", "nf_tables"] {
            assert_eq!(modules.iter().filter(|name| *name == module).count(), 1, "{module}");
        }
    }

    #[test]
    fn a_site_file_must_fit_the_board_it_is_for() {
        let site = kontor_config::Site::default_text().replace("port2", "port4");
        let with = |board: Option<&str>| {
            plan(|options| {
                (options.board, options.site_text) = (board.map(str::to_owned), Some(site.clone()))
            })
        };
        assert!(with(None).is_ok());
        assert!(with(Some("qemu")).is_ok());
        let error = format!("{:#}", with(Some("pcengines-apu2")).unwrap_err());
        assert!(error.contains("board pcengines-apu2 has no port `port4`"), "{error}");
    }

    #[test]
    fn mistakes_are_found_before_anything_is_built() {
        check_error(
            |options| options.board = Some("raspberry".into()),
            "is not built for board \"raspberry\", only for",
        );
        check_error(|options| options.product = "brnach".into(), "there is no product \"brnach\"; ");
        check_error(|options| options.product = "brnach".into(), "images has branch");
        check_error(|options| options.output = Some("/dev/null".into()), "/dev/null is no ordinary file");
        check_error(|options| options.output = Some("/".into()), "/ is no ordinary file");
        check_error(
            |options| options.site = Some("/nonexistent.toml".into()),
            "cannot read /nonexistent.toml",
        );
        check_error(|options| options.site_text = Some("schema = 2\n".into()), "site.toml");
    }
}
