//! Starting a process with exactly the identity, limits and rights it is to have.
//!
//! Between fork and exec only async-signal-safe system calls are made, on values prepared before the fork.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::seccomp;

/// A Linux capability by its number in `linux/capability.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    /// Changing owners of files.
    Chown = 0,
    /// Ignoring permissions of files.
    DacOverride = 1,
    /// Acting as the owner of every file.
    Fowner = 3,
    /// Keeping set-id bits.
    Fsetid = 4,
    /// Signals to every process.
    Kill = 5,
    /// Any group.
    Setgid = 6,
    /// Any user.
    Setuid = 7,
    /// Ports below 1024.
    NetBindService = 10,
    /// Interfaces, routes, nftables.
    NetAdmin = 12,
    /// Raw and packet sockets.
    NetRaw = 13,
    /// Another root directory.
    SysChroot = 18,
    /// Another priority.
    SysNice = 23,
    /// Exceeding resource limits.
    SysResource = 24,
    /// Setting the clock.
    SysTime = 25,
}

/// Highest capability number of the kernels we run on (CAP_CHECKPOINT_RESTORE), for the bounding set.
const LAST_CAPABILITY: u32 = 40;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Root with every capability.
    Root,
    /// This user and group (same number), no supplementary groups, only these capabilities, no way
    /// to gain others, and none of the system calls that no service needs (`seccomp`).
    User {
        /// User and group id.
        id: u32,
        /// Ambient capabilities.
        capabilities: Vec<Capability>,
    },
}

/// What is to be started.
#[derive(Debug)]
pub struct Launch {
    /// Program.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// User and capabilities.
    pub identity: Identity,
    /// `cgroup.procs` of the cgroup it starts in, open for writing.
    pub cgroup: Option<OwnedFd>,
    /// Standard output and error.
    pub output: OwnedFd,
    /// Standard input; nothing: `/dev/null`.
    pub input: Option<OwnedFd>,
    /// Files it inherits under the same numbers ([`inherited`]); of all others it gets none.
    pub inherited: Vec<OwnedFd>,
    /// Open files at most.
    pub max_files: u64,
    /// Who goes first when the whole box is out of memory: -1000 (never) to 1000 (first).
    pub oom_score_adjust: i16,
}

/// Makes `command` run as root with these capabilities alone, no way to gain others, and none of the system calls that no
/// service needs.
pub fn confine(command: &mut Command, capabilities: &[Capability]) {
    let identity = Identity::User { id: 0, capabilities: capabilities.to_vec() };
    let setup = Setup::new(&identity, None, 0, 0);
    // SAFETY: `become_user` makes plain system calls on values it owns; it allocates nothing.
    unsafe { command.pre_exec(move || setup.become_user(0)) };
}

impl Launch {
    /// Starts it in its own session; returns its process id. The caller reaps it.
    ///
    /// # Errors
    /// When the fork, any of the settings or the exec fails; nothing is left running then.
    pub fn spawn(self) -> io::Result<u32> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.environment).current_dir("/");
        command.stdin(self.input.map_or_else(Stdio::null, Stdio::from));
        command.stdout(self.output.try_clone()?).stderr(self.output);
        let cgroup = self.cgroup.as_ref().map(AsRawFd::as_raw_fd);
        let setup = Setup::new(&self.identity, cgroup, self.max_files, self.oom_score_adjust);
        let inherited: Vec<RawFd> = self.inherited.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: `Setup::apply` and `keep_open` make plain system calls on values they own; they allocate nothing.
        unsafe { command.pre_exec(move || setup.apply().and_then(|()| keep_open(&inherited))) };
        command.spawn().map(|child| child.id())
    }
}

/// A file that the parent has opened for this process: [`Launch::inherited`].
///
/// # Errors
/// When nothing is open under this number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let own = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    check(own)?;
    // SAFETY: the kernel has just made it; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}

fn keep_open(files: &[RawFd]) -> io::Result<()> {
    // SAFETY: integers only.
    files.iter().try_for_each(|file| check(unsafe { libc::fcntl(*file, libc::F_SETFD, 0) }))
}

/// Everything the child does before exec, decided beforehand.
#[derive(Debug, Clone, Copy)]
struct Setup {
    user: Option<u32>,
    capabilities: u64,
    cgroup: Option<RawFd>,
    max_files: u64,
    /// Decimal text, padded with spaces, which the kernel skips.
    oom_score_adjust: [u8; 8],
}

impl Setup {
    fn new(identity: &Identity, cgroup: Option<RawFd>, max_files: u64, oom_score_adjust: i16) -> Self {
        let (user, capabilities) = match identity {
            Identity::Root => (None, 0),
            Identity::User { id, capabilities } => {
                (Some(*id), capabilities.iter().fold(0, |set, one| set | 1 << (*one as u32)))
            }
        };
        let mut text = [b' '; 8];
        let digits = oom_score_adjust.to_string();
        text[..digits.len()].copy_from_slice(digits.as_bytes());
        Self { user, capabilities, cgroup, max_files, oom_score_adjust: text }
    }

