//! Why a domain could not be joined, from what Samba's tools say.
//!
//! They have one exit status for everything, and many words for the same. What matters to an operator is what to do
//! about it, and to the box whether trying again can help.

use crate::{Samba, SambaRole, Site, netbios_name};

/// Why a domain could not be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinFailure {
    /// Nobody of this name, or another password.
    Secret,
    /// The account is right, and may not log on now.
    Account,
    /// Kerberos refuses clocks that differ by more than five minutes.
    Clock,
    /// The user may not join computers.
    Rights,
    /// There is a computer of this name in the domain, which this box has not made.
    NameTaken,
    /// Headquarters answers, but DNS names no domain controller of the realm.
    RealmUnknown,
    /// The domain has no such site.
    SiteUnknown,
    /// Headquarters does not answer, or has stopped to.
    Unreachable,
    /// What else the tool said, in its own words.
    Other(String),
}

use JoinFailure::{Account, Clock, NameTaken, Other, RealmUnknown, Rights, Secret, SiteUnknown, Unreachable};

/// What they say, in small letters; the first that is found counts. A wrong clock comes with a refused log-on, and a line that
/// breaks with a missing domain controller, so the more telling ones are first.
const SAID: [(&str, JoinFailure); 28] = [
    ("clock skew", Clock),
    ("krb5krb_ap_err_skew", Clock),
    ("nt_status_time_difference_at_dc", Clock),
    ("time difference", Clock),
    ("nt_status_account_locked_out", Account),
    ("nt_status_account_disabled", Account),
    ("nt_status_account_expired", Account),
    ("nt_status_password_expired", Account),
    ("nt_status_password_must_change", Account),
    ("password has expired", Account),
    ("credentials have been revoked", Account),
    ("nt_status_logon_failure", Secret),
    ("nt_status_wrong_password", Secret),
    ("nt_status_no_such_user", Secret),
    ("invalid credentials", Secret),
    ("ldap_invalid_credentials", Secret),
    ("invalid username or password", Secret),
    ("insufficient access", Rights),
    ("does not have administrator privileges", Rights),
    ("already exists", NameTaken),
    ("not removing account", NameTaken),
    ("parent does not exist", SiteUnknown),
    ("nt_status_io_timeout", Unreachable),
    ("nt_status_host_unreachable", Unreachable),
    ("nt_status_connection", Unreachable),
    ("failed to find a writeable dc", RealmUnknown),
    ("no logon servers", RealmUnknown),
    ("failed to find dc for domain", RealmUnknown),
];

impl JoinFailure {
    /// From all that a tool that failed has said.
    #[must_use]
    pub fn of(said: &str) -> Self {
        let small = said.to_lowercase();
        match SAID.iter().find(|(words, _)| small.contains(words)) {
            Some((_, failure)) => failure.clone(),
            None => Other(last_words(said).to_owned()),
        }
    }

    /// Whether it may pass by itself, so that the same secret is worth another try: lines come back, and clocks get their time.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Unreachable | Clock)
    }

    /// For an operator: what is wrong, and what to do about it.
    #[must_use]
    pub fn reason(&self, site: &Site, samba: &Samba, user: &str) -> String {
        let (realm, name) = (&samba.realm, netbios_name(site));
        match self {
            Secret => format!("{realm} knows no user {user} with this password; it is forgotten, type it again"),
            Account => format!("the account {user} is locked, disabled or expired, or its password is"),
            Clock => "the clocks of this box and of headquarters differ by more than 5 minutes, which Kerberos refuses; \
                      both are to have their time by NTP"
                .to_owned(),
            Rights => format!("{user} may not join computers to {realm}; take a domain administrator"),
            NameTaken => format!(
                "{realm} has a computer {name} already. If it is what this box was before, have it removed at headquarters \
                 ({}); if it is another, this box needs another host-name",
                removal(samba.role, &name)
            ),
            RealmUnknown => format!(
                "headquarters ({}) answers, but DNS names no domain controller of {realm}; look at `realm` and `servers` in \
                 the site file",
                servers(samba)
            ),
            SiteUnknown => format!(
                "{realm} has no site {}; name it in headquarters' site file ([[samba.branch]]), or another one as `site` here",
                samba.first_site()
            ),
            Unreachable => format!("headquarters ({}) does not answer", servers(samba)),
            Other(words) => format!("Samba says: {words}"),
        }
    }
}

