//! What an office expects of its file server at a branch, with and without the line to headquarters.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::company::{Company, SHARE};
use super::headquarters::PASSWORD;

/// On two slow, busy processors.
const HEALING_LIMIT: Duration = Duration::from_secs(300);

/// A file server in the headquarters' domain: its users reach their share, and nobody else; joined once and for good.
pub(crate) fn joins_as_member(directory: &Path, program: &Path) -> Result<()> {
    let mut company = Company::found(directory, program, "member")?;
    is_refused_with_the_reason(&mut company)?;
    joins_with_the_seed(&mut company)?;
    let note = directory.join("note");
    fs::write(&note, "from the branch")?;
    company.logs_on("anna", &format!("put {} note", note.display()))?;
    ensure!(company.logs_on("berta", "ls").is_err(), "there is no berta");
    knows_the_domains_people(&company)?;
    keeps_permissions(&company)?;
    registers_its_name(&mut company)?;
    company.branch.stop()?;
    let again = company.branch.start()?;
    println!("samba: a member served again after {:.1} s", again.as_secs_f32());
    let list = company.logs_on("anna", "ls")?;
    ensure!(list.contains("note"), "{list}");
    ensure!(company.logs_on("carl", "get note -").is_err(), "the restart has lost a permission");
    company.branch.stop().map(drop)
}

/// A realm that nobody knows, a user who may not, a name that another computer has.
fn is_refused_with_the_reason(company: &mut Company) -> Result<()> {
    let (known, unknown) = ("realm = \"ad.office.internal\"", "realm = \"ad.other.internal\"");
    company.branch.edit_site(known, unknown)?;
    refuses(company, "Administrator", "DNS names no domain controller of ad.other.internal")?;
    company.branch.edit_site(unknown, known)?;
    refuses(company, "carl", "take a domain administrator")?;
    company
        .there(|company| company.headquarters.exec(&["samba-tool", "computer", "add", "NORD"]).map(drop))?;
    refuses(company, "Administrator", "samba-tool computer delete NORD")?;
    company
        .there(|company| company.headquarters.exec(&["samba-tool", "computer", "delete", "NORD"]).map(drop))
}

fn refuses(company: &mut Company, user: &str, reason: &str) -> Result<()> {
    drop(company.branch.start_and_wait_for("not joined: give the password")?);
    let (joined, said) = company.branch.join(user, PASSWORD)?;
    ensure!(!joined && said.contains(reason), "{said}\n{}", company.branch.log());
    company.branch.stop().map(drop)
}

/// Nobody types anything: a password that is refused is wiped, and so is the one that was of use.
fn joins_with_the_seed(company: &mut Company) -> Result<()> {
    let file = company.branch.seed_join("Administrator", "wrong")?;
    drop(company.branch.start_and_wait_for("the seed's password is wiped")?);
    ensure!(!file.exists(), "it is still there");
    company.branch.stop()?;
    company.branch.seed_join("Administrator", PASSWORD)?;
    let ready = company.branch.start_and_wait_for("joined AD.OFFICE.INTERNAL as member")?;
    company.branch.wait_until_ready(&ready)?;
    let before = company.branch.log().find("joined AD.").unwrap_or_default();
    company.branch.hear_words(&ready, before, "the seed's password is wiped")?;
    let log = company.branch.log();
    ensure!(!file.exists() && !log.contains(PASSWORD), "the password is somewhere: {log}");
    Ok(())
}

/// By `DOMAIN\name`, with the same numbers on every member.
fn knows_the_domains_people(company: &Company) -> Result<()> {
    let anna = company.branch.exec(&["wbinfo", "-i", "OFFICE\\anna"])?;
    let sid = company.branch.exec(&["wbinfo", "-n", "OFFICE\\anna"])?;
    let rid = sid.split([' ', '-']).filter_map(|word| word.parse::<u64>().ok()).nth(6).context("no RID")?;
    ensure!(anna.contains(&format!(":{}:", 100_000 + rid)), "{anna} is not made from {sid}");
    Ok(())
}

/// A file's permissions are its owner's business, as in Windows.
fn keeps_permissions(company: &Company) -> Result<()> {
    company.logs_on("carl", "get note -")?;
    let (user, deny) = (format!("OFFICE\\anna%{PASSWORD}"), "ACL:OFFICE\\carl:DENIED/0x0/FULL");
    company.branch.client(&["smbcacls", SHARE, "note", "-U", &user, "-a", deny])?;
    let acl = company.branch.client(&["smbcacls", SHARE, "note", "-U", &user])?;
    ensure!(acl.contains("OFFICE\\carl:DENIED"), "{acl}");
    let refused = company.logs_on("carl", "get note -").err().context("carl may still read it")?;
    ensure!(refused.to_string().contains("NT_STATUS_ACCESS_DENIED"), "{refused}");
    Ok(())
}

