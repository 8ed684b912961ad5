//! `cargo xtask keys`: makes, replaces and shows the keys that sign releases.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use camino::Utf8PathBuf;
use kontor_trust::tough::schema::RoleType;

use crate::publish::keys::{Keys, ensure_outside_git, short};
use crate::publish::repository::EARLY_OFFLINE_DAYS;
use crate::publish::root::{self, Quorum};
use crate::publish::{DAY_S, now};

const EXAMPLES: &str = "\
Examples:
  cargo xtask keys --keys /media/stick/kontor init --root 3 --root-threshold 2
  cargo xtask keys --keys /media/stick/kontor show
  cargo xtask keys --keys /media/stick/kontor:/media/other rotate timestamp
  cargo xtask keys --keys /media/stick/kontor renew              the same keys, two more years

Then keep the files root-*.pem and targets-*.pem offline, copy snapshot-*.pem, timestamp-*.pem and *.root.json to where
`publish --refresh` runs, and build images with --keys (or KONTOR_KEYS) naming a folder with root.json.";

/// Make, replace and show the keys that sign releases
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where keys and roots are; several folders are separated by colons, new keys go to the first
    #[arg(
        long,
        env = "KONTOR_KEYS",
        value_name = "DIR",
        value_delimiter = ':',
        required = true,
        global = false
    )]
    pub keys: Vec<Utf8PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Make all keys and the first root.json, in a new folder
    Init(Init),
    /// Make new keys for a role, and the next root.json, signed by the old root and the new one
    Rotate(Rotate),
    /// Sign the same keys for two more years
    Renew,
    /// Print who may sign what, until when, and which private keys are here
    Show,
}

/// How many keys there are for each role, and how many of them must sign.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Init {
    /// Keys for root
    #[arg(long, default_value_t = 1, value_name = "N")]
    root: u64,
    /// Of which so many must sign
    #[arg(long, default_value_t = 1, value_name = "N")]
    root_threshold: u64,
    /// Keys for targets, which sign releases
    #[arg(long, default_value_t = 1, value_name = "N")]
    targets: u64,
    /// Of which so many must sign
    #[arg(long, default_value_t = 1, value_name = "N")]
    targets_threshold: u64,
    /// Keys for snapshot, on the server
    #[arg(long, default_value_t = 1, value_name = "N")]
    snapshot: u64,
    /// Of which so many must sign
    #[arg(long, default_value_t = 1, value_name = "N")]
    snapshot_threshold: u64,
    /// Keys for timestamp, on the server
    #[arg(long, default_value_t = 1, value_name = "N")]
    timestamp: u64,
    /// Of which so many must sign
    #[arg(long, default_value_t = 1, value_name = "N")]
    timestamp_threshold: u64,
}

#[derive(Debug, Clone, clap::Args)]
struct Rotate {
    /// root, targets, snapshot or timestamp
    #[arg(value_parser = role)]
    role: RoleType,
    /// So many new keys [default: as many as before]
    #[arg(long, value_name = "N", requires = "threshold")]
    count: Option<u64>,
    /// Of which so many must sign
    #[arg(long, value_name = "N", requires = "count")]
    threshold: Option<u64>,
}

fn role(text: &str) -> Result<RoleType, String> {
    let known = root::ROLES.into_iter().find(|role| role.to_string() == text);
    known.ok_or_else(|| "a role is root, targets, snapshot or timestamp".to_owned())
}

/// Runs the command.
///
/// # Errors
/// When keys are missing, or cannot be read or written.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Show => return super::print(show(&Keys::open(&args.keys)?)?),
        Command::Init(init) => {
            ensure_outside_git(&args.keys[0])?;
            root::init(&args.keys[0], &init.quorums(), false)?;
        }
        Command::Rotate(Rotate { role, count, threshold }) => {
            ensure_outside_git(&args.keys[0])?;
            let quorum = count.zip(*threshold).map(|(keys, threshold)| Quorum { keys, threshold });
            root::next(&args.keys, Some(*role), quorum)?;
        }
        Command::Renew => {
            root::next(&args.keys, None, None)?;
        }
    }
    let keys = Keys::open(&args.keys)?;
    ensure!(keys.root().version.get() > 0, "there is no root");
    super::print(show(&keys)?)
}

impl Init {
    fn quorums(self) -> BTreeMap<&'static str, Quorum> {
        let quorum = |keys, threshold| Quorum { keys, threshold };
        BTreeMap::from([
            ("root", quorum(self.root, self.root_threshold)),
            ("targets", quorum(self.targets, self.targets_threshold)),
            ("snapshot", quorum(self.snapshot, self.snapshot_threshold)),
            ("timestamp", quorum(self.timestamp, self.timestamp_threshold)),
        ])
    }
}

fn show(keys: &Keys) -> Result<String> {
    let root = keys.root();
    let mut text = String::new();
    let development = if root::is_development(root) { ", for trying things only" } else { "" };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "root {}, valid until {}{development}", root.version, root.expires);
    let left = u64::try_from(root.expires.as_second()).unwrap_or(0).saturating_sub(now()?) / DAY_S;
    if left < EARLY_OFFLINE_DAYS {
        let _ = writeln!(text, "WARNING: it expires in {left} days; `keys renew` signs the next one");
    }
    for role in root::ROLES {
        let Some(quorum) = root.roles.get(&role) else { continue };
        let (here, threshold) = keys.available(role);
        let _ = writeln!(text, "{role}: {threshold} of {} must sign, {here} here", quorum.keyids.len());
        for id in &quorum.keyids {
            let id = crate::image::step::hex(id);
            let place = keys.path(&id).map_or("not here", |path| path.as_str());
            let _ = writeln!(text, "  {}  {place}", short(&id));
        }
    }
    Ok(text)
}
