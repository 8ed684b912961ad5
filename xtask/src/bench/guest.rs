//! A virtual machine under measurement: what happens in it, each event with the host's monotonic time.
//!
//! One machine, one process, one clock. The moment the kernel starts is that in which SeaBIOS says on its debug port
//! that it hands over to it (`-kernel`) or to the boot sector: it costs the guest nothing, needs no word on the
//! kernel's command line, and is the same for every subject.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8PathBuf;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::dhcp::{Client, framed, next_frame};
use crate::qemu::{Accel, Backend, Firmware, Machine, Mimic, Nic, Serial, VIRTIO_NET};
use crate::tools::Tools;

/// How often the PC asks until it is answered. A real one restarts when its cable comes up; this stands for that.
const RETRANSMIT: Duration = Duration::from_millis(20);
/// Keeps the queue before the guest's network card short: a few frames, not all that were said while it booted.
const SEND_BUFFER: usize = 4608;
/// How long one press of the power button may take to show.
const POWER_BUTTON_PAUSE: Duration = Duration::from_secs(10);
/// What SeaBIOS says before it jumps.
const HANDOVER: &str = "Booting from ";
/// The PC's hardware address.
const PC: [u8; 6] = [0x52, 0x54, 0, 0x4b, 0x10, 1];

/// What to start.
#[derive(Debug, Clone)]
pub struct Setup {
    /// RAM.
    pub memory_mib: u32,
    /// The disk; the guest writes to it.
    pub disk: Option<PathBuf>,
    /// Kernel, initramfs and command line; without them the disk boots.
    pub direct: Option<Direct>,
    /// Whether what the guest writes stays on the disk.
    pub keep: bool,
    /// Keeps what the serial console says.
    pub log: Option<PathBuf>,
}

/// A direct boot.
#[derive(Debug, Clone)]
pub struct Direct {
    /// bzImage.
    pub kernel: Utf8PathBuf,
    /// Initramfs.
    pub initrd: Utf8PathBuf,
    /// Command line.
    pub cmdline: String,
}

/// A running machine.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    bios: UnixStream,
    serial: UnixStream,
    control: UnixStream,
    lan: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    next_send: Instant,
    client: Client,
    bios_text: String,
    control_text: String,
    /// Everything on the serial console.
    pub console: String,
    /// When the machine was switched on.
    pub power_on: Instant,
    /// When the kernel (or the boot sector) was entered.
    pub handover: Option<Instant>,
    /// When the PC got its first lease.
    pub leased: Option<Instant>,
    /// When the machine switched itself off.
    pub off: Option<Instant>,
    log: Option<std::fs::File>,
    _sockets: tempfile::TempDir,
}

/// Sockets on which QEMU finds us.
struct Listeners {
    folder: tempfile::TempDir,
    bios: UnixListener,
    serial: UnixListener,
    control: UnixListener,
    lan: UnixListener,
}

