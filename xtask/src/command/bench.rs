//! `cargo xtask bench`: measures ours against its peers.

use anyhow::Result;
use camino::Utf8PathBuf;

use crate::archive::cache::FetchOptions;
use crate::bench::build::room;
use crate::bench::{LEAST_ROUNDS, Report, boot, build, delta, memory, samba};

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench boot                                 five rounds of each
  cargo xtask bench memory --rounds 9
  cargo xtask bench build --rounds 5 --json build.json   for other programs, too";

/// Measure ours against its peers, in turn and in one run
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Which {
    /// From the start of the kernel to the first lease on the LAN
    Boot(Common),
    /// The RAM of a whole running gateway, idle
    Memory(Common),
    /// Building an image from cached packages, nothing built yet
    Build(Common),
    /// What an update fetches, of real package history, against other techniques
    Delta(Common),
    /// A gigabyte to a share and back: the component samba against a plain Debian root (as root)
    Samba(Common),
    #[command(hide = true)]
    Room(room::Args),
}

/// What every benchmark can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// How often each subject is measured
    #[arg(long, value_name = "N", default_value_t = LEAST_ROUNDS, value_parser = clap::value_parser!(u32).range(i64::from(LEAST_ROUNDS)..=1000))]
    pub rounds: u32,
    /// Write the result as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<Utf8PathBuf>,
    /// How packages may be had
    #[command(flatten)]
    pub fetch: FetchOptions,
}

/// Runs the command.
///
/// # Errors
/// When something a benchmark needs is missing, or a subject fails.
pub fn run(args: &Args) -> Result<()> {
    match &args.which {
        Which::Boot(common) => measure(common, boot::run),
        Which::Memory(common) => measure(common, memory::run),
        Which::Build(common) => measure(common, build::run),
        Which::Delta(common) => measure(common, delta::run),
        Which::Samba(common) => measure(common, samba::run),
        Which::Room(args) => room::enter(args),
    }
}

fn measure(common: &Common, bench: impl FnOnce(&Common) -> Result<Report>) -> Result<()> {
    // Found before hours of measuring, not after.
    common.json.as_deref().map_or(Ok(()), super::ensure_writable)?;
    let report = bench(common)?;
    if let Some(path) = &common.json {
        report.save(path)?;
    }
    super::print(report)
}
