//! `cargo xtask image`: builds a disk image.

use anyhow::{Result, ensure};
use camino::Utf8PathBuf;

use crate::archive::cache::FetchOptions;
use crate::image::{self, ImageOptions};
use crate::publish::root;

const EXAMPLES: &str = "\
Examples:
  cargo xtask image                                             for every machine the product is for
  cargo xtask image --site office.toml                          with its office in it
  cargo xtask image --site office.toml --board pcengines-apu2   if that office has one of these
  cargo xtask image --dry-run                                   what would go into it";

/// Build a disk image that boots on BIOS and UEFI, on every machine the product is for
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to build: the name of a file in images/
    #[arg(default_value = "branch")]
    pub product: String,
    /// Check the site file against this machine's ports: the name of a file in board/ [default: that for any machine]
    #[arg(long, short, value_name = "NAME", requires = "site")]
    pub board: Option<String>,
    /// Give the image a site file, which the box imports at its first boot (`cargo xtask site default` prints one)
    #[arg(long, value_name = "FILE")]
    pub site: Option<Utf8PathBuf>,
    /// Write the image here [default: target/images/PRODUCT.img]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<Utf8PathBuf>,
    /// Print what would be built, merged and validated, and build nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Use this program as the firmware's instead of compiling it
    #[arg(long, value_name = "FILE", hide = true)]
    pub program: Option<Utf8PathBuf>,
    /// Have the box take releases signed for the root in this folder, of which only root.json is read [default: keys of this
    /// checkout, made for trying things]
    #[arg(long, env = "KONTOR_KEYS", value_name = "DIR", value_delimiter = ':')]
    pub keys: Vec<Utf8PathBuf>,
    /// How packages may be had
    #[command(flatten)]
    pub fetch: FetchOptions,
}

impl Args {
    /// As options of the library.
    #[must_use]
    pub fn options(&self) -> ImageOptions {
        ImageOptions {
            product: self.product.clone(),
            board: self.board.clone(),
            site: self.site.clone(),
            site_text: None,
            output: self.output.clone(),
            program: self.program.clone(),
            steps: None,
            lock: None,
            components: true,
            version: None,
            security_epoch: None,
            keys: root_folder(&self.keys),
            fetch: self.fetch.clone(),
        }
    }
}

/// The folder whose root counts: the first that has one.
pub(super) fn root_folder(keys: &[Utf8PathBuf]) -> Option<Utf8PathBuf> {
    keys.iter().find(|folder| folder.join(root::FILE).exists()).or(keys.first()).cloned()
}

/// Runs the command.
///
/// # Errors
/// When the image cannot be built.
pub fn run(args: &Args) -> Result<()> {
    if let Some(program) = &args.program {
        ensure!(program.is_file(), "--program {program}: there is no such file");
    }
    if args.dry_run {
        return super::print(image::plan(&args.options())?);
    }
    let built = image::build(&args.options())?;
    super::print(format_args!("{}\n", built.path))
}
