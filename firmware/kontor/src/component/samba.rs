//! Samba's part: its configuration from the site file, and its domain, made once and never again.
//!
//! **Invariant:** a domain that was finished is never overwritten, whatever the site file says later.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use kontor_config::Site;
use kontor_config::site::{Samba, SambaRole};
use kontor_samba::Directory;
use kontor_sys::btrfs;
use kontor_sys::file::write_durable;
use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

use super::certificate;

/// The component's name.
pub(super) const NAME: &str = "samba";
/// Says which domain lies in the state directories; written last.
const IDENTITY: &str = "/var/lib/kontor/identity.json";
/// There from the first moment of making a domain until it is finished; in the directory that is filled, so that whoever
/// puts another in its place takes it away.
const UNFINISHED: &str = "/var/lib/samba/.unfinished";
/// What provisioning fills. Emptied only while [`UNFINISHED`] is there, and no [`IDENTITY`].
const FILLED: [&str; 2] = ["/var/lib/samba", "/var/cache/samba"];
/// Where Samba expects key and certificate for LDAP, unless it is told another place.
const TLS: &str = "/var/lib/samba/private/tls";
/// The database without which there is no domain controller.
const DATABASE: &str = "/var/lib/samba/private/sam.ldb";

/// Which domain this is, and what the box is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Identity {
    role: String,
    realm: String,
    domain: String,
    host_name: String,
}

/// Role, and files below /run/kontor; nothing when the site file has no `[samba]`.
pub(super) fn office(site: &Site) -> Option<(String, Vec<(&'static str, String)>)> {
    let samba = site.samba.as_ref()?;
    let files = vec![
        ("smb.conf", kontor_samba::smb_conf(site, samba)),
        ("krb5.conf", kontor_samba::krb5_conf(samba)),
        ("hosts", kontor_samba::hosts(site, samba)),
        ("resolv.conf", kontor_samba::resolv_conf(samba)),
        ("nsswitch.conf", kontor_samba::nsswitch_conf(samba.role)),
    ];
    Some((role(samba.role).to_owned(), files))
}

/// The shares with previous versions.
pub(super) fn snapshots(site: &Site) -> Vec<String> {
    let shares = site.samba.iter().flat_map(|samba| &samba.shares);
    shares.filter(|share| share.previous_versions).map(|share| share.name.clone()).collect()
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

/// Makes the domain, unless it is there, and the directories of shares.
///
/// # Errors
/// When one cannot be made, or the site file asks for another domain than there is.
pub(super) fn prepare(site: &Site) -> anyhow::Result<()> {
    let samba = table(site)?;
    make_domain(site, samba)?;
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

fn make_domain(site: &Site, samba: &Samba) -> anyhow::Result<()> {
    let wanted = Identity {
        role: role(samba.role).to_owned(),
        realm: samba.realm.clone(),
        domain: samba.domain.clone(),
        host_name: site.office.host_name.clone(),
    };
    if let Some(present) = identity()? {
        finish()?;
        return present.must_be(&wanted);
    }
    if samba.role != SambaRole::Dc {
        bail!("joining a domain is not possible yet: role = \"dc\" is the only one that works");
    }
    if Path::new(UNFINISHED).exists() {
        println!("an earlier attempt to make the domain was cut short; beginning anew");
        FILLED.iter().try_for_each(|directory| empty(Path::new(directory)))?;
    }
    ensure!(
        !Path::new(DATABASE).exists(),
        "{DATABASE} is there, but not {IDENTITY}, which says whose it is: nothing is overwritten. Restore {IDENTITY} \
         from a backup, or move the state directory away to begin anew"
    );
    write_durable(Path::new(UNFINISHED), b"").context(UNFINISHED)?;
    provision(site, samba)?;
    keep(&wanted)?;
    finish()
}

/// What the note says is true: the mark of an unfinished domain goes, also one that a power cut has left beside it.
fn finish() -> anyhow::Result<()> {
    match fs::remove_file(UNFINISHED) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.context(UNFINISHED)?,
    }
    let directory = Path::new(UNFINISHED).parent().context(UNFINISHED)?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).context(UNFINISHED)
}

fn identity() -> anyhow::Result<Option<Identity>> {
    let text = match fs::read(IDENTITY) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(IDENTITY),
    };
    let hint = || format!("{IDENTITY} cannot be read: restore it from a backup");
    serde_json::from_slice(&text).map(Some).with_context(hint)
}

/// Whole or not at all, durable, and after everything it speaks of: not all of that was written durably.
fn keep(identity: &Identity) -> anyhow::Result<()> {
    for directory in FILLED {
        let opened = fs::File::open(directory).with_context(|| directory.to_owned())?;
        syncfs(opened).with_context(|| directory.to_owned())?;
    }
    let text = serde_json::to_vec_pretty(identity)?;
    write_durable(Path::new(IDENTITY), &text).context(IDENTITY)
}

impl Identity {
    /// # Errors
    /// When it is another: a domain is never turned into another one by editing the site file.
    fn must_be(&self, wanted: &Self) -> anyhow::Result<()> {
        let fields = [
            ("role", &self.role, &wanted.role),
            ("realm", &self.realm, &wanted.realm),
            ("domain", &self.domain, &wanted.domain),
            ("host-name", &self.host_name, &wanted.host_name),
        ];
        match fields.iter().find(|(_, present, wanted)| present != wanted) {
            None => Ok(()),
            Some((field, present, wanted)) => bail!(
                "this box holds the domain {} as {}: {field} is {present:?}, and the site file now says {wanted:?}. Nothing was \
                 changed. Put {present:?} back into the site file; or, to give this domain up, back it up and move the \
                 component's state directory away",
                self.realm,
                self.role
            ),
        }
    }
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

/// The mark stays to the end: it is written anew, and while it is there nothing in here counts.
fn empty(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if path == Path::new(UNFINISHED) {
            continue;
        }
        let removed =
            if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| path.display().to_string())?;
    }
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

    #[test]
    fn another_domain_than_there_is_is_refused_with_a_way_out() {
        let present = Identity {
            role: "dc".into(),
            realm: "ad.example.org".into(),
            domain: "AD".into(),
            host_name: "box".into(),
        };
        assert!(present.must_be(&present).is_ok());
        let member = Identity { role: "member".into(), ..present.clone() };
        let error = present.must_be(&member).unwrap_err().to_string();
        assert!(error.contains("holds the domain ad.example.org as dc: role is \"dc\""), "{error}");
        assert!(error.contains("Nothing was changed"), "{error}");
    }
}
