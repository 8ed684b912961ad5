//! Two network namespaces with one cable between them, without any privilege.
//!
//! Only for a process with one thread: it leaves its own user namespace for good. Inside it is root, and
//! whatever it does to networks and mounts ends with it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getgid, getuid};
use xtask::tools::Tools;

/// First argument of the test program when it only keeps a namespace alive.
pub const HOLD_ROLE: &str = "--role-hold-namespace";

/// Which end of the cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where the daemons run; their port is `port2`.
    Server,
    /// Where the clients run; their port is `eth0`.
    Client,
}

/// The namespaces.
#[derive(Debug)]
pub struct Namespaces {
    server: File,
    client: File,
    tools: Tools,
    holder: Child,
}

/// Makes this process root in a user namespace of its own.
///
/// # Errors
/// When the host does not permit that.
pub fn become_root() -> Result<()> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("the host does not permit user namespaces")?;
    // Without this an ordinary user may not map its group (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").context("give up supplementary groups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("map the user")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("map the group")?;
    Ok(())
}

/// Gives this process, which is run by root, a network and mounts of its own.
///
/// # Errors
/// When the host does not permit that.
pub fn leave_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("the host does not permit name spaces")
}

impl Namespaces {
    /// Makes both ends and the cable; this process ends up in the client's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(tools: Tools) -> Result<Self> {
        let server = File::open("/proc/self/ns/net")?;
        let own = std::env::current_exe()?;
        let mut holder =
            Command::new(own).arg(HOLD_ROLE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        wait_for_line(&mut holder)?;
        unshare(CloneFlags::CLONE_NEWNET).context("make a second network namespace")?;
        let client = File::open("/proc/self/ns/net")?;
        let namespaces = Self { server, client, tools, holder };
        let holder = namespaces.holder.id().to_string();
        namespaces.ip(End::Client, &format!("link add eth0 type veth peer name port2 netns {holder}"))?;
        for (end, port) in [(End::Server, "port2"), (End::Client, "eth0")] {
            namespaces.ip(end, "link set lo up")?;
            namespaces.ip(end, &format!("link set {port} up"))?;
        }
        Ok(namespaces)
    }

    /// Runs `ip` at one end.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, end: End, arguments: &str) -> Result<()> {
        let mut command = self.tools.command("ip")?;
        command.args(arguments.split(' '));
        let output = self.at(end, || Ok(command.output()?))?;
        ensure!(
            output.status.success(),
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Does something at one end; processes started there stay there.
    ///
    /// # Errors
    /// Those of `action`, and the kernel's.
    pub fn at<T>(&self, end: End, action: impl FnOnce() -> Result<T>) -> Result<T> {
        let target = match end {
            End::Server => &self.server,
            End::Client => &self.client,
        };
        setns(target, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
        let result = action();
        setns(&self.client, CloneFlags::CLONE_NEWNET).context("return to the client's namespace")?;
        result
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Says that it runs, and then waits until nobody holds its standard input.
pub fn hold() {
    println!("held");
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

fn wait_for_line(child: &mut Child) -> Result<()> {
    use std::io::BufRead;
    let output = child.stdout.as_mut().context("no output of the holder")?;
    let mut line = String::new();
    std::io::BufReader::new(output).read_line(&mut line)?;
    ensure!(!line.is_empty(), "the holder of the namespace did not start");
    Ok(())
}

/// An empty writable directory in place of `path`, for this process and its children only.
///
/// # Errors
/// When the kernel refuses.
pub fn cover(path: &Path) -> Result<()> {
    let none: Option<&str> = None;
    mount(none, path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)
        .with_context(|| format!("cover {}", path.display()))
}

/// `file` in place of `path`, for this process and its children only.
///
/// # Errors
/// When the kernel refuses.
pub fn replace(path: &Path, file: &Path) -> Result<()> {
    let none: Option<&str> = None;
    mount(Some(file), path, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("replace {}", path.display()))
}
