//! The `component` applet: a component, kept in name spaces of its own.
//!
//! `run` is one process outside, which PID 1 (or a developer) supervises, and one inside, which is process 1 of the
//! component: it puts the component's root together ([`root`]), prepares what its services read ([`office`]) and supervises
//! them ([`runner`]). Whatever a component does, it does in there; when either of the two ends, everything in there ends.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kontor_component::{MANIFEST_PATH, Manifest};
use serde::{Deserialize, Serialize};

mod capabilities;
mod certificate;
mod errands;
mod exec;
mod image;
mod join;
mod migration;
mod office;
mod outside;
mod processes;
mod quotas;
mod ready;
mod root;
mod runner;
mod samba;
pub(crate) mod seeded;
mod service;
mod setup;
mod shares;
mod snapshots;

pub(crate) use exec::tool;
use image::Root;
pub(crate) use office::role;
use outside::Follow;

/// How the process inside is called, by which `main` tells it from PID 1 of the box.
pub(crate) const INSIDE: &str = "kontor-component";

const USAGE: &str =
    "usage: kontor component run --root DIR --state DIR --run DIR --site FILE --board FILE [--join FILE]
       kontor component exec --run DIR -- NAME [arguments]
       kontor component join --run DIR USER
       kontor component preload --run DIR
       kontor component service NAME
       kontor component snapshot NAME
       kontor component quotas NAME

run   runs the component whose root directory is given, until SIGTERM
      --root   its root, read-only in the component
      --state  where what it keeps lies; made if it is not there
      --run    where it says how it is doing
      --site   the office's site file
      --board  the machine's board file
      --join   two lines, user and password, to join a domain with; wiped when they have been used
exec  runs one of the component's operator commands, or a program by its absolute path
join  gives the component the password of USER, from standard input, to join the domain of its site file
preload
      fetches the passwords that a read-only domain controller keeps, now
service
      runs the component NAME of this box's release, from its image; PID 1 starts this
snapshot
      makes a previous version of every share of this box that has them, now
quotas
      gives every share of this box the room that the site file says";

/// Where everything is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Places {
    name: String,
    root: Root,
    state: PathBuf,
    run: PathBuf,
    site: PathBuf,
    board: PathBuf,
    /// Where a password to join a domain with may lie.
    join: Option<PathBuf>,
}

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (command, rest) = args.split_first().map_or(("", args), |(first, rest)| (first.as_str(), rest));
    match command {
        "run" => outside::run(&Places::of_a_directory(rest)?, Follow::Nothing),
        "exec" => exec::run(rest),
        "join" => join::run(rest),
        join::FROM_FILE => join::run_from_file(rest),
        seeded::WIPE => seeded::run(rest),
        "preload" => exec::preload(rest),
        "service" => match rest {
            [name] => service::run(name),
            _ => bail!("which component?\n{USAGE}"),
        },
        "quotas" => match rest {
            [name] => quotas::run(name),
            _ => bail!("of which component?\n{USAGE}"),
        },
        "snapshot" => match rest {
            [name] => snapshots::run(name),
            _ => bail!("of which component?\n{USAGE}"),
        },
        setup::ARGUMENT => setup::run(rest),
        samba::passwords::ARGUMENT => samba::passwords::run(rest),
        samba::accounts::ARGUMENT => samba::accounts::run(),
        samba::health::ARGUMENT => samba::health::run(rest),
        samba::locator::ARGUMENT => samba::locator::run(),
        samba::restore::ARGUMENT => samba::restore::request(rest),
        "--help" | "help" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("which command?\n{USAGE}"),
    }
}

/// Process 1 of the component; `args` are those of [`outside::run`].
pub(crate) fn inside(args: &[String]) -> anyhow::Result<()> {
    let places = args.first().filter(|_| std::process::id() == 1);
    let places = places.context("only `kontor component run` starts this")?;
    let result = runner::run(&serde_json::from_str(places)?);
    processes::end_everybody();
    result
}

/// The manifest of the component whose root is a directory.
fn manifest(root: &Path) -> anyhow::Result<Manifest> {
    let path = root.join(MANIFEST_PATH.trim_start_matches('/'));
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Manifest::parse(&text).with_context(|| path.display().to_string())
}

impl Places {
    /// Those of a component whose root is a directory, which says what it is called.
    fn of_a_directory(args: &[String]) -> anyhow::Result<Self> {
        let mut places = Self::parse(args)?;
        if let Root::Directory(root) = &places.root {
            places.name = manifest(root)?.name;
        }
        Ok(places)
    }

    fn parse(args: &[String]) -> anyhow::Result<Self> {
        let [mut root, mut state, mut run, mut site, mut board, mut join] = [const { None }; 6];
        let mut words = args.iter();
        while let Some(flag) = words.next() {
            let place = match flag.as_str() {
                "--root" => &mut root,
                "--state" => &mut state,
                "--run" => &mut run,
                "--site" => &mut site,
                "--board" => &mut board,
                "--join" => &mut join,
                _ => bail!("{flag:?} is not an option of `run`\n{USAGE}"),
            };
            let value = words.next().with_context(|| format!("{flag} needs a path\n{USAGE}"))?;
            *place = Some(std::path::absolute(value).with_context(|| value.clone())?);
        }
        let given =
            |place: Option<PathBuf>, flag| place.with_context(|| format!("{flag} is missing\n{USAGE}"));
        let root = given(root, "--root")?;
        Ok(Self {
            name: String::new(),
            root: Root::Directory(root),
            state: given(state, "--state")?,
            run: given(run, "--run")?,
            site: given(site, "--site")?,
            board: given(board, "--board")?,
            join,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_must_be_named() {
        let parse = |line: &str| Places::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let places = parse("--root /r --state /s --run /x --board /b --site /site.toml").unwrap();
        assert!(matches!(places.root, Root::Directory(root) if root == Path::new("/r")));
        assert_eq!(places.site, Path::new("/site.toml"));
        assert!(
            parse("--root /r --state /s --run /x --board /b")
                .unwrap_err()
                .to_string()
                .starts_with("--site is missing")
        );
        assert!(parse("--root").unwrap_err().to_string().starts_with("--root needs a path"));
        assert!(parse("--image /r").unwrap_err().to_string().starts_with("\"--image\" is not an option"));
    }
}
