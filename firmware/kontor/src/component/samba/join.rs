//! Joining the headquarters' domain: waits for somebody who may, tries, and says what came of it.
//!
//! **Invariant:** the password is in this process's memory alone, and no longer than until it was accepted or refused.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use kontor_config::Site;
use kontor_config::site::{Samba, SambaRole};
use kontor_samba::{JoinFailure, NO_COMPUTER};
use kontor_sys::notify::Notifier;

use super::counter::{Applicant, Counter};
use super::tool::{Account, Outcome, run, run_as};
use super::{SMB_CONF, identity, role};
use crate::component::office;
use crate::component::outside::private_directory;

/// How the box says that it waits for somebody.
pub(crate) const WAITS: &str = "not joined: give the password";
/// While headquarters does not answer: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Waiting is no hang: the start of the component may take that much longer, said again and again.
const WAITING: Duration = Duration::from_secs(3600);
/// LDAP, which every domain controller has.
const LDAP: u16 = 389;
/// A far office by satellite answers within a second.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// One search. The tool itself gives up after some ten seconds.
const SEARCH_LIMIT: Duration = Duration::from_secs(60);
/// A whole directory comes over the line: 3 s for a small one on the spot, and the line may be slow.
const JOIN_LIMIT: Duration = Duration::from_secs(1800);
/// What Kerberos allows (RFC 4120, section 8.2).
const CLOCK_SKEW_S: u64 = 300;
/// What a search keeps is forgotten with the component.
const SCRATCH: &str = "/run/kontor/join";
/// The tools make their databases in it, and not the directory.
const PRIVATE: &str = "/var/lib/samba/private";

/// Returns when the box is in the domain, and what it is in it lies in the state directories; with whoever is to hear of it once
/// that is durable, until when the password may be needed again.
///
/// # Errors
/// The kernel's, on this box; whatever headquarters or a person gets wrong is said, and waited for.
pub(super) fn until_joined(site: &Site, samba: &Samba) -> anyhow::Result<Applicant> {
    let counter = Counter::open()?;
    let join = Join { site, samba, notifier: Notifier::from_environment() };
    let mut applicant = join.wait_for_somebody(&counter);
    let mut pause = PAUSES.0;
    loop {
        let failure = match join.attempt(&applicant)? {
            Ok(()) => return Ok(applicant),
            Err(failure) => failure,
        };
        let reason = failure.reason(site, samba, &applicant.account.user);
        if !failure.may_pass() && (!applicant.is_patient || failure == JoinFailure::Secret) {
            println!("not joined: {reason}");
            applicant.answer(Err(&reason));
            applicant = join.wait_for_somebody(&counter);
            continue;
        }
        let next = format!("{reason}; trying again in {} s", pause.as_secs());
        join.say(&format!("not joined: {next}"));
        applicant.tell(&next);
        join.notifier.extend(WAITING);
        match counter.next(pause) {
            Some(other) => {
                std::mem::replace(&mut applicant, other).turn_away();
                pause = PAUSES.0;
            }
            None => pause = PAUSES.1.min(pause * 2),
        }
    }
}

/// The last word to whoever gave the password.
pub(super) fn is_done(samba: &Samba, applicant: Applicant) {
    let text = format!("{} as {}", samba.realm.to_uppercase(), role(samba.role));
    println!("joined {text}");
    applicant.answer(Ok(&text));
}

struct Join<'a> {
    site: &'a Site,
    samba: &'a Samba,
    notifier: Notifier,
}

