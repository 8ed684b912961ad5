//! Samba's part: its configuration from the site file, and its domain, made or joined once and never again.
//!
//! **Invariant:** a domain that was finished is never overwritten, whatever the site file says later.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use kontor_config::Site;
use kontor_config::site::{Samba, SambaRole};
use kontor_samba::Directory;
use kontor_sys::btrfs;

use self::identity::{IDENTITY, Identity};

pub(super) mod accounts;
mod counter;
pub(super) mod health;
mod identity;
mod join;
pub(super) mod locator;
pub(super) mod passwords;
mod recurring;
pub(super) mod restore;
mod sites;
mod swap;
mod tool;

pub(super) use counter::{ANSWER_END, COUNTER, ONCE, PATIENT, REPLACED};
pub(super) use join::WAITS;

use super::certificate;

/// The component's name.
pub(super) const NAME: &str = "samba";
/// Below /run/kontor.
const SMB_CONF: &str = "smb.conf";
/// Where Samba expects key and certificate for LDAP, unless it is told another place.
const TLS: &str = "/var/lib/samba/private/tls";
/// The database without which there is no domain controller.
const DATABASE: &str = "/var/lib/samba/private/sam.ldb";
/// What a member has instead: its own password in the domain.
const SECRETS: &str = "/var/lib/samba/private/secrets.tdb";

/// Role, and files below /run/kontor; nothing when the site file has no `[samba]`.
pub(super) fn office(site: &Site) -> Option<(String, Vec<(&'static str, String)>)> {
    let samba = site.samba.as_ref()?;
    let files = vec![
        (SMB_CONF, kontor_samba::smb_conf(site, samba)),
        ("krb5.conf", kontor_samba::krb5_conf(samba)),
        ("hosts", kontor_samba::hosts(site, samba)),
        ("resolv.conf", kontor_samba::resolv_conf(samba)),
        ("nsswitch.conf", kontor_samba::nsswitch_conf(samba.role)),
        (passwords::GROUP, samba.rodc_group.clone().unwrap_or_default()),
        (locator::FILE, serde_json::json!(locator::Wanted::of(site, samba)).to_string()),
        (accounts::FILE, serde_json::json!(accounts::Wanted::of(samba)).to_string()),
    ];
    Some((role(samba.role).to_owned(), files))
}

/// The shares with previous versions.
pub(super) fn snapshots(site: &Site) -> Vec<String> {
    let shares = site.samba.iter().flat_map(|samba| &samba.shares);
    shares.filter(|share| share.previous_versions).map(|share| share.name.clone()).collect()
}

/// Every share, and how many bytes it may take.
pub(super) fn quotas(site: &Site) -> Vec<(String, Option<u64>)> {
    let shares = site.samba.iter().flat_map(|samba| &samba.shares);
    shares.map(|share| (share.name.clone(), share.quota)).collect()
}

/// As the site file and the manifest call it.
pub(super) const fn role(role: SambaRole) -> &'static str {
    match role {
        SambaRole::Dc => "dc",
        SambaRole::Rodc => "rodc",
        SambaRole::Member => "member",
    }
}

fn table(site: &Site) -> anyhow::Result<&Samba> {
    site.samba.as_ref().context("there is no [samba] table: the component samba has nothing to be")
}

/// Makes or joins the domain, unless that is done, and makes its sites and the directories of shares.
///
/// # Errors
/// When one cannot be made, or the site file asks for another domain than there is.
pub(super) fn prepare(site: &Site) -> anyhow::Result<()> {
    let samba = table(site)?;
    come_into_domain(site, samba)?;
    if samba.role == SambaRole::Dc {
        sites::arrange(site, samba);
    }
    if samba.role != SambaRole::Member {
        certificate::ensure_for(Path::new(TLS), &names(site, samba))?;
    }
    kontor_samba::directories(samba).iter().try_for_each(make_directory)
}

/// By what LDAP clients may call this domain controller, or any of its domain.
fn names(site: &Site, samba: &Samba) -> BTreeSet<String> {
    let host = &site.office.host_name;
    BTreeSet::from([
        format!("{host}.{}", samba.realm),
        format!("{host}.{}", site.office.domain),
        samba.realm.clone(),
    ])
}

/// A directory that is there keeps its mode: an administrator may have changed it. It gets its name when it is as it should
/// be, so that one cut short is made anew.
fn make_directory(directory: &Directory) -> anyhow::Result<()> {
    let path = Path::new(&directory.path);
    if path.exists() {
        return Ok(());
    }
    let (parent, name) = path.parent().zip(path.file_name()).context("no path of a directory")?;
    make_as(parent, name, directory).with_context(|| directory.path.clone())
}

fn make_as(parent: &Path, name: &OsStr, directory: &Directory) -> io::Result<()> {
    fs::create_dir_all(parent)?;
    let mut fresh = OsString::from(".new-");
    fresh.push(name);
    let path = parent.join(&fresh);
    if !path.exists() {
        let opened = fs::File::open(parent)?;
        match directory.subvolume && btrfs::is_btrfs(&opened)? {
            true => btrfs::create_subvolume(&opened, &fresh)?,
            false => fs::create_dir(&path)?,
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(directory.mode))?;
    fs::rename(path, parent.join(name))
}

fn come_into_domain(site: &Site, samba: &Samba) -> anyhow::Result<()> {
    let wanted = Identity::wanted(site, samba);
    if let Some(present) = identity::identity()? {
        identity::finish()?;
        present.must_be(&wanted)?;
        return if samba.role == SambaRole::Dc { restore::carry_out(site, samba) } else { Ok(()) };
    }
    if identity::is_unfinished() {
        println!("an earlier attempt to make or join the domain was cut short; beginning anew");
        identity::empty_all()?;
    }
    for path in [DATABASE, SECRETS] {
        ensure!(
            !Path::new(path).exists(),
            "{path} is there, but not {IDENTITY}, which says whose it is: nothing is overwritten. Restore {IDENTITY} \
             from a backup, or move the state directory away to begin anew"
        );
    }
    let applicant = match samba.role {
        SambaRole::Dc => {
            identity::begin()?;
            provision(site, samba)?;
            None
        }
        SambaRole::Rodc | SambaRole::Member => Some(join::until_joined(site, samba)?),
    };
    // Of a domain that was here before.
    restore::forget_request()?;
    identity::keep(&wanted)?;
    identity::finish()?;
    applicant.into_iter().for_each(|applicant| join::is_done(samba, applicant));
    Ok(())
}

fn provision(site: &Site, samba: &Samba) -> anyhow::Result<()> {
    println!("making the domain {}", samba.realm);
    let words = kontor_samba::provision_arguments(site, samba).context("not a domain controller's role")?;
    let (program, arguments) = words.split_first().context("no command")?;
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| program.clone())?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // It makes up a password and prints it: nobody else may learn it from a log.
        let lines: Vec<&str> = said.lines().filter(|line| !line.contains("assword")).collect();
        bail!("samba-tool domain provision: {}\n{}", output.status, lines.join("\n"));
    }
    println!(
        "made the domain {}; give its Administrator a password: samba-tool user setpassword Administrator",
        samba.realm
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_cut_short_is_finished_and_one_that_is_there_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("shares/team");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        fs::create_dir_all(scratch.path().join("shares/.new-team")).unwrap();
        let directory = Directory { path: path.to_str().unwrap().to_owned(), mode: 0o777, subvolume: true };
        make_directory(&directory).unwrap();
        assert_eq!(mode(&path), 0o777);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        make_directory(&directory).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(fs::read_dir(scratch.path().join("shares")).unwrap().count(), 1);
    }
}
