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
    /// `memory.max` in MiB; whoever needs more is killed as a whole (`memory.oom.group`).
    pub memory_mib: u32,
    /// `pids.max`.
    pub pids: u32,
    /// `cpu.weight`: its share when all want the processor; 100 is the kernel's default.
    pub cpu_weight: u32,
}

/// How often a control group met its limits since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// Times it was out of its own memory.
    pub out_of_memory: u64,
    /// Processes the kernel killed in it for want of memory, its own or the box's.
    pub memory_kills: u64,
    /// Processes it was refused.
    pub refused_processes: u64,
}

const CONTROLLERS: &str = "+memory +pids +cpu";

/// Makes the parent of all service groups and enables the controllers for it; all services together get
/// `memory_mib`.
///
/// # Errors
/// When the hierarchy is not mounted or a controller is missing.
pub fn prepare(memory_mib: u32) -> io::Result<()> {
    fs::write(format!("{ROOT}/cgroup.subtree_control"), CONTROLLERS)?;
    fs::create_dir_all(format!("{ROOT}/kontor"))?;
    fs::write(format!("{ROOT}/kontor/cgroup.subtree_control"), CONTROLLERS)?;
    fs::write(format!("{ROOT}/kontor/memory.max"), format!("{memory_mib}M"))
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
        fs::write(self.0.join("memory.oom.group"), "1")?;
        fs::write(self.0.join("pids.max"), limits.pids.to_string())?;
        fs::write(self.0.join("cpu.weight"), limits.cpu_weight.to_string())?;
        let procs: File = OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))?;
        Ok(procs.into())
    }

    /// Moves a process into it.
    ///
    /// # Errors
    /// The kernel's; also when it does not exist.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    /// How often it met its limits; a group that does not exist never did.
    #[must_use]
    pub fn events(&self) -> Events {
        let read = |file: &str| fs::read_to_string(self.0.join(file)).unwrap_or_default();
        let memory = read("memory.events");
        Events {
            out_of_memory: field(&memory, "oom"),
            memory_kills: field(&memory, "oom_kill"),
            refused_processes: field(&read("pids.events"), "max"),
        }
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

/// The value of a flat keyed file (cgroup-v2.rst, "Format").
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

fn parse_service(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/kontor/"))?;
    path.split('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{field, parse_service};

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 1\n";
        assert_eq!((field(text, "oom"), field(text, "oom_kill"), field(text, "max")), (2, 3, 31));
        assert_eq!((field(text, "swap"), field("oom x\n", "oom"), field("", "oom")), (0, 0, 0));
    }

    #[test]
    fn the_service_is_the_first_part_below_kontor() {
        assert_eq!(parse_service("0::/kontor/dnsd\n").as_deref(), Some("dnsd"));
        assert_eq!(parse_service("1:x:/kontor/no\n0::/kontor/timed/chronyd\n").as_deref(), Some("timed"));
        assert_eq!(parse_service("0::/init.scope\n"), None);
    }
}
