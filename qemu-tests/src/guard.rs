//! Processes that must not outlive the test program, however it ends.
//!
//! The kernel kills a process with its parent when asked to (PR_SET_PDEATHSIG), but the process must ask
//! itself, before it becomes the program wanted. So the test program starts itself once more in the role
//! [`ROLE`], asks, and executes the program in its place.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// First argument of the test program in this role; the program and its arguments follow.
pub const ROLE: &str = "--role-die-with-parent";

/// `command`, as a process that ends with this one.
///
/// # Errors
/// When this program does not know its own path.
pub fn with_parent(command: &Command) -> Result<Command> {
    let mut guarded = Command::new(std::env::current_exe().context("path of the test program")?);
    guarded.arg(ROLE).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => guarded.env(name, value),
            None => guarded.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        guarded.current_dir(directory);
    }
    Ok(guarded)
}

/// The role: to be called first thing in a test program's `main`. Returns only when this is not it.
#[must_use]
pub fn role() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != ROLE {
        return None;
    }
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        eprintln!("cannot ask to end with the parent: {error}");
    }
    let program = args.next()?;
    let error = Command::new(&program).args(args).exec();
    eprintln!("cannot execute {}: {error}", program.display());
    Some(ExitCode::from(127))
}