fn removal(role: SambaRole, name: &str) -> String {
    match role {
        SambaRole::Member => format!("samba-tool computer delete {name}"),
        _ => format!("samba-tool domain demote --remove-other-dead-server={name}"),
    }
}

fn servers(samba: &Samba) -> String {
    samba.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An error is said last; before it, how far the tool came.
fn last_words(said: &str) -> &str {
    let mut lines = said.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.clone().find(|line| line.starts_with("ERROR") || line.starts_with("Failed"));
    error.or_else(|| lines.next()).unwrap_or("nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: &str, expect: JoinFailure) {
        assert_eq!(JoinFailure::of(said), expect, "{said}");
    }

    /// As Samba 4.22 said them.
    #[test]
    fn what_the_tools_say() {
        check(
            "gensec_gse_client_prepare_ccache: Kinit for Administrator@AD.X to access ldap/hq.ad.x failed: Preauthentication \
             failed: NT_STATUS_LOGON_FAILURE\nads_startup_int: ads_connect_creds: Invalid credentials\n",
            Secret,
        );
        check(
            "Failed to bind - LDAP error 49 LDAP_INVALID_CREDENTIALS -  <8009030C: LdapErr: DSID-0C0904DC, comment: \
             AcceptSecurityContext error, data 52e, v1db1> <>\nInvalid username or password\n",
            Secret,
        );
        check("Failed to join domain: User specified does not have administrator privileges\n", Rights);
        check("ERROR: User has insufficient access rights\nJoin failed - cleaning up\n", Rights);
        check("ads_startup_int: ads_connect_creds: No logon servers are currently available\n", RealmUnknown);
        check(
            "ERROR: Failed to find a writeable DC for domain 'ad.other.x': The object name is not found.\n",
            RealmUnknown,
        );
        check(
            "Failed to join domain: failed to find DC for domain OFFICE - The request is not supported.\n",
            RealmUnknown,
        );
        check("Kinit for a@AD.X failed: Clock skew too great: NT_STATUS_TIME_DIFFERENCE_AT_DC\n", Clock);
        check("Kinit failed: Clock skew too great: NT_STATUS_LOGON_FAILURE\n", Clock);
        check("Kinit for a@AD.X failed: NT_STATUS_ACCOUNT_LOCKED_OUT\n", Account);
        check("ERROR(ldb): uncaught exception - Failed to connect: NT_STATUS_IO_TIMEOUT\n", Unreachable);
        check(
            "ERROR(ldb): uncaught exception - LDAP error 32 LDAP_NO_SUCH_OBJECT -  <00002030: objectclass: Cannot add \
             CN=NORD,CN=Servers,CN=North,CN=Sites,CN=Configuration,DC=ad,DC=x, parent does not exist!> <>\n",
            SiteUnknown,
        );
        check("LDAP error 68: Entry CN=NORD already exists\n", NameTaken);
    }

    #[test]
    fn what_is_not_known_is_said_in_its_own_words() {
        check(
            "INFO: Starting replication\nERROR: the sky is falling\nJoin failed - cleaning up\n",
            Other("ERROR: the sky is falling".to_owned()),
        );
        check("  so it goes \n\n", Other("so it goes".to_owned()));
        check("", Other("nothing".to_owned()));
    }

    #[test]
    fn lines_and_clocks_are_worth_waiting_for() {
        assert!(Unreachable.may_pass() && Clock.may_pass());
        assert!(
            [Secret, Account, Rights, NameTaken, RealmUnknown, SiteUnknown]
                .iter()
                .all(|other| !other.may_pass())
        );
    }
}
