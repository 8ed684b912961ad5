//! The passwords that a read-only domain controller keeps: those of a group's members, so that they can log on while
//! headquarters is away.
//!
//! A service of the component, from the firmware's own program: after each start and then every hour it fetches what has
//! changed. Headquarters decides whose passwords it gives away; what it withholds is said once, with the way out.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use kontor_samba::ldif::{Entry, entries, filter_value};

use super::recurring::{Findings, repeat};
use super::{DATABASE, tool};
use crate::component::office;

/// The subcommand that is this process.
pub(in crate::component) const ARGUMENT: &str = "passwords";
/// Once, for an operator who waits for it.
pub(in crate::component) const ONCE: &str = "--once";
/// Below /run/kontor: the group, or nothing.
pub(super) const GROUP: &str = "rodc-group";
/// Who changed a password at noon logs on with it here in the afternoon, also without headquarters.
const EVERY: Duration = Duration::from_secs(3600);
/// While headquarters does not answer, or Samba is still finding its way to it.
const AGAIN: Duration = Duration::from_secs(60);
const SEARCH_LIMIT: Duration = Duration::from_secs(60);
/// Some hundred accounts over a slow line.
const FETCH_LIMIT: Duration = Duration::from_secs(600);
/// Where the domain has the list of whom it lets go; its name on a Windows of another language is another.
const ALLOWED: &str = "Allowed RODC Password Replication Group";
/// "Is in a group that is in a group that …" ([MS-ADTS], section 3.1.1.3.4.4.3).
const IN_CHAIN: &str = "memberOf:1.2.840.113556.1.4.1941:";
/// A writable domain controller ([MS-ADTS], section 2.2.16, `ADS_UF_SERVER_TRUST_ACCOUNT`).
const WRITABLE: &str = "(&(userAccountControl:1.2.840.113556.1.4.803:=8192)(dNSHostName=*))";

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    kept: usize,
    problems: BTreeSet<String>,
}

/// The process: for ever, or once.
pub(in crate::component) fn run(args: &[String]) -> anyhow::Result<()> {
    let path = Path::new(office::DIRECTORY).join(GROUP);
    let group = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if group.is_empty() {
        bail!("the site file has no rodc-group: this box keeps nobody's password");
    }
    match args {
        [] => repeat(|| Some(look(&group))),
        [once] if once == ONCE => {
            let report = fetch(&group)?;
            println!("{}", report.summary(&group));
            report.problems.iter().for_each(|problem| println!("{problem}"));
            Ok(())
        }
        _ => bail!("only a component's process 1 starts this"),
    }
}

/// Log-on works without it, as long as headquarters answers.
fn look(group: &str) -> Findings {
    match fetch(group) {
        Ok(report) => {
            let status = report.problems.first().cloned().unwrap_or_default();
            Findings { lines: report.lines(group), status, pause: EVERY }
        }
        Err(error) => {
            let line = format!("passwords are not refreshed: {error:#}");
            Findings { status: line.clone(), lines: [line].into(), pause: AGAIN }
        }
    }
}

