//! Shares and home directories: their sections of `smb.conf`, and the directories they need.

use crate::section::Section;
use crate::{Samba, Share};

const SHARES: &str = "/srv/shares";
/// Beside the shares: the name of a share cannot begin with a dot.
const SNAPSHOTS: &str = "/srv/shares/.snapshots";
const HOMES: &str = "/srv/homes";

/// Name of a snapshot, for `strftime` and UTC, as `vfs_shadow_copy2` and the protocol expect it ([MS-SMB2],
/// section 2.2.32.2). A share's snapshots lie in its directory below `.snapshots`.
pub const SNAPSHOT_NAME: &str = "@GMT-%Y.%m.%d-%H.%M.%S";

/// `BUILTIN\Administrators`, to which the administrators of the domain belong; its name depends on the
/// language of the domain.
const ADMINISTRATORS: &str = "S-1-5-32-544";

/// A directory that Samba expects, owned by root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Whether snapshots may be taken of it: a subvolume where the file system has those.
    pub subvolume: bool,
}

/// The directories of shares, snapshots and homes, parents first.
///
/// Those of shares are open to all: who gets there has passed the lists of the share. To have previous
/// versions, they are subvolumes, and their snapshots are made in the directory of the same name below
/// `.snapshots`.
#[must_use]
pub fn directories(samba: &Samba) -> Vec<Directory> {
    let directory = |path: String, mode| Directory { path, mode, subvolume: false };
    let mut list = Vec::new();
    for share in &samba.shares {
        // Every share: it may have previous versions later.
        list.push(Directory { subvolume: true, ..directory(format!("{SHARES}/{}", share.name), 0o777) });
    }
    for share in samba.shares.iter().filter(|share| share.previous_versions) {
        list.push(directory(format!("{SNAPSHOTS}/{}", share.name), 0o755));
    }
    list.extend(samba.homes.then(|| directory(HOMES.to_owned(), 0o755)));
    list
}

/// With every client that can.
pub(crate) const ENCRYPTED: (&str, &str) = ("server smb encrypt", "desired");

/// Permissions that Windows sets, and nothing else: see the introduction of this crate.
const WINDOWS_ACL: &[(&str, &str)] =
    &[("acl_xattr:security_acl_name", "user.NTACL"), ("acl_xattr:ignore system acls", "yes")];

/// Each user has a folder that nobody else can enter. The access time says when a file was deleted, its own
/// date stays.
const RECYCLE: &[(&str, &str)] = &[
    ("recycle:repository", ".recycle/%U"),
    ("recycle:directory_mode", "0777"),
    ("recycle:subdir_mode", "0700"),
    ("recycle:keeptree", "yes"),
    ("recycle:versions", "yes"),
    ("recycle:touch", "yes"),
    ("recycle:exclude", "*.tmp ~$*"),
];

/// What changes names and permissions, to the log that is on standard output. Opening and reading is left
/// out: one look into a folder would be a hundred lines.
const AUDIT: &[(&str, &str)] = &[
    ("full_audit:prefix", "%u|%I|%S"),
    ("full_audit:success", "connect disconnect mkdirat renameat unlinkat fset_nt_acl"),
    ("full_audit:failure", "none"),
    ("full_audit:syslog", "no"),
];

/// The section of one share.
pub(crate) fn share_section(samba: &Samba, share: &Share) -> Section {
    let mut section = Section::new(&share.name);
    let path = format!("{SHARES}/{}", share.name);
    section.set("path", &path);
    if let Some(comment) = &share.comment {
        section.set("comment", comment);
    }
    section.set("valid users", &accounts(samba, share.read.iter().chain(&share.write)));
    // Everybody reads, so a `read list` would say nothing more.
    section.set("read only", "yes");
    if !share.write.is_empty() {
        section.set("write list", &accounts(samba, share.write.iter()));
    }
    let (encrypt, wherever_possible) = ENCRYPTED;
    section.set(encrypt, if share.encrypt { "required" } else { wherever_possible });
    section.set("vfs objects", &modules(samba, share).join(" "));
    section.set_all(WINDOWS_ACL);
    section.set("acl_xattr:default acl style", "everyone");
    if share.recycle_bin {
        section.set_all(RECYCLE);
    }
    if share.previous_versions {
        // Absolute, because the snapshots are outside the share; both paths end at the share, so that one
        // snapshot is one share and nothing more.
        section.set("shadow:snapdir", &format!("{SNAPSHOTS}/{}", share.name));
        section.set("shadow:basedir", &path);
        section.set("shadow:localtime", "no");
    }
    if share.audit {
        section.set_all(AUDIT);
    }
    section
}

/// The hidden share of home directories.
///
/// Not `[homes]`: that makes no directories, and an administrator could not see them. Here the
/// administration of users in Windows makes each folder with its permissions; until then nobody but
/// administrators may write.
pub(crate) fn home_section(samba: &Samba) -> Section {
    let mut section = Section::new("home$");
    section.set_all(&[
        ("path", HOMES),
        ("comment", "Home directories"),
        ("read only", "no"),
        ("admin users", ADMINISTRATORS),
        ("hide unreadable", "yes"),
        ENCRYPTED,
    ]);
    let mut modules = Vec::new();
    modules.extend(required_modules(samba));
    section.set("vfs objects", &modules.join(" "));
    section.set_all(WINDOWS_ACL);
    section
}

/// Outermost first: the audit sees what the client asked for; then a path in a snapshot becomes a real one,
/// before permissions are looked at; the recycle bin comes last, so that permission to delete is checked
/// before it moves the file, and its moving is not audited as the user's.
fn modules(samba: &Samba, share: &Share) -> Vec<&'static str> {
    let mut list = Vec::new();
    list.extend(share.audit.then_some("full_audit"));
    list.extend(share.previous_versions.then_some("shadow_copy2"));
    list.extend(required_modules(samba));
    list.extend(share.recycle_bin.then_some("recycle"));
    list
}

/// What Samba would load by itself on a domain controller if a share had no list of its own, and what keeps
/// the permissions everywhere.
fn required_modules(samba: &Samba) -> impl Iterator<Item = &'static str> {
    samba.role.is_domain_controller().then_some("dfs_samba4").into_iter().chain(["acl_xattr"])
}

/// A list of users and groups of the domain.
///
/// Samba asks for `@` before a group, and the site file does not tell which is which: each name is there as
/// both. In a domain it is one account, and the form that does not fit matches nobody. Groups first,
/// because that finds most.
fn accounts<'a>(samba: &Samba, names: impl Iterator<Item = &'a String> + Clone) -> String {
    let quoted = |name: &String| format!("\"{}\\{name}\"", samba.domain);
    let groups = names.clone().map(|name| format!("@{}", quoted(name)));
    groups.chain(names.map(quoted)).collect::<Vec<_>>().join(" ")
}
