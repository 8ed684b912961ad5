//! Which domain the state directories hold, and the mark of one that is not finished.
//!
//! **Invariant:** the note is written last and durably, after everything it speaks of.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};
use kontor_config::Site;
use kontor_config::site::{Samba, SambaRole};
use kontor_sys::file::{remove_durable, write_durable};
use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

use super::role;

/// Says which domain lies in the state directories; written last.
pub(super) const IDENTITY: &str = "/var/lib/kontor/identity.json";
/// There from the first moment of making or joining a domain until that is finished; in the directory that is filled, so that
/// whoever puts another in its place takes it away.
const UNFINISHED: &str = "/var/lib/samba/.unfinished";
/// What provisioning and joining fill. Emptied only while [`UNFINISHED`] is there, and no [`IDENTITY`].
const FILLED: [&str; 2] = ["/var/lib/samba", "/var/cache/samba"];

/// Which domain this is, and what the box is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Identity {
    role: String,
    realm: String,
    domain: String,
    host_name: String,
}

/// Whether an earlier attempt was cut short.
pub(super) fn is_unfinished() -> bool {
    Path::new(UNFINISHED).exists()
}

/// From now on nothing in the directories counts.
///
/// # Errors
/// The kernel's.
pub(super) fn begin() -> anyhow::Result<()> {
    write_durable(Path::new(UNFINISHED), b"").context(UNFINISHED)
}

/// Takes away what an attempt has left, but not its mark.
///
/// # Errors
/// The kernel's.
pub(super) fn empty_all() -> anyhow::Result<()> {
    FILLED.iter().try_for_each(|directory| empty(Path::new(directory)))
}

/// The note, if there is one.
///
/// # Errors
/// When it cannot be read.
pub(super) fn identity() -> anyhow::Result<Option<Identity>> {
    let text = match fs::read(IDENTITY) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(IDENTITY),
    };
    let hint = || format!("{IDENTITY} cannot be read: restore it from a backup");
    serde_json::from_slice(&text).map(Some).with_context(hint)
}

/// Whole or not at all, durable, and after everything it speaks of: not all of that was written durably.
///
/// # Errors
/// The kernel's.
pub(super) fn keep(identity: &Identity) -> anyhow::Result<()> {
    for directory in FILLED {
        let opened = fs::File::open(directory).with_context(|| directory.to_owned())?;
        syncfs(opened).with_context(|| directory.to_owned())?;
    }
    let text = serde_json::to_vec_pretty(identity)?;
    write_durable(Path::new(IDENTITY), &text).context(IDENTITY)
}

/// What the note says is true, or there is nothing left: the mark goes, also one that a power cut has left beside the note.
///
/// # Errors
/// The kernel's.
pub(super) fn finish() -> anyhow::Result<()> {
    remove_durable(Path::new(UNFINISHED)).context(UNFINISHED)
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

impl Identity {
    /// What the site file asks for.
    pub(super) fn wanted(site: &Site, samba: &Samba) -> Self {
        Self {
            role: role(samba.role).to_owned(),
            realm: samba.realm.clone(),
            domain: samba.domain.clone(),
            host_name: site.office.host_name.clone(),
        }
    }

    /// Whether the domain has its home here.
    pub(super) fn is_dc(&self) -> bool {
        self.role == role(SambaRole::Dc)
    }

    /// # Errors
    /// When it is another: a domain is never turned into another one by editing the site file.
    pub(super) fn must_be(&self, wanted: &Self) -> anyhow::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
