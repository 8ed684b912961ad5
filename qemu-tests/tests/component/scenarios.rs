//! What an office expects of its domain controller.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::branch;
use super::headquarters::{BOX, Headquarters, PASSWORD, dig};
use super::sites;

/// On two slow, busy processors.
const LOG_ON_LIMIT: Duration = Duration::from_secs(60);

pub(crate) type Scenario = fn(&Path, &Path) -> Result<()>;

/// All of them.
pub(crate) const SCENARIOS: [(&str, Scenario); 8] = [
    ("a-domain-from-a-site-file", a_domain_from_a_site_file),
    ("a-domain-is-never-overwritten", a_domain_is_never_overwritten),
    ("a-domain-from-its-backup", a_domain_from_its_backup),
    ("a-hundred-restarts", a_hundred_restarts),
    ("a-hanging-samba-is-restarted", a_hanging_samba_is_restarted),
    ("a-branch-joins-as-member", branch::joins_as_member),
    ("a-branch-joins-as-rodc", branch::joins_as_rodc),
    ("sites-and-reverse-zones", sites::lead_to_the_near_one),
];

/// Made, used by a PC's own programs, stopped, and there again.
fn a_domain_from_a_site_file(directory: &Path, program: &Path) -> Result<()> {
    let mut headquarters = Headquarters::prepare(directory, program)?;
    let made = headquarters.start()?;
    println!("samba: domain made and served after {:.1} s", made.as_secs_f32());
    let password = format!("--newpassword={PASSWORD}");
    headquarters.exec(&["samba-tool", "user", "setpassword", "Administrator", &password])?;
    headquarters.exec(&["samba-tool", "user", "add", "anna", PASSWORD])?;
    headquarters.wait_for_words("share \"books\": OFFICE has no user or group \"Accounting\"")?;
    headquarters.exec(&["samba-tool", "group", "add", "Accounting"])?;
    headquarters.exec(&["samba-tool", "group", "addmembers", "Accounting", "anna"])?;
    logs_on(&headquarters)?;
    let second = headquarters.start_a_second()?;
    ensure!(second.contains("it already runs on"), "{second}");
    is_confined(&headquarters)?;

    let stopped = headquarters.stop()?;
    let again = headquarters.start()?;
    println!(
        "samba: stopped in {:.1} s, served again after {:.1} s",
        stopped.as_secs_f32(),
        again.as_secs_f32()
    );
    logs_on(&headquarters)?;
    let members = headquarters.exec(&["samba-tool", "group", "listmembers", "Accounting"])?;
    ensure!(members.trim() == "anna", "{members}");
    headquarters.stop().map(drop)
}

/// Neither Samba nor an operator's tool in its place may mount, load modules, make devices or open files by handle.
fn is_confined(headquarters: &Headquarters) -> Result<()> {
    const FORBIDDEN: [u32; 6] = [2, 16, 17, 19, 21, 27];
    let children = headquarters.exec(&["/usr/bin/cat", "/proc/1/task/1/children"])?;
    let service = children.split_ascii_whitespace().next().context("process 1 has no child")?;
    for process in ["self", service] {
        let status = headquarters.exec(&["/usr/bin/cat", &format!("/proc/{process}/status")])?;
        let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or_default();
        let mask = u64::from_str_radix(mask.trim(), 16)?;
        ensure!(FORBIDDEN.iter().all(|bit| mask & (1 << bit) == 0), "{process} may {mask:x}");
        for confined in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
            ensure!(status.contains(confined), "{process}: {status}");
        }
    }
    Ok(())
}