impl Listeners {
    fn bind() -> Result<Self> {
        // A socket's path is short; a folder deep below the repository may be too long for one.
        let folder = tempfile::Builder::new().prefix("kontor-bench-").tempdir()?;
        let listen = |name: &str| UnixListener::bind(folder.path().join(name)).context("listen for QEMU");
        let (bios, serial, control, lan) =
            (listen("bios")?, listen("serial")?, listen("control")?, listen("lan")?);
        Ok(Self { folder, bios, serial, control, lan })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Guest {
    /// Switches a machine on.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(tools: &Tools, accel: Accel, setup: &Setup) -> Result<Self> {
        let listeners = Listeners::bind()?;
        let mut command = command(tools, accel, setup, &listeners)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let power_on = Instant::now();
        let mut child = command.spawn().context("start QEMU")?;
        let mut accept = |listener: &UnixListener| accept(listener, &mut child);
        // In the order in which QEMU opens them.
        let serial = accept(&listeners.serial)?;
        let control = accept(&listeners.control)?;
        let bios = accept(&listeners.bios)?;
        let lan = accept(&listeners.lan)?;
        setsockopt(&lan, sockopt::SndBuf, &SEND_BUFFER).context("the LAN socket's buffer")?;
        (&control).write_all(b"{\"execute\":\"qmp_capabilities\"}\n").context("greet QEMU")?;
        for stream in [&serial, &control, &bios, &lan] {
            stream.set_nonblocking(true)?;
        }
        let log = setup.log.as_ref().map(std::fs::File::create).transpose().context("the console's log")?;
        Ok(Self {
            child,
            bios,
            serial,
            control,
            lan,
            received: Vec::new(),
            unsent: Vec::new(),
            next_send: power_on,
            client: Client::new(PC, power_on.elapsed().subsec_nanos()),
            bios_text: String::new(),
            control_text: String::new(),
            console: String::new(),
            power_on,
            handover: None,
            leased: None,
            off: None,
            log,
            _sockets: listeners.folder,
        })
    }

    /// Runs until `done` says so.
    ///
    /// # Errors
    /// When the limit passes first, or the machine ends unasked; the error shows the console's end.
    pub fn run_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !done(self) {
            if self.off.is_some() || Instant::now() >= deadline {
                let why = if self.off.is_some() { "the machine went off" } else { "it did not come in time" };
                bail!("waiting for {what}: {why}; {}", self.last_lines());
            }
            self.turn(deadline)?;
        }
        Ok(())
    }

    fn last_lines(&self) -> String {
        let lines: Vec<&str> = self.console.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
        format!("the console's last lines:\n{}", tail.join("\n"))
    }

