//! A domain from its backup, in the place of the one that is there.
//!
//! An operator asks for it while the component runs; it is done before Samba starts the next time. Samba's own tool makes a
//! domain controller of another name of a backup, because the old one's numbers (of updates, of accounts) may have been given
//! away since: so it is done twice, and the second time gives it back the name that everybody knows.
//!
//! **Invariant:** until a backup has become a whole domain, the one that is there is not touched; afterwards it is kept.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kontor_config::Site;
use kontor_config::site::Samba;
use kontor_samba::{BACKUPS, database_of, keep_words, restore_words};
use kontor_sys::file::{remove_durable, write_durable};
use kontor_sys::notify::Notifier;

use super::{identity, swap, tool};
use crate::component::office;
use crate::component::outside::private_directory;

/// The subcommand that asks for it.
pub(in crate::component) const ARGUMENT: &str = "restore";
/// The name of the backup, until it was tried.
const REQUEST: &str = "/var/lib/kontor/restore";
const LIB: &str = "/var/lib/samba";
/// Takes the request back.
const CANCEL: &str = "--cancel";
/// Where it is made; on the same file system, so that it can be moved into its place.
const WORK: &str = "/var/lib/samba/.restoring";
/// The name in between; nobody has it.
const MEANWHILE: &str = "KONTOR-RESTORE";
/// Samba's tools need some seconds for a small domain.
const LIMIT: Duration = Duration::from_secs(3600);

/// Asks for it: `[FILE]`, one of the backups; without it they are listed.
pub(in crate::component) fn request(args: &[String]) -> anyhow::Result<()> {
    let present = identity::identity()?.context("there is no domain here yet: wait until it is made")?;
    ensure!(
        present.is_dc(),
        "only a domain controller of its own domain is restored; at a branch, join again"
    );
    let known = backups()?;
    let [name] = args else {
        known.iter().for_each(|name| println!("{name}"));
        bail!("which of these backups? (They are in {BACKUPS}; `samba backup` makes one.)");
    };
    if name == CANCEL {
        forget_request()?;
        println!("nothing is restored");
        return Ok(());
    }
    ensure!(known.contains(name), "there is no backup {name:?}, but {}", known.join(", "));
    write_durable(Path::new(REQUEST), name.as_bytes()).context(REQUEST)?;
    println!(
        "the next start of Samba makes this the domain of {name}: all accounts as they were then, shares as they are. Begin with \
         `restart samba`, or take it back with `samba restore {CANCEL}`"
    );
    Ok(())
}

fn backups() -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(BACKUPS).context(BACKUPS)?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".tar.bz2")).collect();
    names.sort_unstable();
    Ok(names)
}

/// Does what was asked for, if anything was. What cannot be done is said, and the domain is as it was.
///
/// # Errors
/// When a restored domain cannot be put into its place (it will be, at the next start), and the kernel's.
pub(super) fn carry_out(site: &Site, samba: &Samba) -> anyhow::Result<()> {
    let lib = Path::new(LIB);
    if !swap::is_under_way(lib) {
        let Some(name) = requested()? else { return clear() };
        Notifier::from_environment().status(&format!("restoring the domain from {name}"));
        println!("restoring the domain from {name}");
        let decided = made(site, samba, &name)?.and_then(|()| swap::begin(lib).context(LIB));
        match decided {
            Err(error) if !swap::is_under_way(lib) => {
                println!("error: not restored: {error:#}. The domain is as it was");
                return forget_request().and(clear());
            }
            decided => decided?,
        }
    }
    forget_request()?;
    swap::finish(lib).context(LIB)?;
    println!("restored; the domain that was there is kept in {LIB}/{}", swap::OLD);
    clear()
}

fn requested() -> anyhow::Result<Option<String>> {
    match fs::read_to_string(REQUEST) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        name => name.map(Some).context(REQUEST),
    }
}

/// Durable: what is done must not be done again.
///
/// # Errors
/// The kernel's.
pub(super) fn forget_request() -> anyhow::Result<()> {
    remove_durable(Path::new(REQUEST)).context(REQUEST)
}

fn clear() -> anyhow::Result<()> {
    let places = [PathBuf::from(WORK), Path::new(LIB).join(swap::NEW)];
    places.iter().try_for_each(|place| swap::remove(place).with_context(|| place.display().to_string()))
}

/// Makes the new content of the state directory; the inner result is the backup's fault.
///
/// # Errors
/// When Samba's configuration, which the tool writes where the backup's is a link to it, cannot be put back.
fn made(site: &Site, samba: &Samba, backup: &str) -> anyhow::Result<anyhow::Result<()>> {
    clear()?;
    let smb_conf = Path::new(office::DIRECTORY).join(super::SMB_CONF);
    let own = fs::read(&smb_conf).with_context(|| smb_conf.display().to_string())?;
    let restored = restore_twice(site, samba, &Path::new(BACKUPS).join(backup), &own);
    fs::write(&smb_conf, own).with_context(|| smb_conf.display().to_string())?;
    Ok(restored.and_then(|root| arrange(samba, &root)))
}

/// As Samba's own directories are.
fn arrange(samba: &Samba, root: &Path) -> anyhow::Result<()> {
    let private = root.join("private");
    let database = private.join(database_of(samba));
    ensure!(database.exists(), "it is the backup of another domain than {}", samba.realm);
    // The archive has files only, and directories are whatever the umask says.
    for directory in [private.clone(), private.join("sam.ldb.d"), private.join("tls")] {
        if directory.exists() {
            private_directory(&directory, 0o700)?;
        }
    }
    let new = Path::new(LIB).join(swap::NEW);
    fs::rename(root.join("state"), &new).context("its directory `state`")?;
    fs::rename(private, new.join("private")).context("its directory `private`")
}

/// Where the result is.
fn restore_twice(site: &Site, samba: &Samba, backup: &Path, smb_conf: &[u8]) -> anyhow::Result<PathBuf> {
    let place = |name: &str| Path::new(WORK).join(name);
    let [first, second, kept] = ["first", "second", "kept"].map(place);
    private_directory(Path::new(WORK), 0o700)?;
    for directory in [&first, &second, &kept] {
        fs::create_dir(directory).with_context(|| directory.display().to_string())?;
    }
    let conf = place("smb.conf");
    let pass = |backup: &Path, name: &str, target: &Path| {
        fs::write(&conf, smb_conf).with_context(|| conf.display().to_string())?;
        run(&restore_words(samba, backup, name, target, &conf))
    };
    pass(backup, MEANWHILE, &first)?;
    run(&keep_words(&first.join("etc/smb.conf"), &kept))?;
    let again = fs::read_dir(&kept)?.next().context("Samba's tool has kept nothing")??.path();
    pass(&again, &kontor_samba::netbios_name(site), &second)?;
    Ok(second)
}

fn run(words: &[String]) -> anyhow::Result<()> {
    let outcome = tool::run(words, LIMIT)?;
    if outcome.success {
        return Ok(());
    }
    outcome.said.lines().filter(|line| !line.contains("assword")).for_each(|line| println!("{line}"));
    let telling = outcome.said.lines().find(|line| line.starts_with("ERROR"));
    bail!("Samba says: {}", telling.unwrap_or("nothing"))
}
