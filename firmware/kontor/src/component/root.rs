//! The component's root: read-only but for its state, nothing in it that could be a device or raise privileges.
//!
//! Runs as process 1 of a component; afterwards nothing of the box's own file systems can be reached.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::Context;
use kontor_component::{Manifest, Meeting};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root, sethostname};

use super::outside::ROOT_ONLY;

/// Of the box's /dev; everything else there is hardware, which is not a component's business.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Of /proc, what root could turn on the whole box with.
const KERNEL_SETTINGS: [&str; 9] =
    ["sys", "irq", "sysrq-trigger", "bus", "fs", "scsi", "acpi", "asound", "mtrr"];
/// Runtime files: sockets, rendered configuration. Small, in RAM, counted against the component's memory.
const RUN_LIMIT: &str = "mode=0755,size=32m,nr_inodes=4096";
const TMP_LIMIT: &str = "mode=1777,size=256m,nr_inodes=65536";

/// Leaves the box's mounts, host name and System V IPC; the network stays that of the box. What is mounted from now on, the box
/// does not see.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn leave_the_box() -> anyhow::Result<()> {
    let spaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    unshare(spaces).context(ROOT_ONLY)?;
    none("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)
}

/// Makes `root` the root of a process that has left the box, with the manifest's state directories from `state` in it, and
/// from `run` those where it meets the box.
///
/// # Errors
/// The kernel's, and when a mount point is missing in the image.
pub(super) fn enter(
    root: &Path,
    (state, run): (&Path, &Path),
    manifest: &Manifest,
    host_name: &str,
) -> anyhow::Result<()> {
    bind(root, root, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    for directory in &manifest.state {
        let source = state.join(&directory.name);
        fs::create_dir_all(&source).with_context(|| source.display().to_string())?;
        let mode = fs::Permissions::from_mode(directory.permissions()?);
        fs::set_permissions(&source, mode).with_context(|| source.display().to_string())?;
        let target = inside(root, &directory.path);
        bind(&source, &target, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)?;
    }
    devices(root)?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    fresh("proc", &inside(root, "/proc"), plain, "")?;
    let settings = KERNEL_SETTINGS.map(|name| inside(root, "/proc").join(name));
    // Not every kernel has all of them.
    for path in settings.iter().filter(|path| path.exists()) {
        bind(path, path, plain | MsFlags::MS_RDONLY)?;
    }
    fresh("tmpfs", &inside(root, "/run"), plain, RUN_LIMIT)?;
    manifest.meeting.iter().try_for_each(|meeting| meet(root, run, meeting))?;
    fresh("tmpfs", &inside(root, "/tmp"), plain, TMP_LIMIT)?;
    sethostname(host_name).context("the host name")?;
    chdir(root).with_context(|| root.display().to_string())?;
    // pivot_root(2), "pivot_root(".", ".")": the old root lies over the new one, and is let go.
    pivot_root(".", ".").context("cannot change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot let the old root go")?;
    chdir("/").context("/")
}

/// What an earlier run has left in it is in the way: a socket is bound to a free name only.
fn meet(root: &Path, run: &Path, meeting: &Meeting) -> anyhow::Result<()> {
    let (source, target) = (run.join(&meeting.name), inside(root, &meeting.path));
    let made = || -> std::io::Result<()> {
        if source.exists() {
            fs::remove_dir_all(&source)?;
        }
        fs::create_dir(&source)?;
        chown(&source, None, Some(meeting.group))?;
        fs::set_permissions(&source, fs::Permissions::from_mode(0o750))?;
        fs::create_dir_all(&target)
    };
    made().with_context(|| source.display().to_string())?;
    bind(&source, &target, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)
}

fn inside(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn devices(root: &Path) -> anyhow::Result<()> {
    let directory = inside(root, "/dev");
    fresh("tmpfs", &directory, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "mode=0755,size=64k,nr_inodes=32")?;
    for name in DEVICES {
        let target = directory.join(name);
        fs::write(&target, "").with_context(|| target.display().to_string())?;
        // Written to all the same; but owner and mode are those of the box's own device.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        bind(&Path::new("/dev").join(name), &target, flags)?;
    }
    let memory = directory.join("shm");
    fs::create_dir(&memory)?;
    fresh("tmpfs", &memory, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, TMP_LIMIT)?;
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        std::os::unix::fs::symlink(target, directory.join(name))?;
    }
    none(&directory, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC)
}

fn fresh(kind: &str, target: &Path, flags: MsFlags, options: &str) -> anyhow::Result<()> {
    mount(Some(kind), target, Some(kind), flags, Some(options))
        .with_context(|| format!("cannot mount {}", target.display()))
}

/// Binds, and then sets the flags: a bind itself takes none.
fn bind(source: &Path, target: &Path, flags: MsFlags) -> anyhow::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot bind {} to {}", source.display(), target.display()))?;
    none(target, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags)
}

fn none(target: impl AsRef<Path>, flags: MsFlags) -> anyhow::Result<()> {
    let target = target.as_ref();
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot remount {}", target.display()))
}
