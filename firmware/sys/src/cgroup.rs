//! Control groups, version 2.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where the hierarchy is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// One control group below `kontor/`.
#[derive(Debug, Clone)]
pub struct Cgroup(PathBuf);

/// Limits of a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `memory.max` in MiB.
    pub memory_mib: u32,
    /// `pids.max`.
    pub pids: u32,
}

/// Makes the parent of all service groups and enables the controllers for it.
///
/// # Errors
/// When the hierarchy is not mounted or a controller is missing.
pub fn prepare() -> io::Result<()> {
    fs::write(format!("{ROOT}/cgroup.subtree_control"), "+memory +pids")?;
    fs::create_dir_all(format!("{ROOT}/kontor"))?;
    fs::write(format!("{ROOT}/kontor/cgroup.subtree_control"), "+memory +pids")
}

impl Cgroup {
    /// The group of a service; nothing is touched yet.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(format!("{ROOT}/kontor/{name}").into())
    }

    /// Creates it with its limits and opens it for a child to enter.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self, limits: Limits) -> io::Result<OwnedFd> {
        fs::create_dir_all(&self.0)?;
        fs::write(self.0.join("memory.max"), format!("{}M", limits.memory_mib))?;
        fs::write(self.0.join("pids.max"), limits.pids.to_string())?;
        let procs: File = OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))?;
        Ok(procs.into())
    }

    /// Kills every process in it.
    ///
    /// # Errors
    /// The kernel's; also when it does not exist.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.kill"), "1")
    }
}

/// The service whose group a process is in.
#[must_use]
pub fn service_of(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    parse_service(&text)
}

fn parse_service(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/kontor/"))?;
    path.split('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::parse_service;

    #[test]
    fn the_service_is_the_first_part_below_kontor() {
        assert_eq!(parse_service("0::/kontor/dnsd\n").as_deref(), Some("dnsd"));
        assert_eq!(parse_service("1:x:/kontor/no\n0::/kontor/timed/chronyd\n").as_deref(), Some("timed"));
        assert_eq!(parse_service("0::/init.scope\n"), None);
    }
}