    fn apply(&self) -> io::Result<()> {
        // SAFETY: system calls on integers and on stack values that outlive them.
        unsafe {
            reset_signals()?;
            check(libc::setsid())?;
            if let Some(fd) = self.cgroup {
                check_size(libc::write(fd, c"0".as_ptr().cast(), 1))?;
            }
            self.adjust_oom_score();
            let limit = libc::rlimit { rlim_cur: self.max_files, rlim_max: self.max_files };
            check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
            match self.user {
                Some(id) => self.become_user(id),
                // It runs no set-id program; a file it should not have started must gain nothing either.
                None => check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
            }
        }
    }

    /// A refusal (no root, as in tests) costs the order of victims, not the service.
    ///
    /// # Safety
    /// Only between fork and exec.
    unsafe fn adjust_oom_score(&self) {
        // SAFETY: a constant path, and a buffer that outlives the call.
        unsafe {
            let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if file >= 0 {
                libc::write(file, self.oom_score_adjust.as_ptr().cast(), self.oom_score_adjust.len());
                libc::close(file);
            }
        }
    }

    /// # Safety
    /// Only between fork and exec.
    unsafe fn become_user(&self, id: u32) -> io::Result<()> {
        // SAFETY: system calls on integers and on stack values that outlive them.
        unsafe {
            for capability in (0..=LAST_CAPABILITY).filter(|bit| self.capabilities & (1 << bit) == 0) {
                // An older kernel does not know the highest ones: then there is nothing to drop.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(id, id, id))?;
            check(libc::setresuid(id, id, id))?;
            self.set_capabilities()?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        }
        seccomp::install()
    }

    /// # Safety
    /// Only between fork and exec.
    unsafe fn set_capabilities(&self) -> io::Result<()> {
        let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
        // Effective, permitted, inheritable; low word first, then high.
        let low = (self.capabilities & 0xFFFF_FFFF) as u32;
        let high = (self.capabilities >> 32) as u32;
        let data: [u32; 6] = [low, low, low, high, high, high];
        // SAFETY: the kernel reads 8 and 24 bytes, which is what these arrays are.
        let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
        check_size(isize::try_from(result).unwrap_or(-1))?;
        for capability in (0..=LAST_CAPABILITY).filter(|bit| self.capabilities & (1 << bit) != 0) {
            // SAFETY: integers only.
            let raised =
                unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
            check(raised)?;
        }
        Ok(())
    }
}

/// PID 1 blocks the signals it reads from a descriptor; a child must not inherit that.
///
/// # Safety
/// Only between fork and exec.
unsafe fn reset_signals() -> io::Result<()> {
    // SAFETY: `set` is written by sigemptyset before it is read.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        check(libc::sigemptyset(set.as_mut_ptr()))?;
        check(libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn check_size(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_child_has_only_what_it_was_given() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let launch = Launch {
            program: "/bin/sh".into(),
            args: vec![
                "-c".into(),
                "env; cat /proc/self/oom_score_adj; ulimit -n; pwd; echo error >&2".into(),
            ],
            environment: vec![("NAME".into(), "value".into())],
            identity: Identity::Root,
            cgroup: None,
            output: write,
            input: None,
            inherited: Vec::new(),
            max_files: 64,
            oom_score_adjust: 500,
        };
        let pid = launch.spawn().unwrap();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        let raw = i32::try_from(pid).unwrap();
        assert_eq!(waitpid(Pid::from_raw(raw), None).unwrap(), WaitStatus::Exited(Pid::from_raw(raw), 0));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("PWD=")).collect();
        assert!(lines.contains(&"NAME=value"), "{text}");
        assert!(lines.ends_with(&["500", "64", "/", "error"]), "{text}");
        assert!(!text.contains("PATH="), "{text}");
    }

    #[test]
    fn a_child_reads_what_it_inherits_and_nothing_else() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let open = || File::open("/proc/self/comm").unwrap();
        let (given, kept) = (open(), open());
        let (number, other) = (given.as_raw_fd(), kept.as_raw_fd());
        let launch = Launch {
            program: "/bin/bash".into(),
            args: vec![
                "-c".into(),
                format!("read -u {number} && echo read; read -u {other} || echo refused"),
            ],
            environment: vec![],
            identity: Identity::Root,
            cgroup: None,
            output: write,
            input: None,
            inherited: vec![given.into()],
            max_files: 64,
            oom_score_adjust: 500,
        };
        let pid = launch.spawn().unwrap();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        waitpid(Pid::from_raw(i32::try_from(pid).unwrap()), None).unwrap();
        assert!(text.starts_with("read\n") && text.ends_with("refused\n"), "{text}");
        assert!(inherited(-1).is_err());
        let mut comm = String::new();
        File::from(inherited(kept.as_raw_fd()).unwrap()).read_to_string(&mut comm).unwrap();
        assert!(!comm.is_empty());
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let (_read, write) = nix::unistd::pipe().unwrap();
        let launch = Launch {
            program: "/nowhere/program".into(),
            args: vec![],
            environment: vec![],
            identity: Identity::Root,
            cgroup: None,
            output: write,
            input: None,
            inherited: Vec::new(),
            max_files: 64,
            oom_score_adjust: 500,
        };
        assert_eq!(launch.spawn().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
