//! The daemons as built, against real clients of the locked tool set, in network namespaces of the test's own.
//!
//! Each scenario runs in a process of its own (this program in another role), because becoming root in a user
//! namespace is for single-threaded processes, and for good.

mod office;
mod scenarios;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use qemu_tests::artefacts::Artefacts;
use qemu_tests::{guard, namespace};
use scenarios::SCENARIOS;

/// First argument of this program when it is to play a scenario; its name and directory follow.
const SCENARIO_ROLE: &str = "--role-scenario";
/// Exit status of a scenario that cannot run here.
const SKIPPED: u8 = 77;
/// Name under which DHCP clients start this program as their script.
const HOOK: &str = "kontor-test-hook";

fn main() -> ExitCode {
    if let Some(code) = guard::role() {
        return code;
    }
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [program, rest @ ..] if Path::new(program).file_name().is_some_and(|name| name == HOOK) => {
            return office::hook(Path::new(program), rest);
        }
        [_, namespace::HOLD_ROLE] => {
            namespace::hold();
            return ExitCode::SUCCESS;
        }
        [_, SCENARIO_ROLE, name, directory, program] => {
            return play(name, Path::new(directory), Path::new(program));
        }
        _ => {}
    }
    let arguments = Arguments::from_args();
    let program = std::env::var_os(xtask::command::test::PROGRAM).map(PathBuf::from);
    if program.is_none() && !arguments.list {
        println!("SKIPPED: every test in namespaces: there is no program; `cargo xtask test` builds one");
    }
    let trials = SCENARIOS.iter().map(|(name, _)| trial(name, program.clone())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &'static str, program: Option<PathBuf>) -> Trial {
    let ignored = program.is_none();
    let run = move || {
        let program = program.context("no program").map_err(|error| Failed::from(error.to_string()))?;
        start(name, &program).map_err(|error| Failed::from(format!("{error:#}")))
    };
    Trial::ignorable_test(name, run).with_ignored_flag(ignored)
}

/// Plays a scenario in a process of its own.
fn start(name: &str, program: &Path) -> Result<Completion> {
    let artefacts = Artefacts::create(name)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([SCENARIO_ROLE, name]).arg(artefacts.directory()).arg(program).stdin(Stdio::null());
    let output = guard::with_parent(&command)?.stdin(Stdio::null()).output()?;
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

fn play(name: &str, directory: &Path, program: &Path) -> ExitCode {
    if let Err(error) = namespace::become_root() {
        eprintln!("{error:#}");
        return ExitCode::from(SKIPPED);
    }
    let Some((_, scenario)) = SCENARIOS.iter().find(|(known, _)| *known == name) else {
        eprintln!("there is no scenario {name}");
        return ExitCode::FAILURE;
    };
    match office::Office::open(directory, program).and_then(|office| scenario(&office)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
