//! `cargo xtask reproduce`: proves that the image does not depend on who builds it, where and when.

use std::fmt::Write;

use anyhow::{Result, bail, ensure};
use camino::Utf8PathBuf;

use crate::archive::cache::FetchOptions;
use crate::reproduce::{self, Options, Outcome};

const EXAMPLES: &str = "\
Examples:
  cargo xtask reproduce                         two builds from clean; prints one hash
  cargo xtask reproduce --against branch.img    is this image made from this source?";

/// Build image and release twice from clean, under other circumstances, and compare byte by byte
///
/// The second build has another user, host name, home, checkout path, cargo home, time zone, locale, umask, clock, number
/// of CPUs, order of files, and no network. What cannot be varied on this machine is said.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The product: the name of a file in images/
    #[arg(long, default_value = "branch")]
    pub product: String,
    /// Compare with this image instead of building a first one; makes no release
    #[arg(long, value_name = "IMAGE")]
    pub against: Option<Utf8PathBuf>,
    /// Keep both trees and images, and say where they are
    #[arg(long)]
    pub keep: bool,
    /// Where the root is that the image trusts; only root.json is read [default: this checkout's development keys]
    #[arg(long, env = "KONTOR_KEYS", value_name = "DIR", value_delimiter = ':')]
    pub keys: Vec<Utf8PathBuf>,
    /// How packages may be had
    #[command(flatten)]
    pub fetch: FetchOptions,
}

/// Runs the command.
///
/// # Errors
/// When a build fails, something is missing, or the images differ.
pub fn run(args: &Args) -> Result<()> {
    if let Some(image) = &args.against {
        ensure!(image.is_file(), "--against {image}: there is no such file");
    }
    let options = Options {
        product: args.product.clone(),
        against: args.against.clone(),
        keep: args.keep,
        keys: super::image::root_folder(&args.keys),
        fetch: args.fetch.clone(),
    };
    let outcome = reproduce::run(&options)?;
    eprint!("{}", report(&outcome));
    if let Some(difference) = &outcome.difference {
        bail!("the images differ. The first difference: {difference}");
    }
    if let Some(difference) = &outcome.release_difference {
        bail!("the images are the same, their releases differ: {difference}");
    }
    super::print(format_args!("{}  {}.img\n", outcome.sha256, args.product))
}

fn report(outcome: &Outcome) -> String {
    let mut text = String::new();
    let width = outcome.varied.iter().map(|varied| varied.what.len()).max().unwrap_or(0);
    // Writing to a String cannot fail.
    for varied in &outcome.varied {
        let _ = writeln!(text, "varied       {:width$}  {} | {}", varied.what, varied.first, varied.second);
    }
    for (what, why) in &outcome.skipped {
        let _ = writeln!(text, "NOT VARIED   {what}: {why}");
    }
    for path in &outcome.kept {
        let _ = writeln!(text, "kept         {path}");
    }
    text
}
