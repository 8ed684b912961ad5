//! `bench samba`: a gigabyte to a share and back, in the component and in a plain Debian root (`docs/benchmarks.md`).
//!
//! Both are the same packages on the same state directories, served one after the other: ours from the sealed image by the
//! component's runtime, the peer from the unpacked packages by chroot alone. The client is Samba's own, on the loopback of a network
//! name space of its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::report::OURS;
use super::{Report, Subject, Summary, boot, run as run_subjects};
use crate::archive::cache::Cache;
use crate::command::bench::Common;
use crate::command::component::{board_text, office_network, read_site};
use crate::image::{checked_lock, firmware, process};
use crate::tools::Tools;
use crate::workspace::Workspace;
use crate::{component, image};

mod roles;

const COMPONENT: &str = "samba";
const PLAIN: &str = "plain_debian";
const SMB: u16 = 445;
const SIZE_MIB: usize = 1024;
const BOX: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const PASSWORD: &str = "Correct-Horse-7";
/// A domain is made before the first round.
const UP_LIMIT: Duration = Duration::from_secs(300);
/// Between two looks whether somebody listens.
const LOOK: Duration = Duration::from_millis(20);
const SITE: &str = r#"
[samba]
role = "dc"
realm = "ad.office.internal"
domain = "OFFICE"
[[samba.share]]
name = "bench"
write = ["Domain Users"]
"#;
/// State directories of the component, and where Samba has them.
const STATE: [(&str, &str); 4] = [
    ("lib", "var/lib/samba"),
    ("cache", "var/cache/samba"),
    ("log", "var/log/samba"),
    ("shares", "srv/shares"),
];

/// What one run of one subject came to.
#[derive(Debug, Clone, Copy)]
struct Figures {
    start_s: f64,
    write_s: f64,
    read_s: f64,
    pss_kib: f64,
}

/// Measures.
///
/// # Errors
/// When this is not root, a subject does not come up, or the client fails.
pub fn run(common: &Common) -> Result<Report> {
    ensure!(nix::unistd::geteuid().is_root(), "a component has files of several users: run this as root");
    let (folder, _claim) = boot::folder()?;
    let folder = Utf8Path::from_path(folder.path()).context("the target folder's path is not UTF-8")?;
    let rig = Rig::prepare(folder, common)?;
    let seen = RefCell::new(BTreeMap::<&str, Vec<Figures>>::new());
    let note = |name: &'static str, figures: Figures| {
        seen.borrow_mut().entry(name).or_default().push(figures);
        figures.write_s + figures.read_s
    };
    let subjects = vec![
        Subject::new(OURS, |_| Ok(note(OURS, rig.figures(|| rig.start_ours())?))),
        Subject::new(PLAIN, |_| Ok(note(PLAIN, rig.figures(|| rig.start_plain())?))),
    ];
    let samples = run_subjects(common.rounds, "s", subjects)?;
    let mut report = Report::new("samba", "s", &samples)?;
    for (name, figures) in seen.into_inner() {
        report.detail.insert(name.to_owned(), detail(&figures)?);
    }
    report.detail.insert("image_kib".to_owned(), image::budget::kib(rig.image_bytes).into());
    report.detail.insert("domain_made_s".to_owned(), rig.domain_made_s.into());
    report.detail.insert("pss_by_role_kib".to_owned(), roles::measure(&rig, &common.fetch)?);
    Ok(report)
}

fn detail(figures: &[Figures]) -> Result<serde_json::Value> {
    let summary = |of: fn(&Figures) -> f64| {
        Summary::of(&figures.iter().map(of).collect::<Vec<_>>()).context("there are no samples")
    };
    Ok(serde_json::json!({
        "start_to_445_s": summary(|one| one.start_s)?,
        "write_s": summary(|one| one.write_s)?,
        "read_s": summary(|one| one.read_s)?,
        "pss_kib": summary(|one| one.pss_kib)?,
    }))
}

/// Everything both need, in name spaces for network and mounts that nobody else sees.
struct Rig {
    folder: Utf8PathBuf,
    program: Utf8PathBuf,
    /// The component's root, and the plain one.
    sealed: Utf8PathBuf,
    plain: Utf8PathBuf,
    tools: Tools,
    image_bytes: u64,
    domain_made_s: f64,
}

