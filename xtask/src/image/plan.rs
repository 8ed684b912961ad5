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
use super::seed;
use super::slot::Release;
use crate::archive::lock_file::{LockFile, LockedPackage};
use crate::workspace::Workspace;

/// The set of packages the base is made of.
pub const BASE_SET: &str = "base";
/// The set the build's tools come from.
pub const TOOLS_SET: &str = "tools";
/// What a kernel's package is called.
const KERNEL_PREFIX: &str = "linux-image-";

/// A validated, complete plan.
#[derive(Debug)]
pub struct Plan {
    /// The product's file.
    pub product: Product,
    /// The board's file, merged.
    pub board: BoardFile,
    /// The base's file.
    pub base: BaseFile,
    /// Where files declared by the base are.
    pub base_files: Utf8PathBuf,
    /// Packages of the base without the kernel.
    pub packages: Vec<LockedPackage>,
    /// The kernel's package.
    pub kernel: LockedPackage,
    /// What the release calls itself.
    pub release: Release,
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
        ensure!(
            product.board.contains(&options.board),
            "product {:?} is not built for board {:?}, only for {}",
            product.name,
            options.board,
            product.board.join(", ")
        );
        let board = BoardFile::load(&workspace.board(&options.board), &product)?;
        let epoch_s = product.epoch_s()?;
        let release = Release {
            product: product.name.clone(),
            board: options.board.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date: product.date.clone(),
            epoch_s,
        };
        let (kernel, packages) = split_kernel(lock.set(BASE_SET)?)?;
        let default_output = || workspace.images().join(format!("{}-{}.img", options.product, options.board));
        Ok(Self {
            base: BaseFile::load(&workspace.base().join("base.toml"))?,
            base_files: workspace.base().join("files"),
            packages,
            kernel,
            release,
            table: disk::layout(&product.partition_mib),
            seed: site_text(options, &board)?.map(|site| seed::seed(&site, epoch_s)).transpose()?,
            output: ordinary(options.output.clone().unwrap_or_else(default_output))?,
            product,
            board,
        })
    }

    /// The kernel command line, without the slot.
    #[must_use]
    pub fn cmdline(&self) -> &[String] {
        &self.board.board.kernel_cmdline
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

/// The site file's text, once it is valid.
fn site_text(options: &ImageOptions, board: &BoardFile) -> Result<Option<String>> {
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
        let Release { product, board, version, date, .. } = &self.release;
        writeln!(f, "product    {product} {version} of {date}, board {board}")?;
        writeln!(f, "kernel     {} {}", self.kernel.name, self.kernel.version)?;
        writeln!(f, "cmdline    {} kontor.slot=a|b", self.cmdline().join(" "))?;
        writeln!(f, "modules    {}", self.board.modules().join(" "))?;
        writeln!(f, "packages   {}", self.packages.len())?;
        for package in &self.packages {
            writeln!(f, "           {} {}", package.name, package.version)?;
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
            "budgets    slot {} KiB compressed, kontor {} KiB",
            budgets.slot_compressed, budgets.kontor
        )?;
        writeln!(f, "output     {}", self.output)?;
        write!(f, "board file as the box reads it:\n{}", self.board.text)
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
        for board in ["qemu", "generic-x86-64"] {
            let text = plan(|options| board.clone_into(&mut options.board)).unwrap().to_string();
            for expected in ["slot-b", "nftables 1.", "kontor-netd=201", "seed       empty"] {
                assert!(text.contains(expected), "{expected} is missing:\n{text}");
            }
        }
    }

    #[test]
    fn mistakes_are_found_before_anything_is_built() {
        check_error(
            |options| options.board = "raspberry".into(),
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
