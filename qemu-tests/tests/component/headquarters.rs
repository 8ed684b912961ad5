//! The component samba as the domain controller of a company's headquarters.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use qemu_tests::ready::Ready;
use qemu_tests::{guard, peers};
use xtask::archive::cache::FetchOptions;
use xtask::component;
use xtask::tools::Tools;

/// A domain is made at the first start: most of a minute on two slow, busy processors.
const READY_LIMIT: Duration = Duration::from_secs(300);
/// The longest orderly stop there may be.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The box's address in the office.
pub(crate) const BOX: &str = "192.168.77.1";
/// The password that the operator gives the Administrator.
pub(crate) const PASSWORD: &str = "Correct-Horse-7";
/// The table of the domain at headquarters.
pub(crate) const DOMAIN: &str =
    "[samba]\nrole = \"dc\"\nrealm = \"ad.office.internal\"\ndomain = \"OFFICE\"\n";
const SHARE: &str = "[[samba.share]]\nname = \"books\"\nwrite = [\"Accounting\"]\n";

const BOARD: &str = "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n\
                     [[port]]\nname = \"port3\"\n";

/// The component and where its things are.
#[derive(Debug)]
pub(crate) struct Headquarters {
    directory: PathBuf,
    program: PathBuf,
    root: PathBuf,
    /// What office PCs use: the clients of the same packages, outside the component.
    clients: Tools,
    running: Option<Child>,
}

impl Headquarters {
    /// Builds the component and gives this name space the office's network; nothing is started.
    pub(crate) fn prepare(directory: &Path, program: &Path) -> Result<Self> {
        let site = format!("{}{DOMAIN}{SHARE}", site("hq", "office.internal", "192.168.77.1/24"));
        Self::prepare_office(directory, program, &site, &[("port2", "192.168.77.1/24")])
    }

    /// The same for another office, whose ports lead nowhere.
    pub(crate) fn prepare_office(
        directory: &Path,
        program: &Path,
        site: &str,
        ports: &[(&str, &str)],
    ) -> Result<Self> {
        let fetch = FetchOptions { quiet: true, ..FetchOptions::default() };
        let root = component::build("samba", &fetch)?.unpacked()?.into_std_path_buf();
        let tools = peers::tool_set("peers")?;
        ip(&tools, "link set lo up")?;
        for (port, address) in ports {
            ip(&tools, &format!("link add {port} type veth peer name cable-{port}"))?;
            ip(&tools, &format!("link set {port} up"))?;
            ip(&tools, &format!("link set cable-{port} up"))?;
            ip(&tools, &format!("address add {address} dev {port}"))?;
        }
        let clients = peers::tool_set("samba")?;
        for folder in ["site", "dnsd"] {
            fs::create_dir_all(directory.join(folder))?;
        }
        fs::write(directory.join("site.toml"), site)?;
        fs::write(directory.join("board.toml"), BOARD)?;
        let own = ports.first().and_then(|(_, network)| network.split('/').next()).context("no port")?;
        fs::write(directory.join("krb5.conf"), krb5_conf(own))?;
        Ok(Self {
            directory: directory.to_owned(),
            program: program.to_owned(),
            root,
            clients,
            running: None,
        })
    }

