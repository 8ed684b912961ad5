//! `cargo xtask publish`: puts releases into a repository, withdraws them, and signs anew.

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_update::{Version, release::is_name};

use crate::publish::keys::Keys;
use crate::publish::release::{Folder, default_folder};
use crate::publish::repository::{Outcome, Repository};
use crate::publish::rollout::{self, Rollout};
use crate::publish::{now, root, waves};
use crate::workspace::Workspace;

const EXAMPLES: &str = "\
Examples:
  cargo xtask publish 0.2.0 --to /srv/kontor --waves 0h:1%,24h:10%,72h:100%
  cargo xtask publish 0.2.0 --to /srv/kontor --start 2026-12-01T08:00:00Z
  cargo xtask publish 0.2.0 --to /srv/kontor --sign-later       where the keys of targets are, but not the server's
  cargo xtask publish --refresh --to /srv/kontor                where the server's keys are, each day, by cron
  cargo xtask publish --withdraw branch 0.2.0 --reason leases-lost --to /srv/kontor";

/// Put a release into a repository of static files, withdraw one, or sign the repository anew
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["version", "withdraw", "refresh"]))]
pub struct Args {
    /// The release to publish, from target/releases
    pub version: Option<Version>,
    /// The repository: a folder that a web server serves
    #[arg(long, value_name = "DIR")]
    pub to: Option<Utf8PathBuf>,
    /// Who gets it
    #[arg(long, value_name = "NAME", default_value = "stable", value_parser = channel)]
    pub channel: String,
    /// In which steps, as 0h:1%,24h:10%,72h:100% [default: as before, else everybody at once]
    #[arg(long, value_name = "WAVES", requires = "version")]
    pub waves: Option<String>,
    /// When the first step begins, as 2026-12-01T08:00:00Z [default: as before, else now]
    #[arg(long, value_name = "TIME", requires = "version")]
    pub start: Option<String>,
    /// The release's folder [default: target/releases/VERSION]
    #[arg(long, value_name = "DIR", requires = "version")]
    pub from: Option<Utf8PathBuf>,
    /// Withdraw a release: boxes that run it go back, others do not take it
    #[arg(long, num_args = 2, value_names = ["PRODUCT", "VERSION"], requires = "reason")]
    pub withdraw: Option<Vec<String>>,
    /// Why, for operators
    #[arg(long, value_name = "TEXT", requires = "withdraw")]
    pub reason: Option<String>,
    /// Sign snapshot and timestamp anew, also for targets that were signed elsewhere
    #[arg(long)]
    pub refresh: bool,
    /// Sign the targets alone; `publish --refresh` does the rest where the keys of snapshot and timestamp are
    #[arg(long, conflicts_with = "refresh")]
    pub sign_later: bool,
    /// After `keys rotate targets`: sign also what the replaced keys have signed, once it was compared
    #[arg(long, conflicts_with = "refresh")]
    pub vouch: bool,
    /// Where the keys are; several folders are separated by colons [default: this checkout's development keys]
    #[arg(long, env = "KONTOR_KEYS", value_name = "DIR", value_delimiter = ':')]
    pub keys: Vec<Utf8PathBuf>,
}

fn channel(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a name has lower-case letters, digits and dashes".to_owned())
    }
}

/// Runs the command.
///
/// # Errors
/// With the reason why nothing was published.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::locate();
    let to = args.to.clone().unwrap_or_else(|| workspace.target().join("repository"));
    let directories = match args.keys.is_empty() {
        true => vec![root::development(&workspace)?],
        false => args.keys.clone(),
    };
    let keys = Keys::open(&directories)?;
    if root::is_development(keys.root()) {
        eprintln!("WARNING: development keys sign; only images of this checkout take what is published");
    }
    let now = now()?;
    let rollout = args.rollout()?;
    let outcome = match (args.version, &args.withdraw) {
        (Some(version), _) => {
            let from = args.from.clone().unwrap_or_else(|| default_folder(version));
            let folder = Folder::open(&from)?;
            for release in &folder.releases {
                anyhow::ensure!(
                    release.version == version,
                    "{from} has {} {}",
                    release.product,
                    release.version
                );
            }
            rollout::publish(&to, keys, &folder, &rollout, now)?
        }
        (None, Some(words)) => withdraw(args, &to, keys, words, &rollout, now)?,
        (None, None) => rollout::refresh(&to, keys, now)?,
    };
    report(&to, outcome, now)
}

fn withdraw(
    args: &Args,
    to: &Utf8Path,
    keys: Keys,
    words: &[String],
    rollout: &Rollout,
    now: u64,
) -> Result<Outcome> {
    let [product, version] = words else { anyhow::bail!("--withdraw takes a product and a version") };
    let version: Version = version.parse()?;
    let reason = args.reason.as_deref().context("--reason is missing")?;
    let (outcome, current) = rollout::withdraw(to, keys, rollout, (product, version), reason, now)?;
    match current {
        Some(current) => eprintln!("{product} {version} is withdrawn; current is {current}"),
        None => {
            eprintln!("{product} {version} is withdrawn; nothing else is current, boxes stay as they are")
        }
    }
    Ok(outcome)
}

impl Args {
    fn rollout(&self) -> Result<Rollout> {
        let waves = self.waves.as_deref().map(waves::parse).transpose()?;
        if let Some(last) = waves.as_deref().and_then(<[_]>::last)
            && last.permille < 1000
        {
            eprintln!("the roll-out stands still at {}.{} %", last.permille / 10, last.permille % 10);
        }
        let start_at = self.start.as_deref().map(waves::time).transpose()?;
        Ok(Rollout {
            channel: self.channel.clone(),
            waves,
            start_at,
            later: self.sign_later,
            vouch: self.vouch,
        })
    }
}

fn report(to: &Utf8Path, outcome: Outcome, now: u64) -> Result<()> {
    let text = match outcome {
        Outcome::Unchanged => "nothing has changed",
        Outcome::AwaitsRefresh => "the targets are signed; `publish --refresh` makes them current",
        Outcome::Published => "published",
    };
    if outcome != Outcome::AwaitsRefresh {
        for warning in Repository::warnings(to, now)? {
            eprintln!("WARNING: {warning}");
        }
    }
    super::print(format_args!("{to}: {text}\n"))
}
