//! One virtual Kontor box: its disk, its QEMU process, its console and its control connection.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use xtask::qemu::mimic::DiskBus;
use xtask::qemu::qmp::QmpListener;
use xtask::qemu::{Accel, Backend, Firmware, Machine, Mimic, Nic, Qmp, Serial as SerialPort, disk};
use xtask::tools::Tools;

use crate::artefacts::Artefacts;
use crate::disk::Disk;
use crate::serial::Serial;

/// The slot of a pluggable disk, and the disk in it.
const SLOT: &str = "disk-slot";
const SLOT_DEVICE: &str = "disk-in-slot";

/// What a box is built from, found once for a whole test program.
#[derive(Debug)]
pub struct Equipment {
    /// The image under test.
    pub image: PathBuf,
    /// QEMU and its firmware.
    pub tools: Tools,
    /// How guests run here.
    pub accel: Accel,
}

impl Equipment {
    /// The image that `KONTOR_IMAGE` names, with QEMU from the locked tools; nothing when it names none.
    ///
    /// # Errors
    /// When the image is named but missing, or the tools cannot be had.
    pub fn find() -> Result<Option<Self>> {
        let Some(image) = std::env::var_os(xtask::command::test::IMAGE).map(PathBuf::from) else {
            return Ok(None);
        };
        ensure!(image.is_file(), "there is no image {}", image.display());
        let tools = crate::peers::tool_set("tools")?;
        let accel = Accel::detect(&tools)?;
        Ok(Some(Self { image, tools, accel }))
    }
}