    /// Changes the site file.
    pub(crate) fn edit_site(&self, from: &str, to: &str) -> Result<()> {
        let path = self.directory.join("site.toml");
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "the site file has no {from:?}");
        Ok(fs::write(&path, text.replace(from, to))?)
    }

    /// Starts the component; returns when it is ready, with the time that took.
    pub(crate) fn start(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let ready = self.spawn()?;
        let child = self.running.as_mut().context("it does not run")?;
        let ready = ready.wait(child, READY_LIMIT);
        ready.with_context(|| format!("the component said:\n{}", self.log()))?;
        Ok(began.elapsed())
    }

    /// Starts it; returns when it has said something.
    pub(crate) fn start_and_wait_for(&mut self, words: &str) -> Result<Ready> {
        let before = self.log().len();
        let ready = self.spawn()?;
        self.hear_words(&ready, before, words)?;
        Ok(ready)
    }

    /// Waits until it has said something, after so much of its log.
    pub(crate) fn hear_words(&mut self, ready: &Ready, after: usize, words: &str) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.log()[after..].contains(words) {
            let child = self.running.as_mut().context("it does not run")?;
            ensure!(
                child.try_wait()?.is_none() && Instant::now() < deadline,
                "it never said {words:?}: {}",
                self.log()
            );
            // What comes is a sign of life: this is the pause between two looks.
            ready.hear()?;
        }
        Ok(())
    }

    fn spawn(&mut self) -> Result<Ready> {
        let ready = Ready::bind()?;
        let output = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.run_command("run");
        command.env("NOTIFY_SOCKET", ready.path());
        let mut command = guard::with_parent(&command)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        self.running = Some(command.spawn().context("start the component")?);
        Ok(ready)
    }

    /// What a second one on the same state says, before it ends.
    pub(crate) fn start_a_second(&self) -> Result<String> {
        let output = self.run_command("another-run").stdin(Stdio::null()).output()?;
        ensure!(!output.status.success(), "two run on the same state");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn run_command(&self, run: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["component", "run", "--root"]).arg(&self.root);
        let places = [
            ("--state", "state"),
            ("--run", run),
            ("--site", "site.toml"),
            ("--board", "board.toml"),
            ("--join", "join"),
        ];
        for (flag, name) in places {
            command.arg(flag).arg(self.directory.join(name));
        }
        command
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("samba.log")
    }

    /// Starts the box's DNS service, which sends the realm's names where they are known.
    pub(crate) fn start_dnsd(&self) -> Result<Child> {
        fs::copy(self.directory.join("site.toml"), self.directory.join("site/site.toml"))?;
        let log = File::create(self.directory.join("dnsd.log"))?;
        let mut command = Command::new(&self.program);
        command.args(["dnsd", "--run"]).arg(&self.directory);
        command.arg("--board").arg(self.directory.join("board.toml"));
        let mut command = guard::with_parent(&command)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().context("start dnsd")
    }

    /// Gives the component a password to join its domain with; what it said, and whether it joined.
    pub(crate) fn join(&self, user: &str, password: &str) -> Result<(bool, String)> {
        let mut command = Command::new(&self.program);
        command.args(["component", "join", "--run"]).arg(self.directory.join("run")).arg(user);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("no standard input")?;
        writeln!(&input, "{password}")?;
        drop(input);
        let output = child.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Gives the component a password to join its domain with as the seed of a new box does.
    pub(crate) fn seed_join(&self, user: &str, password: &str) -> Result<PathBuf> {
        let file = self.directory.join("join");
        fs::write(&file, format!("{user}\n{password}\n"))?;
        Ok(file)
    }

    /// Waits until the component that was started is ready; returns what that took.
    pub(crate) fn wait_until_ready(&mut self, ready: &Ready) -> Result<()> {
        let child = self.running.as_mut().context("it does not run")?;
        ready.wait(child, READY_LIMIT).with_context(|| self.log())
    }

    /// Waits until the component has said something, at the latest with its next sign of life.
    pub(crate) fn wait_for_words(&self, words: &str) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.log().contains(words) {
            ensure!(Instant::now() < deadline, "it never said {words:?}: {}", self.log());
            // An operator's command takes long enough to be the pause between two looks.
            self.exec(&["/usr/bin/true"])?;
        }
        Ok(())
    }

    /// Everything it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Stops it in order; the time that took.
    pub(crate) fn stop(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let mut child = self.running.take().context("it does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let status = child.wait()?;
        ensure!(status.success(), "it ended with {status}:\n{}", self.log());
        ensure!(began.elapsed() < STOP_LIMIT * 2, "it took {:?} to end", began.elapsed());
        Ok(began.elapsed())
    }

    /// Whether the process inside can be killed and found: its number as seen from outside.
    pub(crate) fn process_inside(&self) -> Result<Pid> {
        let text = fs::read_to_string(self.directory.join("run/pid"))?;
        Ok(Pid::from_raw(text.trim().parse()?))
    }

    /// Waits until the component has ended by itself; whether it succeeded.
    pub(crate) fn wait_until_ended(&mut self) -> Result<bool> {
        Ok(self.running.take().context("it does not run")?.wait()?.success())
    }

    /// An operator's command in the component.
    pub(crate) fn exec(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["component", "exec", "--run"]).arg(self.directory.join("run")).arg("--").args(words);
        said(words[0], command.stdin(Stdio::null()).output()?)
    }

    /// A client's program on an office PC.
    pub(crate) fn client(&self, words: &[&str]) -> Result<String> {
        said(words[0], self.client_output(words)?)
    }

    /// A ticket of this account, in place of the one there was: `kinit`.
    pub(crate) fn ticket(&self, account: &str, password: &str) -> Result<()> {
        let mut command = self.client_command(&["kinit.mit", account])?;
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("no standard input")?;
        writeln!(input, "{password}")?;
        drop(input);
        said("kinit", child.wait_with_output()?).map(drop)
    }

    /// A computer of the domain changes names in DNS, signed with the present ticket: the lines of nsupdate(1).
    pub(crate) fn update_names(&self, lines: &str) -> Result<()> {
        let mut command = peers::tool_set("peers")?.command("nsupdate")?;
        command.arg("-g").env("KRB5_CONFIG", self.directory.join("krb5.conf"));
        command.env("KRB5CCNAME", self.tickets());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("no standard input")?;
        input.write_all(lines.as_bytes())?;
        drop(input);
        said("nsupdate", child.wait_with_output()?).map(drop)
    }

    /// The same as [`Self::client`], whether it succeeds or not.
    pub(crate) fn client_output(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.client_command(words)?;
        command.stdin(Stdio::null()).output().with_context(|| format!("run {}", words[0]))
    }

    fn client_command(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.clients.command(words[0])?;
        command.args(&words[1..]);
        command.env("KRB5_CONFIG", self.directory.join("krb5.conf"));
        command.env("KRB5CCNAME", self.tickets());
        Ok(command)
    }

    /// Where the PC keeps its tickets.
    pub(crate) fn tickets(&self) -> String {
        format!("FILE:{}", self.directory.join("tickets").display())
    }
}