impl Rig {
    fn prepare(folder: &Utf8Path, common: &Common) -> Result<Self> {
        let workspace = Workspace::locate();
        let image = component::build(COMPONENT, &common.fetch)?;
        let program = firmware::build(&workspace)?;
        let mut lock = checked_lock(&workspace)?;
        let cache = Cache::open(&common.fetch)?;
        cache.provide(&mut lock, &[COMPONENT])?;
        let tools = Tools::prepare_set(COMPONENT, &lock, &cache, workspace.target())?;
        let (site, board) = (folder.join("site.toml"), folder.join("board.toml"));
        fs::write(&site, format!("{}{SITE}", kontor_config::Site::default_text()))?;
        fs::write(&board, board_text("qemu")?)?;
        office_network(&read_site(&site, &board)?, &common.fetch)?;
        unshare(CloneFlags::CLONE_NEWNS).context("cannot make mounts of its own")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let (sealed, plain) = (folder.join("sealed"), folder.join("plain"));
        fs::create_dir_all(&sealed)?;
        let read_only = MsFlags::MS_RDONLY;
        mount(
            Some(image.sealed.path.as_std_path()),
            sealed.as_std_path(),
            Some("erofs"),
            read_only,
            None::<&str>,
        )
        .context("this kernel does not mount EROFS from a file")?;
        let mut rig = Self {
            folder: folder.to_owned(),
            program,
            sealed,
            plain,
            tools,
            image_bytes: image.sealed.seal.bytes,
            domain_made_s: 0.0,
        };
        rig.make_domain()?;
        rig.make_plain_root()?;
        Ok(rig)
    }

