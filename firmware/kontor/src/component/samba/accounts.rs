//! Whether the domain has the users and groups that the site file gives shares to.
//!
//! A service of the component, from the firmware's own program. They are made and removed while the box runs, so that no
//! site file can be refused for them; a name that nobody has opens the share to nobody, and is said.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kontor_config::site::{Samba, SambaRole};
use serde::{Deserialize, Serialize};

use super::recurring::{AGAIN, Findings, repeat};
use super::tool;
use crate::component::office;

/// The subcommand that is this process.
pub(in crate::component) const ARGUMENT: &str = "accounts";
/// Below /run/kontor: [`Wanted`].
pub(super) const FILE: &str = "accounts.json";
/// Somebody may be removed at any time.
const EVERY: Duration = Duration::from_secs(3600);
/// A member asks headquarters.
const LIMIT: Duration = Duration::from_secs(60);
/// Every domain has it, in every language.
const ALWAYS_THERE: &str = "krbtgt";
const WBINFO: &str = "/usr/bin/wbinfo";

/// Whom the site file speaks of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// NetBIOS name.
    domain: String,
    /// Whether the directory is elsewhere, and may be out of reach.
    asks_elsewhere: bool,
    /// Share, and a name of a user or group in its lists.
    names: Vec<(String, String)>,
}

impl Wanted {
    pub(super) fn of(samba: &Samba) -> Self {
        let of_share = |share: &kontor_config::site::Share| {
            let names = share.read.iter().chain(&share.write);
            names.map(|name| (share.name.clone(), name.clone())).collect::<Vec<_>>()
        };
        Self {
            domain: samba.domain.clone(),
            asks_elsewhere: samba.role == SambaRole::Member,
            names: samba.shares.iter().flat_map(of_share).collect(),
        }
    }
}

/// The process, until it is told to end.
pub(in crate::component) fn run() -> anyhow::Result<()> {
    let path = Path::new(office::DIRECTORY).join(FILE);
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let wanted: Wanted = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    repeat(|| look(&wanted))
}

/// Nothing when the domain cannot be asked.
fn look(wanted: &Wanted) -> Option<Findings> {
    let exists = |name: &str| says(&["--name-to-sid", &format!("{}\\{name}", wanted.domain)]);
    // "There is none" and "I cannot ask" sound alike in wbinfo's mouth, and what was asked lately is answered from memory.
    let can_ask = || (!wanted.asks_elsewhere || says(&["--ping-dc"])) && exists(ALWAYS_THERE);
    if !can_ask() {
        return None;
    }
    let found = findings(wanted, exists);
    (found.lines.is_empty() || can_ask()).then_some(found)
}

/// Whether winbind has an answer.
fn says(arguments: &[&str]) -> bool {
    let words: Vec<String> = [&[WBINFO], arguments].concat().iter().map(ToString::to_string).collect();
    tool::run(&words, LIMIT).is_ok_and(|outcome| outcome.success)
}

fn findings(wanted: &Wanted, exists: impl Fn(&str) -> bool) -> Findings {
    let unknown = |(_, name): &&(String, String)| !exists(name);
    let unknown: Vec<_> = wanted.names.iter().filter(unknown).collect();
    let line = |(share, name): &&(String, String)| {
        format!(
            "share {share:?}: {} has no user or group {name:?}, so nobody gets in by that; make it, or name another in \
             the site file",
            wanted.domain
        )
    };
    let status = match unknown.as_slice() {
        [] => String::new(),
        [(share, name), rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            format!("share {share:?}: no user or group {name:?}{more}")
        }
    };
    let pause = if unknown.is_empty() { EVERY } else { AGAIN };
    Findings { lines: unknown.iter().map(line).collect(), status, pause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_in_the_domain_is_said_with_the_share() {
        let names = [("team", "anna"), ("team", "Acounting"), ("books", "Boks")];
        let names = names.map(|(share, name)| (share.to_owned(), name.to_owned())).to_vec();
        let wanted = Wanted { domain: "OFFICE".to_owned(), asks_elsewhere: false, names };
        let found = findings(&wanted, |name| name == "anna");
        assert_eq!(found.status, "share \"team\": no user or group \"Acounting\", and 1 more");
        assert_eq!((found.lines.len(), found.pause), (2, AGAIN));
        assert!(found.lines.iter().any(|line| line.starts_with(
            "share \"books\": OFFICE has no user or group \"Boks\", so nobody gets in by that"
        )));
        assert_eq!(findings(&wanted, |_| true), Findings { pause: EVERY, ..Findings::default() });
    }
}
