//! Components as built, run in name spaces on this machine, against real clients of the locked packages.
//!
//! Each scenario runs in a process of its own (this program in another role), in a network name space of its own. A component
//! has files of several users, so its scenarios need root; without it they are skipped, and say so.

mod branch;
mod company;
mod headquarters;
mod scenarios;
mod sites;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use qemu_tests::artefacts::Artefacts;
use qemu_tests::{guard, namespace};
use scenarios::SCENARIOS;

/// First argument of this program when it is to play a scenario; its name, directory and the firmware's program follow.
const SCENARIO_ROLE: &str = "--role-scenario";
/// Exit status of a scenario that cannot run here.
const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    if let Some(code) = guard::role() {
        return code;
    }
    let words: Vec<String> = std::env::args().collect();
    if let [_, role, name, directory, program] = words.as_slice()
        && role == SCENARIO_ROLE
    {
        return played(name, Path::new(directory), Path::new(program));
    }
    let arguments = Arguments::from_args();
    let program = std::env::var_os(xtask::command::test::PROGRAM).map(PathBuf::from);
    let reason = match (&program, nix::unistd::geteuid().is_root()) {
        (None, _) => Some("there is no program; `cargo xtask test` builds one"),
        (_, false) => Some("a component has files of several users: run by root only"),
        (Some(_), true) => None,
    };
    if let Some(reason) = reason.filter(|_| !arguments.list) {
        println!("SKIPPED: every test of components: {reason}");
    }
    let ignored = reason.is_some();
    let trials = SCENARIOS.iter().map(|(name, _)| trial(name, program.clone(), ignored)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &'static str, program: Option<PathBuf>, ignored: bool) -> Trial {
    let run = move || {
        let started = program.context("no program").and_then(|program| start(name, &program));
        started.map_err(|error| Failed::from(format!("{error:#}")))
    };
    Trial::ignorable_test(name, run).with_ignored_flag(ignored)
}

/// Plays a scenario in a process of its own.
fn start(name: &str, program: &Path) -> Result<Completion> {
    let artefacts = Artefacts::create(name)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([SCENARIO_ROLE, name]).arg(artefacts.directory()).arg(program);
    let output = guard::with_parent(&command)?.stdin(Stdio::null()).output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) => artefacts.remove().map(|()| Completion::Completed),
        Some(SKIPPED) => {
            println!("SKIPPED: {name}: {}", said.trim());
            Ok(Completion::ignored_with(said.trim()))
        }
        _ => Err(anyhow!("{}\nlogs are kept in {}", said.trim(), artefacts.directory().display())),
    }
}

fn played(name: &str, directory: &Path, program: &Path) -> ExitCode {
    if let Err(error) = namespace::leave_network() {
        eprintln!("{error:#}");
        return ExitCode::from(SKIPPED);
    }
    let outcome = match SCENARIOS.iter().find(|(known, _)| *known == name) {
        Some((_, scenario)) => {
            let directory = std::fs::canonicalize(directory).context("the scenario's directory");
            directory.and_then(|directory| scenario(&directory, program))
        }
        None => Err(anyhow!("there is no scenario {name}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
