//! The command line: which commands there are, and which of their flags make no sense together.
//!
//! Each command's arguments are declared beside it, below `command/`.

use std::ffi::OsString;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::command::{
    bench, component, flash, image, keys, lock, publish, release, reproduce, run, sbom, serve, site, sizes,
    test,
};

/// Builds, runs and tests the Kontor firmware; needs no root and no tools but cargo.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask image                                an image for every machine
  cargo xtask run                                  the same, booted in QEMU
  cargo xtask flash target/images/branch.img /dev/sdX   and onto a disk";

#[derive(Debug, Subcommand)]
enum Command {
    Lock(lock::Args),
    Image(image::Args),
    Component(component::Args),
    Flash(flash::Args),
    Run(run::Args),
    Test(test::Args),
    Reproduce(reproduce::Args),
    Sizes(sizes::Args),
    Sbom(sbom::Args),
    Site(site::Args),
    Keys(keys::Args),
    Release(release::Args),
    Publish(publish::Args),
    Serve(serve::Args),
    Bench(bench::Args),
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// When it is not one, or its flags contradict each other.
    pub fn read<W: Into<OsString> + Clone>(words: impl IntoIterator<Item = W>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(words)?;
        if let Some((name, given)) = matches.subcommand()
            && let Some(message) = contradiction(name, given)
        {
            let command = command.find_subcommand_mut(name);
            let error = |command: &mut clap::Command| command.error(ErrorKind::ArgumentConflict, message);
            return Err(command.map_or_else(|| clap::Error::new(ErrorKind::ArgumentConflict), error));
        }
        Self::from_arg_matches(&matches)
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Those of the command.
    pub fn run(&self) -> Result<()> {
        match &self.command {
            Command::Lock(args) => lock::run(args),
            Command::Image(args) => image::run(args),
            Command::Component(args) => component::run(args),
            Command::Flash(args) => flash::run(args),
            Command::Run(args) => run::run(args),
            Command::Test(args) => test::run(args),
            Command::Reproduce(args) => reproduce::run(args),
            Command::Sizes(args) => sizes::run(args),
            Command::Sbom(args) => sbom::run(args),
            Command::Site(args) => site::run(args),
            Command::Keys(args) => keys::run(args),
            Command::Release(args) => release::run(args),
            Command::Publish(args) => publish::run(args),
            Command::Serve(args) => serve::run(args),
            Command::Bench(args) => bench::run(args),
        }
    }
}

/// Flags that would be ignored beside another.
struct Contradiction {
    /// The command; none is every command.
    command: Option<&'static str>,
    flag: &'static str,
    ignored: &'static [&'static str],
    why: &'static str,
}

const MIRRORS: &[&str] = &["mirror", "mirror_security", "ignore_valid_until"];

/// Unlike clap's own conflicts these are about the command line only: `KONTOR_MIRROR` may be set for every command.
const CONTRADICTIONS: &[Contradiction] = &[
    Contradiction { command: None, flag: "offline", ignored: MIRRORS, why: "no network is used" },
    Contradiction {
        command: Some("lock"),
        flag: "check",
        ignored: MIRRORS,
        why: "the lock is only compared with the declared sets",
    },
    Contradiction { command: Some("lock"), flag: "prune", ignored: MIRRORS, why: "nothing is downloaded" },
    Contradiction {
        command: Some("test"),
        flag: "no_qemu",
        ignored: &["mirror", "mirror_security", "ignore_valid_until", "archive", "locked", "offline"],
        why: "no image is built, so no packages are needed for one",
    },
    Contradiction {
        command: Some("flash"),
        flag: "size",
        ignored: &["yes_erase_all_data_on_target"],
        why: "a new file has nothing on it to erase",
    },
];

/// What is wrong with the flags of a command, its subcommands' included.
fn contradiction(name: &str, given: &ArgMatches) -> Option<String> {
    let of_this = CONTRADICTIONS.iter().filter(|one| one.command.is_none_or(|command| command == name));
    let found = of_this.filter(|one| typed(given, one.flag)).find_map(|one| {
        let ignored = one.ignored.iter().find(|flag| typed(given, flag))?;
        let spelt = |flag: &str| format!("--{}", flag.replace('_', "-"));
        Some(format!("{} makes no sense with {}: {}", spelt(ignored), spelt(one.flag), one.why))
    });
    found.or_else(|| given.subcommand().and_then(|(name, given)| contradiction(name, given)))
}

/// Whether a flag stands on the command line; its default or the environment do not count.
fn typed(given: &ArgMatches, flag: &str) -> bool {
    let declared = given.ids().any(|id| id.as_str() == flag);
    declared && given.value_source(flag) == Some(ValueSource::CommandLine)
}
