//! `kontor dhcpd` and `kontor dnsd` at one end of a cable, room for a client at the other.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::namespace::{End, Namespaces};
use qemu_tests::ready::Ready;
use qemu_tests::{guard, peers};
use xtask::qemu::development_site;
use xtask::tools::Tools;

use super::HOOK;

/// The box's address in the default site.
pub(crate) const BOX: &str = "192.168.77.1";
/// A daemon that has nothing to wait for is ready much sooner.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// What a box has, as far as the daemons look.
const BOARD: &str = "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n";
const SITE_EXTRA: &str = "[[dns.host]]\nname = \"nas\"\naddress = \"192.168.77.5\"\n";
const HASH: &str =
    "$argon2id$v=19$m=64,t=1,p=1$a29udG9yLXFlbXUtdGVzdA$vpPGeifGrt8kuFhOc+vNqTnkuwpEhIjqQfEnmXs9vI4";

/// The office of one scenario.
#[derive(Debug)]
pub(crate) struct Office {
    directory: PathBuf,
    tools: Tools,
    namespaces: Namespaces,
    daemons: Vec<Child>,
}

impl Office {
    /// Both daemons ready.
    pub(crate) fn open(directory: &Path, program: &Path) -> Result<Self> {
        let directory = fs::canonicalize(directory)?;
        fs::write(directory.join("site.toml"), development_site(HASH) + SITE_EXTRA)?;
        fs::write(directory.join("board.toml"), BOARD)?;
        for daemon in ["dnsd", "dhcpd", "netd", "site"] {
            fs::create_dir_all(directory.join("run").join(daemon))?;
            fs::create_dir_all(directory.join("state").join(daemon))?;
        }
        std::os::unix::fs::symlink(std::env::current_exe()?, directory.join(HOOK))?;
        let tools = peers::tool_set("peers")?;
        let namespaces = Namespaces::new(tools.clone())?;
        namespaces.ip(End::Server, &format!("address add {BOX}/24 dev port2"))?;
        let mut office = Self { directory, tools, namespaces, daemons: Vec::new() };
        for daemon in ["dnsd", "dhcpd"] {
            office.start(daemon, program)?;
        }
        Ok(office)
    }

    /// The directory of the scenario.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn start(&mut self, daemon: &str, program: &Path) -> Result<()> {
        let notify = Ready::bind()?;
        let log = self.directory.join(format!("{daemon}.log"));
        let output = File::create(&log)?;
        let mut command = Command::new(program);
        command.arg(daemon);
        for (flag, file) in
            [("--run", "run"), ("--state", "state"), ("--site", "site.toml"), ("--board", "board.toml")]
        {
            command.arg(flag).arg(self.directory.join(file));
        }
        command.env("NOTIFY_SOCKET", notify.path());
        let mut command = guard::with_parent(&command)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut child = self.namespaces.at(End::Server, || command.spawn().context("start a daemon"))?;
        let ready = notify.wait(&mut child, READY_LIMIT);
        self.daemons.push(child);
        ready.with_context(|| {
            format!("{daemon} said: {}", fs::read_to_string(&log).unwrap_or_default().trim())
        })
    }

    /// Runs a program of the peers at the client's end.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = self.tools.command(program)?;
        command.args(arguments).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("run {program}"))?;
        let log = [&output.stdout[..], &output.stderr].concat();
        fs::write(self.directory.join(format!("{program}.log")), log)?;
        Ok(output)
    }

    /// The path of the script that DHCP clients are to call.
    pub(crate) fn hook(&self) -> Result<String> {
        let path = self.directory.join(HOOK);
        path.into_os_string().into_string().ok().context("the path of the test directory is not UTF-8")
    }

    /// What a DHCP client told its script when this happened.
    pub(crate) fn told(&self, reason: &str) -> Result<HashMap<String, String>> {
        let path = self.directory.join(format!("{reason}.env"));
        let text = fs::read_to_string(&path).with_context(|| format!("the client never said {reason}"))?;
        Ok(text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// Gives the client's port an address, for what comes after a lease.
    pub(crate) fn set_client_address(&self, address: &str) -> Result<()> {
        self.namespaces.ip(End::Client, &format!("address add {address}/24 dev eth0"))
    }

    /// What dig prints with `+short` for one question.
    pub(crate) fn dig(&self, arguments: &[&str]) -> Result<String> {
        let server = format!("@{BOX}");
        let arguments = [&["+short", "+time=5", "+tries=1", server.as_str()], arguments].concat();
        let output = self.run("dig", &arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(output.status.success(), "dig {arguments:?}: {} {text}", output.status);
        Ok(text)
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// This program as a DHCP client's script: writes down what it was told. udhcpc names the event in its first
/// argument, dhcpcd in `reason`.
pub(crate) fn hook(program: &Path, arguments: &[&str]) -> ExitCode {
    let reason = arguments.first().map(|word| (*word).to_owned()).or_else(|| std::env::var("reason").ok());
    let (Some(reason), Some(directory)) = (reason, program.parent()) else { return ExitCode::FAILURE };
    let variables: String = std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
    match fs::write(directory.join(format!("{reason}.env")), variables) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