/// A user's Kerberos ticket, the group policies' share with it, and by NTLM; a wrong password is refused.
fn logs_on(headquarters: &Headquarters) -> Result<()> {
    let user = format!("anna%{PASSWORD}");
    let shares = first_log_on(headquarters, &user)?;
    ensure!(shares.contains("sysvol") && shares.contains("netlogon"), "{shares}");
    let policies = format!("//{BOX}/sysvol");
    let list = headquarters.client(&[
        "smbclient",
        &policies,
        "-U",
        &user,
        "-c",
        "ls ad.office.internal\\Policies\\*",
    ])?;
    ensure!(list.contains("{31B2F340-016D-11D2-945F-00C04FB984F9}"), "{list}");
    let refused = headquarters.client_output(&["smbclient", "-L", BOX, "-U", "anna%wrong"])?;
    let said = [refused.stdout, refused.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(!refused.status.success() && said.contains("NT_STATUS_LOGON_FAILURE"), "{said}");
    Ok(())
}

/// Samba's ports answer some moments before its winbindd does, and until then nobody can log on.
fn first_log_on(headquarters: &Headquarters, user: &str) -> Result<String> {
    let began = Instant::now();
    loop {
        match headquarters.client(&["smbclient", "-L", BOX, "-U", user, "-m", "SMB3"]) {
            Ok(shares) => {
                println!("samba: log-on {:.1} s after the first attempt", began.elapsed().as_secs_f32());
                return Ok(shares);
            }
            Err(error) if began.elapsed() < LOG_ON_LIMIT => drop(error),
            Err(error) => return Err(error),
        }
    }
}

/// Cut short while it is made: made anew. Finished: no site file makes another of it.
fn a_domain_is_never_overwritten(directory: &Path, program: &Path) -> Result<()> {
    let mut headquarters = Headquarters::prepare(directory, program)?;
    headquarters.start_and_wait_for("making the domain").map(drop)?;
    kill(headquarters.process_inside()?, Signal::SIGKILL)?;
    ensure!(!headquarters.wait_until_ended()?, "it was killed and says that all is well");
    headquarters.start()?;
    ensure!(
        headquarters.log().contains("an earlier attempt to make or join the domain was cut short"),
        "{}",
        headquarters.log()
    );
    headquarters.exec(&["samba-tool", "user", "add", "anna", PASSWORD])?;
    headquarters.stop()?;

    let form = directory.join("state/state-version");
    ensure!(fs::read_to_string(&form)? == "1\n", "it is of another form");
    fs::write(&form, "2\n")?;
    let error = headquarters.start().map_or_else(|error| format!("{error:#}"), |_| String::new());
    ensure!(error.contains("its data was written by a newer release (form 2; this one knows 1)"), "{error}");
    fs::write(&form, "1\n")?;
    headquarters.edit_site("realm = \"ad.office.internal\"", "realm = \"ad.other.example\"")?;
    let error = headquarters.start().map_or_else(|error| format!("{error:#}"), |_| String::new());
    ensure!(error.contains("realm is \"ad.office.internal\", and the site file now says"), "{error}");
    headquarters.edit_site("realm = \"ad.other.example\"", "realm = \"ad.office.internal\"")?;
    let member = "role = \"member\"\nservers = [\"10.99.0.1\"]";
    headquarters.edit_site("role = \"dc\"", member)?;
    let error = headquarters.start().map_or_else(|error| format!("{error:#}"), |_| String::new());
    ensure!(error.contains("role is \"dc\", and the site file now says \"member\""), "{error}");
    headquarters.edit_site(member, "role = \"dc\"")?;
    headquarters.start()?;
    let users = headquarters.exec(&["samba-tool", "user", "list"])?;
    ensure!(users.lines().any(|user| user == "anna"), "{users}");
    let took = headquarters.stop()?;
    ensure!(took < Duration::from_secs(20), "{took:?}");
    Ok(())
}

/// Made anew from a file, under its own name, with those who were there; what is no backup changes nothing.
fn a_domain_from_its_backup(directory: &Path, program: &Path) -> Result<()> {
    let mut headquarters = Headquarters::prepare(directory, program)?;
    // It ends with this process. Samba asks it before it enters itself into the domain's DNS.
    let _dnsd = headquarters.start_dnsd()?;
    headquarters.start()?;
    let backups = directory.join("state/backup");
    headquarters.exec(&["samba-tool", "user", "add", "anna", PASSWORD])?;
    headquarters.exec(&["samba-tool", "domain", "backup", "offline", "--targetdir=/var/backup"])?;
    let backup = fs::read_dir(&backups)?.next().context("no backup")??.file_name();
    let backup = backup.to_str().context("its name")?.to_owned();
    headquarters.exec(&["samba-tool", "user", "delete", "anna"])?;
    headquarters.exec(&["samba-tool", "user", "add", "berta", PASSWORD])?;

    fs::write(backups.join("garbage.tar.bz2"), "no archive")?;
    restore(&mut headquarters, "garbage.tar.bz2")?;
    ensure!(headquarters.log().contains("The domain is as it was"), "{}", headquarters.log());
    let users = headquarters.exec(&["samba-tool", "user", "list"])?;
    ensure!(users.lines().any(|user| user == "berta"), "{users}");

    let took = restore(&mut headquarters, &backup)?;
    println!("samba: a domain restored and served after {:.1} s", took.as_secs_f32());
    ensure!(
        headquarters.log().contains("restored; the domain that was there is kept"),
        "{}",
        headquarters.log()
    );
    logs_on(&headquarters)?;
    is_found(&headquarters)?;
    let users = headquarters.exec(&["samba-tool", "user", "list"])?;
    ensure!(!users.lines().any(|user| user == "berta"), "{users}");
    let controllers = headquarters.exec(&["samba-tool", "computer", "list"])?;
    ensure!(controllers.trim() == "HQ$", "{controllers}");
    headquarters.exec(&["samba-tool", "user", "add", "carl", PASSWORD])?;
    headquarters.exec(&["samba-tool", "dbcheck", "--cross-ncs"])?;

    // A backup of what was restored.
    fs::remove_file(backups.join(&backup))?;
    headquarters.exec(&["samba-tool", "domain", "backup", "offline", "--targetdir=/var/backup"])?;
    let again = fs::read_dir(&backups)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let again = again.filter(|name| name.starts_with("samba-")).last().context("no second backup")?;
    restore(&mut headquarters, &again)?;
    logs_on(&headquarters)?;
    let users = headquarters.exec(&["samba-tool", "user", "list"])?;
    ensure!(users.lines().any(|user| user == "carl"), "{users}");
    let kept = directory.join("state/lib/.replaced.sock/private/sam.ldb");
    ensure!(kept.exists(), "what was there is not kept");
    headquarters.stop().map(drop)
}

/// It enters itself into the domain's DNS, some moments after its start, and is the only one in there.
fn is_found(headquarters: &Headquarters) -> Result<()> {
    let service = "_ldap._tcp.dc._msdcs.ad.office.internal";
    let began = Instant::now();
    loop {
        let found = dig(&["-p", "5300", "@127.0.0.1", service, "SRV", "hq.ad.office.internal", "A"])?;
        if found.lines().collect::<Vec<_>>() == ["0 100 389 hq.ad.office.internal.", BOX] {
            return Ok(());
        }
        ensure!(began.elapsed() < LOG_ON_LIMIT, "DNS has {found:?}: {}", headquarters.log());
        // The pause between two looks.
        headquarters.exec(&["samba-tool", "user", "list"])?;
    }
}

fn restore(headquarters: &mut Headquarters, backup: &str) -> Result<Duration> {
    headquarters.exec(&["/proc/self/exe", "component", "restore", backup])?;
    headquarters.stop()?;
    headquarters.start()
}

/// Each one stops in order and serves again; the office's names, and what is known of the realm's, answer all the while.
fn a_hundred_restarts(directory: &Path, program: &Path) -> Result<()> {
    let mut headquarters = Headquarters::prepare(directory, program)?;
    let _dnsd = headquarters.start_dnsd()?;
    headquarters.start()?;
    headquarters.exec(&["samba-tool", "user", "add", "anna", PASSWORD])?;
    is_found(&headquarters)?;
    // What nobody has asked for yet, nobody but Samba knows.
    names_answer()?;
    let mut longest = [Duration::ZERO; 2];
    for round in 1..=100 {
        let stopped = headquarters.stop()?;
        names_answer().with_context(|| format!("while it is stopped for the {round}th time"))?;
        let started = headquarters.start().with_context(|| format!("the {round}th time"))?;
        names_answer().with_context(|| format!("when it has started for the {round}th time"))?;
        longest = [longest[0].max(stopped), longest[1].max(started)];
    }
    println!("samba: 100 restarts: at most {:.1?} to stop and {:.1?} to serve again", longest[0], longest[1]);
    let state = fs::read_dir(directory.join("state/lib"))?.count();
    ensure!(state < 30, "each start leaves something behind: {state} files");
    first_log_on(&headquarters, &format!("anna%{PASSWORD}"))?;
    headquarters.stop().map(drop)
}

/// Without winbindd nobody logs on, though every port answers.
fn a_hanging_samba_is_restarted(directory: &Path, program: &Path) -> Result<()> {
    let mut headquarters = Headquarters::prepare(directory, program)?;
    let ready = headquarters.start_and_wait_for("made the domain")?;
    headquarters.wait_until_ready(&ready)?;
    headquarters.exec(&["samba-tool", "user", "add", "anna", PASSWORD])?;
    let before = headquarters.log().len();
    headquarters.exec(&["/usr/bin/busybox", "killall", "-STOP", "winbindd"])?;
    headquarters.hear_words(&ready, before, "samba: error: watchdog: no sign of life")?;
    headquarters.hear_words(&ready, before, "samba: ready again after")?;
    first_log_on(&headquarters, &format!("anna%{PASSWORD}"))?;
    headquarters.stop().map(drop)
}

fn names_answer() -> Result<()> {
    for name in ["hq.office.internal", "hq.ad.office.internal"] {
        let found = dig(&["@127.0.0.1", name])?;
        ensure!(found.trim() == BOX, "{name} is {found:?}");
    }
    Ok(())
}