    /// Types on the serial console.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.serial.write_all(text.as_bytes()).context("type on the console")
    }

    /// Presses the power button until the machine is off.
    ///
    /// # Errors
    /// When it does not go off.
    pub fn switch_off(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.off.is_none() && Instant::now() < deadline {
            self.control
                .write_all(b"{\"execute\":\"system_powerdown\"}\n")
                .context("press the power button")?;
            // Pressed again like a person would: the button's driver may just have been loaded.
            let again = Instant::now() + POWER_BUTTON_PAUSE;
            while self.off.is_none() && Instant::now() < again {
                self.turn(again)?;
            }
        }
        if self.off.is_none() { bail!("the machine did not go off") } else { Ok(()) }
    }

    /// Waits for `pattern` on the console and takes everything up to it.
    ///
    /// # Errors
    /// As [`Self::run_until`].
    pub fn expect(&mut self, pattern: &str, limit: Duration) -> Result<String> {
        self.run_until(&format!("{pattern:?} on the console"), limit, |guest| {
            guest.console.contains(pattern)
        })?;
        let end = self.console.find(pattern).map_or(0, |at| at + pattern.len());
        let rest = self.console.split_off(end);
        Ok(std::mem::replace(&mut self.console, rest))
    }

    fn turn(&mut self, deadline: Instant) -> Result<()> {
        let now = Instant::now();
        if self.leased.is_none() && now >= self.next_send {
            self.next_send = now + RETRANSMIT;
            self.ask();
        }
        let until = if self.leased.is_none() { deadline.min(self.next_send) } else { deadline };
        // Rounded up: waking a fraction early would spin until the time has come.
        let pause = until.saturating_duration_since(now) + Duration::from_millis(1);
        let streams = [&self.bios, &self.serial, &self.control, &self.lan];
        let mut fds = streams.map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)).context("wait for QEMU")?;
        self.take_bios()?;
        self.take_lan()?;
        self.take_control()?;
        self.take_serial()
    }

    /// Says the client's next word, unless the guest has not even taken the last one.
    fn ask(&mut self) {
        if self.unsent.is_empty() {
            self.unsent = framed(&self.client.frame());
        }
        self.flush();
    }

    fn flush(&mut self) {
        // A full queue, or a QEMU that is ending: the next turn sees to both.
        if let Ok(count) = self.lan.write(&self.unsent) {
            self.unsent.drain(..count);
        }
    }

    fn take_bios(&mut self) -> Result<()> {
        let bytes = read(&mut self.bios)?;
        if self.handover.is_none() && !bytes.is_empty() {
            self.bios_text.push_str(&String::from_utf8_lossy(&bytes));
            if self.bios_text.contains(HANDOVER) {
                self.handover = Some(Instant::now());
            }
        }
        Ok(())
    }

    fn take_lan(&mut self) -> Result<()> {
        let bytes = read(&mut self.lan)?;
        self.received.extend(bytes);
        while let Some(frame) = next_frame(&mut self.received)? {
            if self.client.take(&frame) {
                if self.client.lease().is_some() {
                    self.leased.get_or_insert_with(Instant::now);
                } else {
                    self.ask();
                }
            }
        }
        Ok(())
    }

    fn take_control(&mut self) -> Result<()> {
        let bytes = read(&mut self.control)?;
        self.control_text.push_str(&String::from_utf8_lossy(&bytes));
        while let Some(end) = self.control_text.find('\n') {
            let line: String = self.control_text.drain(..=end).collect();
            if line.contains("\"SHUTDOWN\"") {
                // A kernel that panics restarts, which ends the machine, too.
                ensure!(line.contains("\"guest-shutdown\""), "the machine restarted; {}", self.last_lines());
                self.off.get_or_insert_with(Instant::now);
            }
        }
        if self.off.is_none()
            && let Some(status) = self.child.try_wait()?
        {
            let mut said = String::new();
            if let Some(stderr) = &mut self.child.stderr {
                stderr.read_to_string(&mut said)?;
            }
            bail!("QEMU ended with {status}: {}", said.trim());
        }
        Ok(())
    }

    fn take_serial(&mut self) -> Result<()> {
        let bytes = read(&mut self.serial)?;
        if let Some(log) = &mut self.log {
            log.write_all(&bytes).context("write the console's log")?;
        }
        self.console.push_str(&String::from_utf8_lossy(&bytes));
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(
    tools: &Tools,
    accel: Accel,
    setup: &Setup,
    listeners: &Listeners,
) -> Result<std::process::Command> {
    let machine = Machine {
        mimic: Mimic::default(),
        memory_mib: setup.memory_mib,
        processors: 2,
        firmware: Firmware::SeaBios,
        disk: setup.disk.clone().unwrap_or_else(|| "/dev/null".into()),
        nics: vec![nic(1, Backend::None), nic(2, Backend::Stream(listeners.path("lan")))],
        serial: Serial::Socket(listeners.path("serial")),
        qmp: Some(listeners.path("control")),
        watchdog: true,
        no_reboot: true,
        accel,
    };
    let mut command = crate::qemu::command(tools, &machine)?;
    let bios = listeners.path("bios");
    command.args(["-chardev", &format!("socket,id=bios0,path={}", text(&bios)?)]);
    command.args(["-device", "isa-debugcon,iobase=0x402,chardev=bios0"]);
    if !setup.keep {
        command.arg("-snapshot");
    }
    if let Some(direct) = &setup.direct {
        command.args(["-kernel", direct.kernel.as_str(), "-initrd", direct.initrd.as_str()]);
        command.args(["-append", &direct.cmdline]);
    }
    Ok(command)
}

fn nic(port: u8, backend: Backend) -> Nic {
    Nic { mac: format!("52:54:00:4b:00:{port:02x}"), backend, model: VIRTIO_NET }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// Waits for QEMU's connection, or its end.
fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("accept QEMU's connection"),
        }
        if let Some(status) = child.try_wait()? {
            let mut said = String::new();
            if let Some(stderr) = &mut child.stderr {
                stderr.read_to_string(&mut said)?;
            }
            bail!("QEMU ended with {status}: {}", said.trim());
        }
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, 50_u8).context("wait for QEMU")?;
    }
}

/// What has arrived; nothing when QEMU has ended.
fn read(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    match stream.read(&mut buffer) {
        Ok(count) => {
            buffer.truncate(count);
            Ok(buffer)
        }
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionReset
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error).context("read from QEMU"),
    }
}

/// Seconds between two moments.
///
/// # Errors
/// When one of them has not come.
pub fn seconds(from: Option<Instant>, to: Option<Instant>) -> Result<f64> {
    let (from, to) = from.zip(to).context("the machine never came so far")?;
    Ok(to.saturating_duration_since(from).as_secs_f64())
}
