//! Stage 1: from the initial RAM file system to the sealed base root.
//!
//! It runs as PID 1 on ramfs, once, and ends by executing stage 2 from the new root. It must not depend on
//! a disk: everything it needs came with the kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use super::kmsg;
use super::modules::URGENT;

/// The sealed base root inside the initial RAM file system.
const BASE: &str = "/base.erofs";
const NEW_ROOT: &str = "/root";
/// This program in the initial RAM file system.
const INIT: &str = "/init";
/// Modules in the initial RAM file system, and lists of them.
const MODULES: &str = "/modules";
/// The argument that makes the applet `modules` the child of [`start_background`].
pub(super) const BACKGROUND: &str = "background";
/// Where the one program lives in the base; an empty placeholder there, covered by a bind mount.
const PROGRAM: &str = "usr/sbin/kontor";
/// Long enough to read the message on a screen.
const FATAL_DELAY: Duration = Duration::from_secs(10);

/// Does not return; when the base cannot be mounted the machine reboots, so that GRUB takes the next slot.
pub(super) fn run() -> ! {
    // Errors of these three show later by themselves; nothing can be reported before /dev is there.
    let mut early = Vec::new();
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        if let Err(error) = mount_kernel(kind, target) {
            early.push(format!("cannot mount {target}: {error}"));
        }
    }
    early.iter().for_each(|problem| kmsg::error(problem));
    insert_listed("order");
    start_background();
    let error = match switch_root() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    kmsg::error(&format!("cannot start the base system: {error}; rebooting in {} s", FATAL_DELAY.as_secs()));
    loop {
        std::thread::sleep(FATAL_DELAY);
        let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
        kmsg::error(&format!("cannot reboot: {error}"));
    }
}

fn mount_kernel(kind: &str, target: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let flags = MsFlags::MS_NOSUID | if kind == "devtmpfs" { MsFlags::empty() } else { MsFlags::MS_NODEV };
    match mount(Some(kind), target, Some(kind), flags, None::<&str>) {
        // The kernel may have mounted /dev itself (CONFIG_DEVTMPFS_MOUNT).
        Err(nix::Error::EBUSY) => Ok(()),
        result => Ok(result?),
    }
}

/// A child of its own inserts what every boot needs soon and what takes long, while this process goes on.
///
/// Its root stays the initial one, so that it finds its files there; stage 2 reaps it. Should it fail, the kernel
/// asks for the same modules later (see `modules::request`).
fn start_background() {
    if let Err(error) = Command::new(INIT).args(["modules", BACKGROUND]).spawn() {
        kmsg::error(&format!("cannot insert modules in the background: {error}"));
    }
}

/// A child of its own inserts the drivers of network cards and disks while this process prepares everything else; see
/// `modules::URGENT`.
pub(super) fn start_urgent() {
    if let Err(error) = Command::new("/usr/sbin/kontor").args(["modules", URGENT]).spawn() {
        kmsg::error(&format!("cannot insert drivers early: {error}"));
    }
}

/// The child of [`start_background`].
pub(super) fn insert_in_background() {
    insert_listed("background");
    let _ = fs::remove_dir(MODULES);
}

/// The modules of a list that the builder has written, in its order. Once they are in the kernel their files would only
/// hold RAM.
fn insert_listed(list: &str) {
    let directory = Path::new(MODULES);
    let list = directory.join(list);
    let order = fs::read_to_string(&list).unwrap_or_default();
    let _ = fs::remove_file(list);
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let file = directory.join(name);
        let inserted =
            fs::File::open(&file).and_then(|file| Ok(finit_module(&file, c"", ModuleInitFlags::empty())?));
        match inserted {
            Err(error) if error.raw_os_error() != Some(nix::Error::EEXIST as i32) => {
                kmsg::error(&format!("cannot load {name}: {error}"));
            }
            _ => {}
        }
        let _ = fs::remove_file(file);
    }
}

fn switch_root() -> io::Result<std::convert::Infallible> {
    fs::create_dir_all(NEW_ROOT)?;
    let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some(BASE), NEW_ROOT, Some("erofs"), read_only, None::<&str>)
        .map_err(|error| context("mount /base.erofs", error))?;
    let program = PathBuf::from(NEW_ROOT).join(PROGRAM);
    mount(Some(INIT), &program, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|error| context("bind /init", error))?;
    for target in ["/dev", "/proc", "/sys"] {
        let moved = format!("{NEW_ROOT}{target}");
        if let Err(error) = mount(Some(target), moved.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        {
            kmsg::error(&format!("cannot move {target}: {error}"));
        }
    }
    nix::unistd::chdir(NEW_ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|error| context("move the root", error))?;
    nix::unistd::chroot(".")?;
    nix::unistd::chdir("/")?;
    let never = nix::unistd::execv(c"/usr/sbin/kontor", &[c"/usr/sbin/kontor", c"init"])
        .map_err(|error| context("execute /usr/sbin/kontor", error))?;
    Ok(never)
}

fn context(what: &str, error: nix::Error) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}