/// How a box is set up.
#[derive(Debug, Clone)]
pub struct BoxOptions {
    /// RAM.
    pub memory_mib: u32,
    /// How many processors it has. With several, QEMU itself may end while an emulated machine restarts (the assertion
    /// `iotlb_to_section`), and on a busy host one of them may lose its timer and stall the guest: they are for tests
    /// that look for races.
    pub processors: u8,
    /// UEFI instead of BIOS.
    pub uefi: bool,
    /// The board it mimics.
    pub mimic: Mimic,
    /// The site file in its seed partition.
    pub site: Option<String>,
    /// Socket of a served disk ([`crate::block`]) in the place of its own.
    pub served_disk: Option<PathBuf>,
    /// Whether its disk can be pulled while it runs.
    pub pluggable_disk: bool,
    /// Whether its disk is a stick, in a machine with an empty disk of its own.
    pub stick: bool,
    /// Sockets of further disks, and the serial numbers that the guest sees.
    pub further_disks: Vec<(&'static str, PathBuf)>,
    /// What its clock chip says at power-on (QEMU's `-rtc base=`); the right time without it.
    pub clock_chip: Option<&'static str>,
}

impl Default for BoxOptions {
    fn default() -> Self {
        Self {
            memory_mib: 512,
            processors: 1,
            uefi: false,
            mimic: Mimic::default(),
            site: Some(crate::console::site_with_operator("")),
            served_disk: None,
            pluggable_disk: false,
            stick: false,
            further_disks: Vec::new(),
            clock_chip: None,
        }
    }
}

/// A box.
#[derive(Debug)]
pub struct Vm {
    name: String,
    /// Its serial console.
    pub serial: Serial,
    /// Hardware addresses of its ports.
    pub macs: Vec<[u8; 6]>,
    /// What its clock chip says at the next power-on.
    pub clock_chip: Option<&'static str>,
    machine: Machine,
    pluggable_disk: bool,
    /// The file that is the disk beside the stick.
    internal_disk: Option<PathBuf>,
    further_disks: Vec<(&'static str, PathBuf)>,
    control: QmpListener,
    log: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    qmp: Qmp,
}

impl Vm {
    /// A box with its own disk; it is not switched on yet. `ports` are the sockets of its wires.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn new(
        name: &str,
        number: u8,
        options: &BoxOptions,
        ports: &[PathBuf],
        equipment: &Equipment,
        artefacts: &Artefacts,
    ) -> Result<Self> {
        let directory = artefacts.directory();
        let image = match &options.served_disk {
            Some(socket) => nbd_address(socket),
            None => own_disk(directory.join(format!("{name}.img")), options, equipment)?,
        };
        let firmware =
            if options.uefi { Firmware::ovmf(&equipment.tools, directory)? } else { Firmware::SeaBios };
        let macs: Vec<[u8; 6]> =
            (1..).take(ports.len()).map(|port| [0x52, 0x54, 0, 0x4b, number, port]).collect();
        let model = options.mimic.nic.device();
        let nics = macs.iter().zip(ports).map(|(mac, path)| nic(*mac, path, model)).collect();
        let serial_socket = artefacts.socket(&format!("{name}-serial"));
        let serial = Serial::listen(&serial_socket, &directory.join(format!("{name}-serial.log")))?;
        let control = QmpListener::bind(&artefacts.socket(&format!("{name}-qmp")))?;
        let internal_disk = options.stick.then(|| empty_disk(directory.join(format!("{name}-internal.img"))));
        let internal_disk = internal_disk.transpose()?;
        let mut mimic = options.mimic.clone();
        if options.stick {
            mimic.disk = DiskBus::Usb;
        }
        let machine = Machine {
            mimic,
            memory_mib: options.memory_mib,
            processors: options.processors,
            firmware,
            disk: image,
            nics,
            serial: SerialPort::Socket(serial_socket),
            qmp: Some(control.path().into()),
            watchdog: true,
            no_reboot: false,
            accel: equipment.accel,
        };
        let log = directory.join(format!("{name}-qemu.log"));
        let (name, further_disks) = (name.into(), options.further_disks.clone());
        let (clock_chip, pluggable_disk) = (options.clock_chip, options.pluggable_disk);
        Ok(Self {
            name,
            serial,
            macs,
            clock_chip,
            machine,
            pluggable_disk,
            internal_disk,
            further_disks,
            control,
            log,
            running: None,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Switches it on.
    ///
    /// # Errors
    /// When it is on, or QEMU does not start.
    pub fn power_on(&mut self, tools: &Tools) -> Result<()> {
        ensure!(self.running.is_none(), "{} is on already", self.name);
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = xtask::qemu::command(tools, &self.machine)?;
        if self.pluggable_disk {
            command = with_disk_in_a_slot(&command)?;
        }
        command = crate::guard::with_parent(&command)?;
        if let Some(disk) = &self.internal_disk {
            let drive = format!("if=none,id=internal,format=raw,discard=unmap,file={}", disk.display());
            command.arg("-drive").arg(drive);
            command.arg("-device").arg("virtio-blk-pci,drive=internal,bootindex=2");
        }
        for (serial, socket) in &self.further_disks {
            let address = nbd_address(socket);
            command.arg("-drive").arg(format!("if=none,id={serial},format=raw,file={}", address.display()));
            command.arg("-device").arg(format!("virtio-blk-pci,drive={serial},serial={serial}"));
        }
        if let Some(time) = self.clock_chip {
            command.arg("-rtc").arg(format!("base={time}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("start QEMU")?;
        let greeted = self.control.accept(|| matches!(child.try_wait(), Ok(None)));
        match greeted {
            Ok(qmp) => {
                self.running = Some(Running { child, qmp });
                Ok(())
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error).with_context(|| format!("{}: QEMU said {:?}", self.name, self.said()))
            }
        }
    }

    /// Takes its power away.
    ///
    /// # Errors
    /// When it is off.
    pub fn power_cut(&mut self) -> Result<()> {
        let mut running = self.running.take().with_context(|| format!("{} is off", self.name))?;
        running.child.kill().context("kill QEMU")?;
        running.child.wait().context("wait for QEMU")?;
        Ok(())
    }

    /// Takes the stick out of a machine that is off: from now on it has only the disk of its own.
    ///
    /// # Errors
    /// When it is on, or has no stick.
    pub fn take_stick_out(&mut self) -> Result<()> {
        ensure!(!self.is_on(), "{} is on", self.name);
        let internal = self.internal_disk.take().with_context(|| format!("{} has no stick", self.name))?;
        fs::remove_file(&self.machine.disk)?;
        self.machine.disk = internal;
        self.machine.mimic.disk = DiskBus::Virtio;
        Ok(())
    }

    /// The disk beside the stick, while it is off.
    ///
    /// # Errors
    /// When there is none, or it has no valid partition table.
    pub fn internal_disk(&self) -> Result<Disk> {
        Disk::open(self.internal_disk.as_ref().with_context(|| format!("{} has no stick", self.name))?)
    }

    /// Pulls its disk; the guest is told as by a real slot's latch.
    ///
    /// # Errors
    /// When it is off, or its disk is not pluggable.
    pub fn pull_disk(&mut self) -> Result<()> {
        self.qmp()?.execute("device_del", &serde_json::json!({ "id": SLOT_DEVICE })).map(drop)
    }

    /// Plugs the pulled disk in again; QEMU refuses until the guest has let it go.
    ///
    /// # Errors
    /// When it is off, or the disk is still there.
    pub fn put_disk_back(&mut self) -> Result<()> {
        // The drive went with its device.
        let file = serde_json::json!({ "driver": "file", "filename": self.machine.disk });
        let drive = serde_json::json!({ "driver": "raw", "node-name": "disk-again", "file": file });
        let device = serde_json::json!({
            "driver": "virtio-blk-pci", "id": SLOT_DEVICE, "drive": "disk-again", "bus": SLOT,
        });
        let qmp = self.qmp()?;
        // The drive may be there from an attempt that came too early.
        let added = qmp.execute("blockdev-add", &drive);
        qmp.execute("device_add", &device).map(drop).context(format!("{added:?}"))
    }

    /// The control connection.
    ///
    /// # Errors
    /// When it is off.
    pub fn qmp(&mut self) -> Result<&mut Qmp> {
        let running = self.running.as_mut().with_context(|| format!("{} is off", self.name))?;
        Ok(&mut running.qmp)
    }

    /// Whether it switched itself off; then QEMU's exit status.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(running) = &mut self.running else { return Ok(None) };
        let status = running.child.try_wait()?;
        if status.is_some() {
            self.running = None;
        }
        Ok(status)
    }

    /// What QEMU itself has said so far: errors and warnings.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default().trim().to_owned()
    }

    /// Whether it has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// The file that is its disk.
    #[must_use]
    pub fn disk_path(&self) -> &Path {
        &self.machine.disk
    }

    /// Its disk, while it is off.
    ///
    /// # Errors
    /// When it is on, or the disk has no valid partition table.
    pub fn disk(&self) -> Result<Disk> {
        if self.is_on() {
            bail!("{} is on: its disk is in use", self.name);
        }
        Disk::open(&self.machine.disk)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if self.is_on() {
            let _ = self.power_cut();
        }
        // Logs and captures explain a failure; gigabytes of disk do not.
        for disk in [Some(&self.machine.disk), self.internal_disk.as_ref()].into_iter().flatten() {
            let _ = fs::remove_file(disk);
        }
    }
}

/// The same machine with its disk behind a port that allows to pull it.
fn with_disk_in_a_slot(command: &Command) -> Result<Command> {
    const FIXED: &str = "virtio-blk-pci,drive=disk0,addr=";
    let mut changed = Command::new(command.get_program());
    changed.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut found = false;
    for argument in command.get_args() {
        let place = argument.to_str().and_then(|text| text.strip_prefix(FIXED));
        let Some((address, rest)) = place.and_then(|place| place.split_once(',')) else {
            changed.arg(argument);
            continue;
        };
        found = true;
        changed.arg(format!("pcie-root-port,id={SLOT},chassis=99,addr={address}"));
        changed.arg("-device").arg(format!("virtio-blk-pci,id={SLOT_DEVICE},drive=disk0,bus={SLOT},{rest}"));
    }
    ensure!(found, "only a virtio disk can be made pluggable");
    Ok(changed)
}

/// A copy of the image with the box's seed.
fn own_disk(path: PathBuf, options: &BoxOptions, equipment: &Equipment) -> Result<PathBuf> {
    disk::copy_sparse(&equipment.image, &path, disk::MACHINE_SIZE)?;
    if let Some(site) = &options.site {
        Disk::open(&path)?.write_seed(site, None)?;
    }
    Ok(path)
}

/// A disk as it comes from a shop.
fn empty_disk(path: PathBuf) -> Result<PathBuf> {
    let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
    file.set_len(disk::MACHINE_SIZE).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// A served disk as QEMU names it.
fn nbd_address(socket: &Path) -> PathBuf {
    format!("nbd+unix:///?socket={}", socket.display()).into()
}

fn nic(mac: [u8; 6], socket: &Path, model: &'static str) -> Nic {
    let [a, b, c, d, e, f] = mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    Nic { mac, backend: Backend::Stream(socket.into()), model }
}