impl Join<'_> {
    /// For status and log.
    fn say(&self, text: &str) {
        println!("{text}");
        self.notifier.status(text);
    }

    fn wait_for_somebody(&self, counter: &Counter) -> Applicant {
        self.say(&format!("{WAITS} of somebody who may join computers: samba join USER"));
        loop {
            self.notifier.extend(WAITING);
            if let Some(applicant) = counter.next(WAITING / 4) {
                return applicant;
            }
        }
    }

    /// Once, with everything cleared away that an earlier one has left.
    fn attempt(&self, applicant: &Applicant) -> anyhow::Result<Result<(), JoinFailure>> {
        let account = &applicant.account;
        if !self.samba.servers.iter().any(|server| answers((*server, LDAP).into())) {
            return Ok(Err(JoinFailure::Unreachable));
        }
        if clocks_differ()? {
            return Ok(Err(JoinFailure::Clock));
        }
        if let Err(failure) = self.may_have_name(account)? {
            return Ok(Err(failure));
        }
        let Ok(near) = self.near()? else { return Ok(Err(JoinFailure::Unreachable)) };
        self.say(&format!("joining {}", self.samba.realm));
        applicant.tell("joining; this may take some minutes");
        identity::begin()?;
        identity::empty_all()?;
        private_directory(Path::new(PRIVATE), 0o700)?;
        let outcome = run_as(account, &self.words(near)?, JOIN_LIMIT)?;
        if outcome.success {
            return Ok(Ok(()));
        }
        let failure = explain(&outcome);
        identity::empty_all()?;
        // Who was cut short may have an account by now, and knows by the mark that it is its own.
        if !failure.may_pass() {
            identity::finish()?;
        }
        Ok(Err(failure))
    }

    /// For a site that the site file names, the name of a domain controller; the inner error is that none answers.
    fn near(&self) -> anyhow::Result<Result<Option<(String, &str)>, ()>> {
        let Some(site) = self.samba.site.as_deref().filter(|_| self.samba.role == SambaRole::Rodc) else {
            return Ok(Ok(None));
        };
        for server in &self.samba.servers {
            let outcome = run(&kontor_samba::info_arguments(*server, &smb_conf()), SEARCH_LIMIT)?;
            if let Some(name) = kontor_samba::name_in_info(&outcome.said) {
                return Ok(Ok(Some((name.to_owned(), site))));
            }
        }
        Ok(Err(()))
    }

    fn words(&self, near: Option<(String, &str)>) -> anyhow::Result<Vec<String>> {
        let near = near.as_ref().map(|(server, site)| (server.as_str(), *site));
        let words = kontor_samba::join_arguments(self.samba, &smb_conf(), near);
        words.ok_or_else(|| anyhow::anyhow!("a domain controller of its own domain joins none"))
    }

    /// The tools take over a computer of the same name without a word: another office's box would be out of the domain.
    fn may_have_name(&self, account: &Account) -> anyhow::Result<Result<(), JoinFailure>> {
        fs::create_dir_all(SCRATCH)?;
        let words = kontor_samba::name_arguments(self.site, &smb_conf(), SCRATCH);
        let outcome = run_as(account, &words, SEARCH_LIMIT)?;
        if !outcome.success {
            return Ok(Err(explain(&outcome)));
        }
        let is_free = outcome.said.contains(NO_COMPUTER) || identity::is_unfinished();
        Ok(if is_free { Ok(()) } else { Err(JoinFailure::NameTaken) })
    }
}

/// Some of the tools join all the same, and then nobody gets a ticket. Where nobody tells the time, they say why.
fn clocks_differ() -> anyhow::Result<bool> {
    fs::create_dir_all(SCRATCH)?;
    let outcome = run(&kontor_samba::time_arguments(&smb_conf(), SCRATCH), SEARCH_LIMIT)?;
    let offset_s = kontor_samba::clock_offset_s(&outcome.said);
    Ok(offset_s.is_some_and(|offset_s| offset_s.unsigned_abs() > CLOCK_SKEW_S))
}

fn smb_conf() -> String {
    format!("{}/{SMB_CONF}", office::DIRECTORY)
}

fn answers(server: SocketAddr) -> bool {
    TcpStream::connect_timeout(&server, ANSWER_LIMIT).is_ok()
}

/// What is not understood is shown whole, for whoever is asked about it.
fn explain(outcome: &Outcome) -> JoinFailure {
    let failure = JoinFailure::of(&outcome.said);
    if matches!(failure, JoinFailure::Other(_)) {
        let lines = outcome.said.lines().filter(|line| !line.contains("assword"));
        lines.for_each(|line| println!("{line}"));
    }
    failure
}