/// Asks headquarters for the passwords of all members.
///
/// # Errors
/// When no writable domain controller answers.
fn fetch(group: &str) -> anyhow::Result<Report> {
    let known = search(&Source::Here, WRITABLE, "dNSHostName")?;
    let servers: Vec<&str> = known.iter().flat_map(|entry| entry.values("dNSHostName")).collect();
    let mut last = anyhow::anyhow!("the domain has no writable domain controller");
    for server in servers {
        match fetch_from(server, group) {
            Ok(report) => return Ok(report),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn fetch_from(server: &str, group: &str) -> anyhow::Result<Report> {
    let source = Source::At(server);
    let filter = format!("(&(objectCategory=group)(sAMAccountName={}))", filter_value(group));
    let found = search(&source, &filter, "sAMAccountName")?;
    let Some(group_dn) = found.iter().flat_map(|entry| entry.values("dn")).next() else {
        return Ok(Report::of_problem(format!("the domain has no group {group:?} (rodc-group)")));
    };
    let members = format!("(objectClass=user)({IN_CHAIN}={})", filter_value(group_dn));
    let wanted = names(&search(&source, &format!("(&{members})"), "sAMAccountName")?);
    let policy = Policy::of_this_box(&source)?;
    let allowed = names(&search(&source, &format!("(&{members}{})", policy.filter()), "sAMAccountName")?);
    let mut report = Report { kept: allowed.len(), problems: withheld(&wanted, &allowed, group) };
    if !allowed.is_empty() {
        let failed = preload(server, &allowed)?;
        report.kept -= failed.len().min(report.kept);
        report.problems.extend(failed);
    }
    Ok(report)
}

/// Whom headquarters keeps back, and what to do there.
fn withheld(wanted: &BTreeSet<String>, allowed: &BTreeSet<String>, group: &str) -> BTreeSet<String> {
    let denied: Vec<&str> = wanted.difference(allowed).map(String::as_str).collect();
    if denied.is_empty() {
        return BTreeSet::new();
    }
    let of_all = denied.len() == wanted.len();
    let way_out = if of_all {
        format!("allow it there: samba-tool group addmembers \"{ALLOWED}\" \"{group}\"")
    } else {
        "they are not in the allowed group there, or in one of the denied groups, as all administrators are"
            .to_owned()
    };
    [format!("headquarters gives no password of {}; {way_out}", denied.join(", "))].into()
}

/// Each account's password, and who failed.
fn preload(server: &str, accounts: &BTreeSet<String>) -> anyhow::Result<BTreeSet<String>> {
    let server = format!("--server={server}");
    let fixed = ["/usr/bin/samba-tool", "rodc", "preload", "--ignore-errors", &server, "--"];
    let words: Vec<String> = fixed.iter().map(ToString::to_string).chain(accounts.iter().cloned()).collect();
    let outcome = tool::run(&words, FETCH_LIMIT)?;
    if !outcome.success {
        bail!("{}", tool::last_line(&outcome.said));
    }
    let problem = |line: &str| line.trim().strip_prefix("ReplicationError: ").map(str::to_owned);
    Ok(outcome.said.lines().filter_map(problem).collect())
}

/// Whose passwords headquarters lets this box have: the lists at the box's own account.
#[derive(Debug, Default)]
struct Policy {
    allowed: Vec<String>,
    denied: Vec<String>,
}

impl Policy {
    fn of_this_box(source: &Source<'_>) -> anyhow::Result<Self> {
        let name = nix::unistd::gethostname()?.to_string_lossy().to_ascii_uppercase();
        let own = search(source, &format!("(sAMAccountName={name}$)"), "msDS-RevealOnDemandGroup")?;
        let never = search(source, &format!("(sAMAccountName={name}$)"), "msDS-NeverRevealGroup")?;
        let list = |entries: &[Entry], name: &str| -> Vec<String> {
            entries.iter().flat_map(|entry| entry.values(name)).map(str::to_owned).collect()
        };
        Ok(Self {
            allowed: list(&own, "msDS-RevealOnDemandGroup"),
            denied: list(&never, "msDS-NeverRevealGroup"),
        })
    }

    fn filter(&self) -> String {
        let any = |groups: &[String]| {
            let one = |dn: &String| format!("({IN_CHAIN}={})", filter_value(dn));
            // An empty list is nobody's (RFC 4526).
            format!("(|{})", groups.iter().map(one).collect::<String>())
        };
        match self.denied.as_slice() {
            [] => any(&self.allowed),
            denied => format!("{}(!{})", any(&self.allowed), any(denied)),
        }
    }
}

/// Whose directory is asked.
enum Source<'a> {
    /// This box's own.
    Here,
    /// A server's, with the box's own account.
    At(&'a str),
}

fn search(source: &Source<'_>, filter: &str, attribute: &str) -> anyhow::Result<Vec<Entry>> {
    let target = match source {
        Source::Here => vec!["-H".to_owned(), DATABASE.to_owned()],
        Source::At(server) => vec!["-H".to_owned(), format!("ldap://{server}"), "-P".to_owned()],
    };
    let words = [vec!["/usr/bin/ldbsearch".to_owned(), "--paged".to_owned()], target].concat();
    let words = [words, vec![filter.to_owned(), attribute.to_owned()]].concat();
    let outcome = tool::run(&words, SEARCH_LIMIT)?;
    if !outcome.success {
        bail!("{}", tool::last_line(&outcome.said));
    }
    Ok(entries(&outcome.said))
}

fn names(entries: &[Entry]) -> BTreeSet<String> {
    entries.iter().flat_map(|entry| entry.values("sAMAccountName")).map(str::to_owned).collect()
}

impl Report {
    fn of_problem(problem: String) -> Self {
        Self { kept: 0, problems: [problem].into() }
    }

    fn summary(&self, group: &str) -> String {
        format!("passwords kept here, of the group {group:?}: {}", self.kept)
    }

    fn lines(&self, group: &str) -> BTreeSet<String> {
        self.problems.iter().cloned().chain([self.summary(group)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn whom_headquarters_keeps_back_is_said_with_the_way_out() {
        assert!(withheld(&set(&["anna"]), &set(&["anna"]), "Branch").is_empty());
        let all = withheld(&set(&["anna", "PC1$"]), &set(&[]), "Branch");
        let line = all.first().unwrap();
        assert!(line.contains("no password of PC1$, anna;"), "{line}");
        assert!(line.contains(&format!("samba-tool group addmembers \"{ALLOWED}\" \"Branch\"")), "{line}");
        let some = withheld(&set(&["anna", "root"]), &set(&["anna"]), "Branch");
        assert!(some.first().unwrap().contains("no password of root; they are not"));
    }

    #[test]
    fn a_policy_becomes_a_filter() {
        let policy = Policy { allowed: vec!["CN=A (1)".into()], denied: vec!["CN=B".into(), "CN=C".into()] };
        let filter = policy.filter();
        let expect = "(|(memberOf:1.2.840.113556.1.4.1941:=CN=A \\281\\29))(!(|(memberOf:1.2.840.113556.1.4.1941:=CN=B)\
                      (memberOf:1.2.840.113556.1.4.1941:=CN=C)))";
        assert_eq!(filter, expect);
        assert_eq!(Policy::default().filter(), "(|)");
    }
}