    /// The domain, a user and the plain root's configuration, by the component.
    fn make_domain(&mut self) -> Result<()> {
        let (mut running, took) = self.up(self.start_ours()?, BOX)?;
        self.domain_made_s = took;
        self.samba_tool(&["user", "add", "bench", PASSWORD])?;
        self.samba_tool(&["user", "setexpiry", "bench", "--noexpiry"])?;
        let configuration = self.folder.join("configuration");
        fs::create_dir_all(&configuration)?;
        let pid = fs::read_to_string(self.folder.join("run/pid"))?;
        for file in ["smb.conf", "krb5.conf", "hosts", "resolv.conf", "nsswitch.conf"] {
            fs::copy(format!("/proc/{}/root/run/kontor/{file}", pid.trim()), configuration.join(file))?;
        }
        let source = fs::File::create(self.folder.join("source"))?;
        let block: Vec<u8> =
            (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        (0..SIZE_MIB).try_for_each(|_| (&source).write_all(&block))?;
        running.stop()
    }

    /// The unpacked packages, with what a running system has beside them.
    fn make_plain_root(&self) -> Result<()> {
        let plain = &self.plain;
        for folder in ["usr", "etc/samba", "run/kontor", "tmp", "proc", "dev"] {
            fs::create_dir_all(plain.join(folder))?;
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), plain.join(link))?;
        }
        bind(&self.tools.root().join("usr"), &plain.join("usr"))?;
        bind(Utf8Path::new("/dev"), &plain.join("dev"))?;
        let proc = plain.join("proc");
        mount(Some("proc"), proc.as_std_path(), Some("proc"), MsFlags::empty(), None::<&str>)
            .context("proc")?;
        let configuration = self.folder.join("configuration");
        for file in ["smb.conf", "krb5.conf", "hosts", "resolv.conf", "nsswitch.conf"] {
            fs::copy(configuration.join(file), plain.join("run/kontor").join(file))?;
            let folder = if file == "smb.conf" { "etc/samba" } else { "etc" };
            fs::copy(configuration.join(file), plain.join(folder).join(file))?;
        }
        for file in ["passwd", "group", "services", "protocols"] {
            fs::copy(self.sealed.join("etc").join(file), plain.join("etc").join(file))?;
        }
        STATE.iter().try_for_each(|(name, path)| {
            fs::create_dir_all(plain.join(path))?;
            bind(&self.folder.join("state").join(name), &plain.join(path))
        })
    }

    fn start_ours(&self) -> Result<Running> {
        self.start_component(&self.folder)
    }

    /// With everything it needs in `folder`.
    fn start_component(&self, folder: &Utf8Path) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command.args(["component", "run", "--root", self.sealed.as_str()]);
        let places = [
            ("--state", "state"),
            ("--run", "run"),
            ("--site", "site.toml"),
            ("--board", "board.toml"),
            ("--join", "join"),
        ];
        for (flag, name) in places {
            command.args([flag, folder.join(name).as_str()]);
        }
        self.start(command)
    }

    /// The box's DNS service, for the site file in `folder`.
    fn start_names(&self, folder: &Utf8Path) -> Result<Running> {
        for name in ["site", "dnsd"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::copy(folder.join("site.toml"), folder.join("site/site.toml"))?;
        let mut command = Command::new(&self.program);
        command.args(["dnsd", "--run", folder.as_str(), "--board", folder.join("board.toml").as_str()]);
        self.start(command)
    }

    fn samba_tool(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["component", "exec", "--run", self.folder.join("run").as_str(), "--", "samba-tool"]);
        command.args(words);
        process::run(command).map(drop)
    }

    fn start_plain(&self) -> Result<Running> {
        let mut command = self.tools.command("busybox")?;
        command.args([
            "chroot",
            self.plain.as_str(),
            "/usr/sbin/samba",
            "-F",
            "--no-process-group",
            "--debug-stdout",
        ]);
        command.args(["-s", "/run/kontor/smb.conf"]);
        self.start(command)
    }

    fn start(&self, mut command: Command) -> Result<Running> {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let began = Instant::now();
        Ok(Running { child: command.spawn()?, began })
    }

    /// Waits until somebody answers on port 445; how long that took.
    fn up(&self, mut running: Running, address: Ipv4Addr) -> Result<(Running, f64)> {
        let address = SocketAddr::from((address, SMB));
        while TcpStream::connect(address).is_err() {
            let ended = running.child.try_wait()?;
            if ended.is_some() || running.began.elapsed() > UP_LIMIT {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("it did not come up ({ended:?}):\n{log}");
            }
            std::thread::sleep(LOOK);
        }
        let took = running.began.elapsed().as_secs_f64();
        Ok((running, took))
    }

    fn figures(&self, start: impl FnOnce() -> Result<Running>) -> Result<Figures> {
        // What the one before has written goes to the disk in nobody's time.
        nix::unistd::sync();
        let (mut running, start_s) = self.up(start()?, BOX)?;
        self.wait_for_log_on(&running, BOX)?;
        let write_s = self.client(BOX, &format!("put {} file", self.folder.join("source")))?;
        let read_s = self.client(BOX, "get file /dev/null")?;
        let pss_kib = pss_of_tree(running.child.id())?;
        running.stop()?;
        Ok(Figures { start_s, write_s, read_s, pss_kib })
    }

    fn wait_for_log_on(&self, running: &Running, address: Ipv4Addr) -> Result<()> {
        loop {
            match self.client(address, "ls") {
                Ok(_) => return Ok(()),
                Err(error) if running.began.elapsed() > UP_LIMIT => return Err(error),
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Runs one command of the client; how long it took, in seconds.
    fn client(&self, address: Ipv4Addr, command: &str) -> Result<f64> {
        let began = Instant::now();
        let mut client = self.tools.command("smbclient")?;
        let user = format!("OFFICE\\bench%{PASSWORD}");
        client.args([&format!("//{address}/bench"), "-U", &user, "-c", command]);
        process::run(client)?;
        Ok(began.elapsed().as_secs_f64())
    }
}

/// A subject that serves.
struct Running {
    child: Child,
    began: Instant,
}

impl Running {
    /// In order; Samba itself ends with 127 then.
    fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bind(source: &Utf8Path, target: &Utf8Path) -> Result<()> {
    mount(Some(source.as_std_path()), target.as_std_path(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot bind {source} to {target}"))
}

/// Proportional set size of a process and its descendants, in KiB (proc_pid_smaps_rollup(5)).
fn pss_of_tree(root: u32) -> Result<f64> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let pids: Vec<u32> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
        .collect();
    let parents: BTreeMap<u32, u32> = pids.iter().filter_map(|pid| Some((*pid, parent(*pid)?))).collect();
    let mut tree = BTreeSet::from([root]);
    // Parents may have greater numbers than their children.
    while parents.iter().any(|(pid, parent)| tree.contains(parent) && tree.insert(*pid)) {}
    let pss = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()
    };
    Ok(tree.iter().filter_map(pss).sum())
}
