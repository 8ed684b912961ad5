//! The commands that make a backup of a domain, and a domain of a backup.

use std::path::Path;

use crate::setup::SAMBA_TOOL;
use crate::{Samba, realm};

/// Where backups are, in the component.
pub const BACKUPS: &str = "/var/backup";

/// `samba-tool domain backup offline`: everything of the domain whose configuration is `smb_conf`, as a file in `directory`.
/// It may run meanwhile.
#[must_use]
pub fn keep_words(smb_conf: &Path, directory: &Path) -> Vec<String> {
    words("offline", [format!("--targetdir={}", directory.display()), format!("-s{}", smb_conf.display())])
}

/// `samba-tool domain backup restore`: the domain of a file, with one domain controller of this name and no other, in an empty
/// directory. It gets `smb_conf`, with other directories, below `etc`.
#[must_use]
pub fn restore_words(
    samba: &Samba,
    file: &Path,
    name: &str,
    directory: &Path,
    smb_conf: &Path,
) -> Vec<String> {
    let arguments = [
        format!("--backup-file={}", file.display()),
        format!("--newservername={name}"),
        format!("--targetdir={}", directory.display()),
        format!("--site={}", samba.first_site()),
        format!("-s{}", smb_conf.display()),
    ];
    words("restore", arguments)
}

/// The database of accounts of a domain, below its directory `private`.
#[must_use]
pub fn database_of(samba: &Samba) -> String {
    let components = realm(samba).split('.').map(|label| format!("DC={label}")).collect::<Vec<_>>();
    format!("sam.ldb.d/{}.ldb", components.join(","))
}

fn words<const N: usize>(kind: &str, arguments: [String; N]) -> Vec<String> {
    let head = [SAMBA_TOOL, "domain", "backup", kind].map(str::to_owned);
    head.into_iter().chain(arguments).collect()
}
