//! `cargo xtask test`: everything there is to test, and one line that says how it went.
//!
//! Three stages: the workspace's own tests, the image, the tests that boot it, beside those that run in name spaces: both
//! wait more than they work. A stage that cannot run is counted as failed; a test that cannot run here is counted as skipped, with its reason, never as passed.

mod tally;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use self::tally::Tally;
use crate::archive::cache::{Cache, FetchOptions};
use crate::archive::lock_file::LockFile;
use crate::component;
use crate::image::{self, ImageOptions};
use crate::qemu::{Accel, accel};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// The package whose tests boot the image.
const QEMU_TESTS: &str = "qemu-tests";
/// Its program that boots machines, and takes longer than all others together.
const MACHINES: &str = "vm";
/// Its other programs.
const OTHERS: [&str; 4] = ["component", "harness", "peers", "reproduce"];
/// The component that is tested.
const SAMBA: &str = "samba";
/// Tells the tests which image to boot.
pub const IMAGE: &str = "KONTOR_IMAGE";
/// Tells the tests which program was built into it.
pub const PROGRAM: &str = "KONTOR_PROGRAM";

const EXAMPLES: &str = "\
Examples:
  cargo xtask test             everything
  cargo xtask test lease       tests whose name contains this
  cargo xtask test --no-qemu   no image, no machines";

/// Run every test: of the crates, of the daemons against real peers, and of the image in QEMU
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only tests whose name contains this
    pub filter: Option<String>,
    /// Build no image and boot nothing
    #[arg(long)]
    pub no_qemu: bool,
    /// How packages may be had
    #[command(flatten)]
    pub fetch: FetchOptions,
}

/// Runs the command.
///
/// # Errors
/// When any test fails.
pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let mut tally = Tally::default();
    stage("tests of the workspace");
    cargo_test(&["--workspace", "--exclude", QEMU_TESTS], args, &[], &mut tally)?;
    let variables = match prepare(args) {
        Ok(variables) => variables,
        Err(error) => {
            eprintln!("error: {error:#}");
            tally.fail(&format!("the image and its tools: {error:#}"));
            Vec::new()
        }
    };
    stage("tests in namespaces and QEMU");
    tally.add(side_by_side(args, &variables)?);
    print!("{}", tally.summary(started.elapsed()));
    std::io::stdout().flush()?;
    if let Some(filter) = args.filter.as_ref().filter(|_| tally.is_empty()) {
        bail!("no test's name contains {filter:?}; `cargo xtask test` without it runs all");
    }
    if tally.failed > 0 { bail!("{} tests failed", tally.failed) } else { Ok(()) }
}

/// The tests of images: machines on one side, everything else on the other.
fn side_by_side(args: &Args, variables: &[(&'static str, String)]) -> Result<Tally> {
    let run = |targets: &[&[&str]]| {
        let mut tally = Tally::default();
        for target in targets {
            let words = [&["--package", QEMU_TESTS], *target].concat();
            cargo_test(&words, args, variables, &mut tally)?;
        }
        Ok::<_, anyhow::Error>(tally)
    };
    let mut others = vec!["--lib"];
    OTHERS.iter().for_each(|name| others.extend(["--test", name]));
    std::thread::scope(|scope| {
        let machines = scope.spawn(|| run(&[&["--test", MACHINES]]));
        let mut tally = run(&[&others, &["--doc"]])?;
        tally.add(machines.join().map_err(|_| anyhow!("the tests of machines panicked"))??);
        Ok(tally)
    })
}

fn stage(name: &str) {
    eprintln!("\n=== {name}");
}

/// Builds what the tests need; the environment that tells them.
fn prepare(args: &Args) -> Result<Vec<(&'static str, String)>> {
    if args.no_qemu {
        return Ok(Vec::new());
    }
    stage("the image");
    let options = ImageOptions { fetch: args.fetch.clone(), ..ImageOptions::default() };
    let built = image::build(&options)?;
    let workspace = Workspace::locate();
    let program = image::firmware::build(&workspace)?;
    let mut lock = LockFile::load(workspace.lock_file())?;
    let cache = Cache::open(&args.fetch)?;
    component::build(SAMBA, &args.fetch)?;
    // Clients are unpacked beside: what a PC in the office has.
    let sets = ["peers", SAMBA];
    cache.provide(&mut lock, &sets)?;
    for set in sets {
        Tools::prepare_set(set, &lock, &cache, workspace.target())?;
    }
    let accel = Accel::detect(&built.tools)?;
    eprintln!("guests run by {}", accel.name());
    Ok(vec![(IMAGE, built.path.into()), (PROGRAM, program.into()), (accel::VARIABLE, accel.name().into())])
}

/// Runs `cargo test`, shows its output as it comes, and counts.
fn cargo_test(
    packages: &[&str],
    args: &Args,
    variables: &[(&'static str, String)],
    tally: &mut Tally,
) -> Result<()> {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.current_dir(Workspace::locate().root()).args(["test", "--no-fail-fast"]).args(packages);
    command.args(&args.filter).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in [IMAGE, PROGRAM] {
        command.env_remove(variable);
    }
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let mut child = command.spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo's output")?;
    let messages = child.stderr.take().context("cargo's messages")?;
    let before = tally.failed;
    let shared = Mutex::new(tally);
    std::thread::scope(|scope| {
        let messages = scope.spawn(|| follow(messages, &mut std::io::stderr(), &shared));
        let result = follow(output, &mut std::io::stdout(), &shared);
        messages.join().map_err(|_| anyhow!("following cargo's messages panicked"))?.and(result)
    })?;
    let tally = shared.into_inner().map_err(|_| anyhow!("counting panicked"))?;
    let status = child.wait().context("waiting for cargo")?;
    if !status.success() && tally.failed == before {
        tally.fail(&format!("cargo test {} ended with {status} (see above)", packages.join(" ")));
    }
    Ok(())
}

/// Shows every line as it comes, and counts it.
fn follow(from: impl Read, to: &mut impl Write, tally: &Mutex<&mut Tally>) -> Result<()> {
    for line in BufReader::new(from).split(b'\n') {
        let line = line.context("reading cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(to, "{line}")?;
        tally.lock().map_err(|_| anyhow!("counting panicked"))?.line(&line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_test_program_is_forgotten() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../qemu-tests/tests");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<String> =
            entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        found.sort();
        let mut named = OTHERS.to_vec();
        named.push(MACHINES);
        named.sort_unstable();
        assert_eq!(found, named);
    }
}
