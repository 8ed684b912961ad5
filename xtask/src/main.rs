//! `cargo xtask`: the builder's command line.
//!
//! Only chooses the command; each lives in a file of its own below `command/`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::command::{bench, flash, image, lock, reproduce, run, sbom, site, sizes, test};

/// Builds, runs and tests the Kontor firmware; needs no root and no tools but cargo.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lock(lock::Args),
    Image(image::Args),
    Flash(flash::Args),
    Run(run::Args),
    Test(test::Args),
    Reproduce(reproduce::Args),
    Sizes(sizes::Args),
    Sbom(sbom::Args),
    Site(site::Args),
    Bench(bench::Args),
}

fn main() -> ExitCode {
    if let Some(status) = xtask::reproduce::inside::entered() {
        return status;
    }
    let result = match Cli::parse().command {
        Command::Lock(args) => lock::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Flash(args) => flash::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
        Command::Sizes(args) => sizes::run(&args),
        Command::Sbom(args) => sbom::run(&args),
        Command::Site(args) => site::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
