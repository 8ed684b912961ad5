//! A room of its own for a peer: its unpacked packages as the root, no network, and only the folders it is lent.
//!
//! Tools of Debian call each other by absolute path, so they cannot run through their own loader like ours. A room
//! needs no privilege: the builder starts itself once more, with one thread, and that process becomes root of a user
//! namespace, assembles the root in a tmpfs and turns into the peer.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot, getgid, getuid};

/// Folders of the tree that are copied, because programs write there; everything else they read is below `/usr`.
const COPIED: [&str; 2] = ["etc", "var"];
/// Folders of the host that are lent as they are.
const LENT: [&str; 2] = ["dev", "proc"];
/// Links of `/bin` that maintainer scripts make.
const SCRIPTED: [(&str, &str); 2] = [("awk", "mawk"), ("sh", "dash")];
/// Folders that begin empty.
const EMPTY: [&str; 4] = ["root", "run", "sys", "tmp"];

/// Become a peer in a room of its own (the builder calls this itself)
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The unpacked packages
    #[arg(long)]
    tree: Utf8PathBuf,
    /// A folder of the host, and where the peer finds it
    #[arg(long, num_args = 2, value_names = ["FOLDER", "AT"])]
    lend: Vec<Utf8PathBuf>,
    /// The peer and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// A command that runs `program` in a room made of `tree`; its arguments can be added as usual. `lend` are folders of
/// the host and where the peer finds them, in the order in which they are mounted.
///
/// # Errors
/// When this program does not know where it is.
pub fn command(tree: &Utf8Path, lend: &[(&Utf8Path, &str)], program: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find the builder itself")?);
    command.args(["bench", "room", "--tree", tree.as_str()]);
    for (folder, at) in lend {
        command.args(["--lend", folder.as_str(), at]);
    }
    command.args(["--", program]);
    command.env_clear().envs([("PATH", "/usr/sbin:/usr/bin:/bin"), ("HOME", "/root"), ("LC_ALL", "C")]);
    Ok(command)
}

/// Makes the room and turns into the peer.
///
/// # Errors
/// When the host does not permit a step; the error says which.
pub fn enter(args: &Args) -> Result<()> {
    become_root()?;
    let root = args.tree.join("tmp");
    mount_at(None, &root, Some("tmpfs"), MsFlags::empty())?;
    furnish(&args.tree, &root)?;
    for pair in args.lend.chunks_exact(2) {
        lend(&pair[0], &root.join(pair[1].as_str().trim_start_matches('/')))?;
    }
    chroot(root.as_std_path()).with_context(|| format!("cannot make {root} the root"))?;
    chdir("/").context("cannot enter the new root")?;
    let (program, arguments) = args.command.split_first().context("no command")?;
    Err(Command::new(program).args(arguments).exec())
        .with_context(|| format!("cannot run {} of {}", program.display(), args.tree))
}

/// Root of a user namespace that knows this one user, with mounts and an empty network of its own.
fn become_root() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("the host does not permit user namespaces, which the peers need")?;
    // Without this an ordinary user may not map its group (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").context("cannot give up supplementary groups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("cannot map the user")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("cannot map the group")?;
    mount_at(None, Utf8Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)
}

fn furnish(tree: &Utf8Path, root: &Utf8Path) -> Result<()> {
    lend(&tree.join("usr"), &root.join("usr"))?;
    for folder in ["sbin", "lib", "lib64"] {
        symlink(format!("usr/{folder}"), root.join(folder))
            .with_context(|| format!("cannot link /{folder}"))?;
    }
    make_bin(tree, &root.join("bin"))?;
    for folder in COPIED {
        copy(&tree.join(folder), &root.join(folder))?;
    }
    for folder in LENT {
        lend(&Utf8Path::new("/").join(folder), &root.join(folder))?;
    }
    for folder in EMPTY {
        make_folder(&root.join(folder))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")
        .context("cannot write /etc/passwd")?;
    fs::write(root.join("etc/group"), "root:x:0:\n").context("cannot write /etc/group")
}

/// `/bin` as a folder of links into `/usr/bin`, and those that maintainer scripts would have made.
fn make_bin(tree: &Utf8Path, bin: &Utf8Path) -> Result<()> {
    make_folder(bin)?;
    let programs = tree.join("usr/bin");
    let link = |name: &str, target: &str| {
        symlink(format!("/usr/bin/{target}"), bin.join(name))
            .with_context(|| format!("cannot link /bin/{name}"))
    };
    for entry in programs.read_dir_utf8().with_context(|| format!("cannot read {programs}"))? {
        let entry = entry.with_context(|| format!("cannot read {programs}"))?;
        link(entry.file_name(), entry.file_name())?;
    }
    SCRIPTED
        .iter()
        .filter(|(name, _)| !programs.join(name).exists())
        .try_for_each(|(name, target)| link(name, target))
}

fn lend(folder: &Utf8Path, at: &Utf8Path) -> Result<()> {
    make_folder(at)?;
    mount_at(Some(folder), at, None, MsFlags::MS_BIND | MsFlags::MS_REC)
}

fn mount_at(source: Option<&Utf8Path>, at: &Utf8Path, kind: Option<&str>, flags: MsFlags) -> Result<()> {
    let nothing: Option<&str> = None;
    mount(source.map(Utf8Path::as_std_path), at.as_std_path(), kind, flags, nothing)
        .with_context(|| format!("the host does not permit a mount at {at}"))
}

fn make_folder(path: &Utf8Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {path}"))
}

fn copy(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    make_folder(to)?;
    for entry in from.read_dir_utf8().with_context(|| format!("cannot read {from}"))? {
        let entry = entry.with_context(|| format!("cannot read {from}"))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().with_context(|| format!("cannot read {from}"))?;
        let copied = if kind.is_dir() {
            copy(from, &to)?;
            Ok(())
        } else if kind.is_symlink() {
            fs::read_link(from).and_then(|target| symlink(target, &to))
        } else {
            fs::copy(from, &to).map(drop)
        };
        copied.with_context(|| format!("cannot copy {from}"))?;
    }
    Ok(())
}