/// A member writes its own address into the domain's DNS, signed with its account: by its box, by headquarters' box, to
/// headquarters' Samba.
fn registers_its_name(company: &mut Company) -> Result<()> {
    company.branch.exec(&["net", "ads", "dns", "register", "-P"])?;
    let name = "nord.ad.office.internal";
    let here = company.addresses_of(name)?;
    let there = company.there(|company| company.addresses_of(name))?;
    ensure!(here == there && here.contains("192.168.78.1"), "{here:?} and {there:?}");
    Ok(())
}

/// A read-only domain controller whose line is cut, with people and computers whose passwords it keeps and others.
pub(crate) fn joins_as_rodc(directory: &Path, program: &Path) -> Result<()> {
    let mut company = Company::found(directory, program, "rodc")?;
    company.there(|company| {
        let password = format!("--newpassword={PASSWORD}");
        let there = &company.headquarters;
        there.exec(&["samba-tool", "computer", "add", "PC1"])?;
        there.exec(&["samba-tool", "user", "setpassword", "PC1$", &password])?;
        there.exec(&["samba-tool", "group", "addmembers", "Branch North", "PC1$"]).map(drop)
    })?;
    company.join()?;
    company.branch.wait_for_words("passwords kept here, of the group \"Branch North\": 2")?;
    for user in ["anna", "carl"] {
        company.logs_on(user, "ls")?;
    }
    let address = company.addresses_of("hq.ad.office.internal")?;
    ensure!(address.contains("192.168.77.1"), "{address}");

    company.cut_line()?;
    works_alone(&company)?;
    ensure!(company.branch.ticket("carl", PASSWORD).is_err(), "nobody keeps carl's password here");
    company.branch.stop()?;
    let again = company.branch.start()?;
    println!("samba: served again without the line after {:.1} s", again.as_secs_f32());
    works_alone(&company)?;
    heals(&mut company)?;
    company.branch.stop().map(drop)
}

/// Kept people and computers log on, by Kerberos and by NTLM; others are refused; headquarters' names are known.
fn works_alone(company: &Company) -> Result<()> {
    let began = Instant::now();
    company.logs_on("anna", "ls")?;
    company.logs_on_by_ticket("anna", "ls")?;
    company.branch.ticket("PC1$", PASSWORD)?;
    println!("samba: three log-ons without the line in {:.1} s", began.elapsed().as_secs_f32());
    for _ in 0..2 {
        let began = Instant::now();
        let refused = company.logs_on("carl", "ls").err().context("nobody keeps carl's password here")?;
        println!("samba: refused without the line in {:.1} s", began.elapsed().as_secs_f32());
        // The first one waits for headquarters; the next ones need not.
        let reasons = ["NT_STATUS_IO_TIMEOUT", "NT_STATUS_NO_LOGON_SERVERS"];
        ensure!(reasons.iter().any(|reason| refused.to_string().contains(reason)), "{refused}");
    }
    let address = company.addresses_of("hq.ad.office.internal")?;
    ensure!(address.contains("192.168.77.1"), "headquarters' name is forgotten: {address:?}");
    Ok(())
}

/// What has changed at headquarters meanwhile arrives, and nothing is there twice.
fn heals(company: &mut Company) -> Result<()> {
    company.there(|company| {
        company.headquarters.exec(&["samba-tool", "user", "add", "dora", PASSWORD]).map(drop)
    })?;
    company.mend_line()?;
    let began = Instant::now();
    // Each attempt is the pause before the next.
    while company.logs_on("carl", "ls").is_err() {
        ensure!(began.elapsed() < HEALING_LIMIT, "carl never logs on again: {}", company.branch.log());
    }
    while !company.branch.exec(&["samba-tool", "user", "list"])?.lines().any(|user| user == "dora") {
        ensure!(began.elapsed() < HEALING_LIMIT, "dora never arrives: {}", company.branch.log());
    }
    println!("samba: as ever {:.1} s after the line", began.elapsed().as_secs_f32());
    company.logs_on_by_ticket("carl", "ls")?;
    company.logs_on_by_ticket("dora", "ls").err().context("dora may not use the share")?;
    company.there(|company| {
        let computers = company.headquarters.exec(&["samba-tool", "computer", "list"])?;
        let own = computers.lines().filter(|name| name.starts_with("NORD"));
        ensure!(own.collect::<Vec<_>>() == ["NORD$"], "the branch is there twice: {computers}");
        company.headquarters.exec(&["samba-tool", "dbcheck", "--cross-ncs"]).map(drop)
    })
}
