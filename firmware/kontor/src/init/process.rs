//! Starting a service's process: its directories, its control group, its log pipe.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use kontor_status::paths;
use kontor_sys::cgroup::Cgroup;
use kontor_sys::spawn::Launch;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, chown, pipe2};

use super::kmsg;
use super::services::{Service, user};
use super::stage2::mount_tmpfs;

/// Where services send their notifications.
pub(super) const NOTIFY_SOCKET: &str = "/run/kontor/init/notify.sock";
const PROGRAM: &str = "/usr/sbin/kontor";

/// A service's own directory below /run: what a status file and a few sockets and copies need.
const RUN_LIMIT: &str = "mode=0755,size=4m,nr_inodes=256";

/// Gives a service a directory of its own below /run, as a file system of its own: one that fills it hurts
/// nobody else. Called before any service is started, so that nobody watches what is covered up later.
pub(super) fn prepare(service: &Service) -> io::Result<()> {
    let directory = Path::new(paths::RUN).join(service.spec.name);
    fs::create_dir_all(&directory)?;
    let mounted = mount_tmpfs(&directory.to_string_lossy(), RUN_LIMIT);
    let id = user(service);
    chown(&directory, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?;
    mounted
}

/// Starts it; returns its process id and the reading end of its log pipe.
///
/// A control group that cannot be made costs its limits, not the service: an office without limits is
/// better off than one without DHCP.
pub(super) fn start(service: &Service) -> io::Result<(u32, OwnedFd)> {
    let name = service.spec.name;
    let cgroup = Cgroup::of(name).open(service.limits);
    if let Err(error) = &cgroup {
        kmsg::error(&format!("{name} runs without limits: {error}"));
    }
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let launch = Launch {
        program: PROGRAM.into(),
        args: service.args.clone(),
        environment: environment(),
        identity: service.identity.clone(),
        cgroup: cgroup.ok(),
        output: writer,
        input: None,
        inherited: Vec::new(),
        max_files: service.max_files,
        oom_score_adjust: service.oom_score_adjust,
    };
    Ok((launch.spawn()?, reader))
}

fn environment() -> Vec<(String, String)> {
    [("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/"), ("LANG", "C.UTF-8"), ("NOTIFY_SOCKET", NOTIFY_SOCKET)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
}
