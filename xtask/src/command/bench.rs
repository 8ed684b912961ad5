//! `cargo xtask bench`: measures ours against its peers.

use anyhow::Result;
use camino::Utf8PathBuf;

use crate::bench::LEAST_ROUNDS;

/// Measure ours against its peers, in turn and in one run
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Which {}

/// What every benchmark can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// How often each subject is measured
    #[arg(long, value_name = "N", default_value_t = LEAST_ROUNDS, value_parser = clap::value_parser!(u32).range(i64::from(LEAST_ROUNDS)..=1000))]
    pub rounds: u32,
    /// Write the result as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<Utf8PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When something a benchmark needs is missing, or a subject fails.
pub fn run(args: &Args) -> Result<()> {
    match args.which {}
}
