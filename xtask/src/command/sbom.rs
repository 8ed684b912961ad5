//! `cargo xtask sbom`: what an image is made of, as a document that other programs read.

use anyhow::{Result, ensure};
use camino::Utf8PathBuf;

use crate::archive::cache::FetchOptions;
use crate::image::{self, ImageOptions};
use crate::sbom;

const EXAMPLES: &str = "\
Examples:
  cargo xtask sbom                                          print the one of images/branch.toml
  cargo xtask sbom -o branch.cdx.json --texts licences.tar.zst   write it, and the licence texts to hand on with the image

`cargo xtask image` writes both beside each image, as NAME.cdx.json and NAME.licences.tar.zst.";

/// Print what an image is made of: packages, crates, sources, licences, and what needs what
///
/// The same lock files give the same bytes. Packages that are not in the cache yet are downloaded; nothing is built.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The product: the name of a file in images/
    #[arg(default_value = "branch")]
    pub product: String,
    /// In which form: CycloneDX 1.6 as JSON
    #[arg(long, value_enum, default_value_t = Format::Cyclonedx)]
    pub format: Format,
    /// Write it here instead of printing it
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<Utf8PathBuf>,
    /// Also write the licence texts here, each once, as a tar compressed with zstd
    #[arg(long, value_name = "FILE")]
    pub texts: Option<Utf8PathBuf>,
    /// How packages may be had
    #[command(flatten)]
    pub fetch: FetchOptions,
}

/// A form of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// CycloneDX 1.6, JSON
    Cyclonedx,
}

/// Runs the command.
///
/// # Errors
/// When a package cannot be had, or a part has no licence.
pub fn run(args: &Args) -> Result<()> {
    let Format::Cyclonedx = args.format;
    ensure!(
        args.output.is_none() || args.output != args.texts,
        "--output and --texts name the same file; each needs its own"
    );
    [&args.output, &args.texts].into_iter().flatten().try_for_each(|path| super::ensure_writable(path))?;
    let options =
        ImageOptions { product: args.product.clone(), fetch: args.fetch.clone(), ..ImageOptions::default() };
    let made = image::sbom(&options)?;
    for (from, to) in [(&made.document, &args.output), (&made.texts, &args.texts)] {
        if let Some(to) = to {
            sbom::write_atomically(to, &std::fs::read(from)?)?;
        }
    }
    if args.output.is_none() {
        super::print(std::fs::read_to_string(&made.document)?)?;
    }
    Ok(())
}
