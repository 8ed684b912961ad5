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

/// Where services send their notifications.
pub(super) const NOTIFY_SOCKET: &str = "/run/kontor/init/notify.sock";
const PROGRAM: &str = "/usr/sbin/kontor";

/// Starts it; returns its process id and the reading end of its log pipe.
///
/// A control group that cannot be made costs its limits, not the service: an office without limits is
/// better off than one without DHCP.
pub(super) fn start(service: &Service) -> io::Result<(u32, OwnedFd)> {
    let name = service.spec.name;
    let directory = Path::new(paths::RUN).join(name);
    fs::create_dir_all(&directory)?;
    let id = user(service);
    chown(&directory, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?;
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
        max_files: service.max_files,
    };
    Ok((launch.spawn()?, reader))
}

fn environment() -> Vec<(String, String)> {
    [("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/"), ("LANG", "C.UTF-8"), ("NOTIFY_SOCKET", NOTIFY_SOCKET)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
}