impl Drop for Headquarters {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs `ip` in the present name space.
pub(crate) fn ip(tools: &Tools, arguments: &str) -> Result<()> {
    let output = tools.command("ip")?.args(arguments.split(' ')).output()?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Office and networks of a site file; tables may follow.
pub(crate) fn site(host_name: &str, domain: &str, lan: &str) -> String {
    format!(
        r#"
schema = 1
[office]
name = "Office"
host-name = "{host_name}"
domain = "{domain}"
[[network]]
name = "wan"
zone = "external"
ports = ["port1"]
address = "dhcp"
[[network]]
name = "lan"
zone = "internal"
ports = ["port2"]
address = "{lan}"
"#
    )
}

/// What a name service says in short, in the present name space.
pub(crate) fn dig(arguments: &[&str]) -> Result<String> {
    let output = peers::tool_set("peers")?.command("dig")?.arg("+short").args(arguments).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a PC of the domain has, in the office of this box; this name space has no resolver.
fn krb5_conf(own: &str) -> String {
    format!(
        "[libdefaults]\ndefault_realm = AD.OFFICE.INTERNAL\ndns_lookup_kdc = false\n\
         [realms]\nAD.OFFICE.INTERNAL = {{\nkdc = {own}\n}}\n"
    )
}

fn said(program: &str, output: Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}\n{}\n{}", output.status, text.trim(), errors.trim());
    Ok(text)
}
