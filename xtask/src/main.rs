//! `cargo xtask`: the builder's command line.
//!
//! Only the process; the commands are the library's.

use std::process::ExitCode;

use xtask::cli::Cli;

fn main() -> ExitCode {
    if let Some(status) = xtask::reproduce::inside::entered() {
        return status;
    }
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
