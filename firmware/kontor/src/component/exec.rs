//! Running a program in a component that is running: how operators use its tools.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use kontor_component::Manifest;
use kontor_sys::spawn::confine;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{chdir, chroot};

use super::capabilities::capabilities_of_tools;
use super::office::Office;
use super::outside::pid_inside;
use super::runner::environment;
use super::samba::{passwords, restore};
use super::{INSIDE, join, manifest, service, snapshots};

/// What is done from outside, because no tool inside could.
const SNAPSHOT: &str = "snapshot";
/// The whole domain as one file.
const BACKUP: &str = "backup";
/// Name spaces to enter, the one for mounts last: then this process sees no paths of its own any more.
const SPACES: [(&str, CloneFlags); 5] = [
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// `--run DIR -- NAME [arguments]`; ends with the program's own exit code.
pub(super) fn run(args: &[String]) -> anyhow::Result<()> {
    let (run, name, rest) = match args {
        [flag, run, dashes, name, rest @ ..] if flag == "--run" && dashes == "--" => (run, name, rest),
        _ => bail!("usage: kontor component exec --run DIR -- NAME [arguments]"),
    };
    enter(pid_inside(Path::new(run))?)?;
    let manifest = manifest(Path::new("/"))?;
    let mut command = Command::new(program(name, &manifest)?);
    command.args(rest).arg0(name);
    finish(command, &manifest)
}

/// `--run DIR`: this program in the component, to fetch the passwords that it keeps; ends with its exit code.
pub(super) fn preload(args: &[String]) -> anyhow::Result<()> {
    let run = match args {
        [flag, run] if flag == "--run" => run,
        _ => bail!("usage: kontor component preload --run DIR"),
    };
    own(Path::new(run), &[passwords::ARGUMENT, passwords::ONCE])
}

/// This program in the component, which has this subcommand; ends with its exit code.
fn own(run: &Path, words: &[&str]) -> anyhow::Result<()> {
    enter(pid_inside(run)?)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("component").args(words);
    finish(command, &manifest(Path::new("/"))?)
}

/// With what a component's programs find around them, and no rights that it has not.
fn finish(mut command: Command, manifest: &Manifest) -> anyhow::Result<()> {
    command.env_clear().envs(environment());
    command.envs(std::env::vars().filter(|(name, _)| name == "TERM"));
    confine(&mut command, &capabilities_of_tools(manifest)?);
    // A child, not this process: the name space for processes holds for children only.
    let status = command.status().with_context(|| command.get_program().display().to_string())?;
    std::process::exit(status.code().unwrap_or(1));
}

/// Runs a tool of a component of this box for an operator: one of its commands, or without the name of one, its first.
/// Nothing else: that takes a root shell. `join USER`, `preload`, `snapshot`, `backup` and `restore` are the firmware's own.
pub(crate) fn tool(component: &str, words: &[String]) -> anyhow::Result<()> {
    if words == [SNAPSHOT] {
        return snapshots::run(component);
    }
    let manifest = service::shipped(component)?.manifest;
    let known = |word: &&String| manifest.command.iter().any(|command| command.name == **word);
    let first = match words.first().filter(known) {
        Some(_) => None,
        None => Some(manifest.command.first().context("it has no commands")?.name.clone()),
    };
    let run = ["--run".to_owned(), service::run_directory(component).display().to_string()];
    match words {
        [word, rest @ ..] if word == "join" => return join::run(&[&run, rest].concat()),
        [word] if word == "preload" => return preload(&run),
        [word] if word == BACKUP => {
            ensure!(!is_preparing(&service::run_directory(component))?, "{component} is not ready yet");
            let places = service::places_of(component)?;
            let role =
                Office::of(&places)?.with_context(|| format!("the site file has no [{component}]"))?.role;
            let backup = manifest.backup(&role);
            let backup =
                backup.with_context(|| format!("as {role} it has nothing that needs a backup of its own"))?;
            let flags = run.into_iter().chain(["--".to_owned()]);
            return self::run(&flags.chain(backup.command.iter().cloned()).collect::<Vec<_>>());
        }
        [word, ..] if word == restore::ARGUMENT => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            return own(&service::run_directory(component), &words);
        }
        _ => {}
    }
    let flags = run.into_iter().chain(["--".to_owned()]);
    let words: Vec<String> = flags.into_iter().chain(first).chain(words.iter().cloned()).collect();
    self::run(&words).with_context(|| format!("{component} (`status` and `logs {component}` say how it is)"))
}

/// Whether it still has the site file, which is nobody's business later, and in no backup.
fn is_preparing(run: &Path) -> anyhow::Result<bool> {
    let directory = PathBuf::from(format!("/proc/{}/root", pid_inside(run)?)).join("run/kontor");
    Ok(directory.join(super::office::SITE).exists())
}

/// This process joins the component, but for its children's name space for processes.
pub(super) fn enter(pid: i32) -> anyhow::Result<()> {
    let open = |(name, flag): &(&str, CloneFlags)| Ok((File::open(format!("/proc/{pid}/ns/{name}"))?, *flag));
    let spaces: std::io::Result<Vec<_>> = SPACES.iter().map(open).collect();
    let spaces = spaces.context("it does not run any more")?;
    // After they were opened: a number that has become another process's would lead into that one's.
    ensure!(is_process_1_of_a_component(pid), "it does not run any more: {pid} is another process");
    for (space, flag) in spaces {
        setns(space, flag).context("cannot enter the component (only root may)")?;
    }
    // Another name space for mounts has another root.
    chroot("/").and_then(|()| chdir("/")).context("the component's root")
}

/// By what it is called, and by its number in its own name space (proc_pid_status(5), `NSpid`).
fn is_process_1_of_a_component(pid: i32) -> bool {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_ascii_whitespace().collect();
    read("cmdline").split('\0').next() == Some(INSIDE) && numbers.len() > 1 && numbers.last() == Some(&"1")
}

fn program(name: &str, manifest: &Manifest) -> anyhow::Result<PathBuf> {
    if name.starts_with('/') {
        return Ok(name.into());
    }
    let found = manifest.command.iter().find(|command| command.name == name);
    let found = found.with_context(|| {
        let known: Vec<&str> = manifest.command.iter().map(|command| command.name.as_str()).collect();
        format!("{name:?} is not a command of {}, which has {}", manifest.name, known.join(", "))
    });
    found.map(|command| command.program.clone().into())
}
