//! `cargo xtask bench`: measures ours against its peers.

use anyhow::Result;
use camino::Utf8PathBuf;

use crate::archive::cache::FetchOptions;
use crate::bench::build::room;
use crate::bench::{LEAST_ROUNDS, Report, boot, build, memory};

/// Measure ours against its peers, in turn and in one run
#[derive(Debug, Clone, clap::Args)]
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
        Which::Boot(common) => finish(common, &boot::run(common)?),
        Which::Memory(common) => finish(common, &memory::run(common)?),
        Which::Build(common) => finish(common, &build::run(common)?),
        Which::Room(args) => room::enter(args),
    }
}

fn finish(common: &Common, report: &Report) -> Result<()> {
    if let Some(path) = &common.json {
        report.save(path)?;
    }
    super::print(report)
}
