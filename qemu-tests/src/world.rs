//! Everything a test simulates, in one event loop: wires, PCs, providers and boxes.
//!
//! Nothing happens unless the test waits: [`World::wait_for`] lets hosts, wires and consoles do what they can
//! until a condition holds. It sleeps in poll(2) only, until a frame, a line of a console or a host's own
//! timer, so no test ever sleeps for a guessed time.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::artefacts::Artefacts;
use crate::isp::{Isp, IspOptions};
use crate::pc::{OfficePc, PcOptions};
use crate::stack::Plug;
use crate::vm::{BoxOptions, Equipment, Vm};
use crate::wire::Wire;

/// Longest time between two looks at whether a QEMU process ended.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// A wire of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireId(usize);
/// A PC of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcId(usize);
/// A provider of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IspId(usize);
/// A cable between two wires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinId(usize);
/// A box of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoxId(usize);

/// A simulated piece of the world.
pub struct World {
    started: Instant,
    wires: Vec<Wire>,
    joins: Vec<Option<[Plug; 2]>>,
    pcs: Vec<OfficePc>,
    isps: Vec<Isp>,
    boxes: Vec<Vm>,
    equipment: Option<Arc<Equipment>>,
    artefacts: Artefacts,
}

impl World {
    /// An empty world for the test `name`; without equipment it can have no boxes.
    ///
    /// # Errors
    /// When the test's directory cannot be made.
    pub fn new(name: &str, equipment: Option<Arc<Equipment>>) -> Result<Self> {
        Ok(Self {
            started: Instant::now(),
            wires: Vec::new(),
            joins: Vec::new(),
            pcs: Vec::new(),
            isps: Vec::new(),
            boxes: Vec::new(),
            equipment,
            artefacts: Artefacts::create(name)?,
        })
    }

    /// Adds a wire; its capture is named after it.
    ///
    /// # Errors
    /// When the capture cannot be created.
    pub fn add_wire(&mut self, name: &str) -> Result<WireId> {
        self.wires.push(Wire::new(name, self.artefacts.directory(), self.started)?);
        Ok(WireId(self.wires.len() - 1))
    }

    /// Adds a PC.
    pub fn add_pc(&mut self, wire: WireId, options: &PcOptions) -> PcId {
        let plug = self.plug_host(wire);
        self.pcs.push(OfficePc::new(options, plug, self.started));
        PcId(self.pcs.len() - 1)
    }

    /// Adds a provider.
    ///
    /// # Errors
    /// When its sockets cannot be made.
    pub fn add_isp(&mut self, wire: WireId, options: IspOptions) -> Result<IspId> {
        let plug = self.plug_host(wire);
        self.isps.push(Isp::new(options, plug, self.started)?);
        Ok(IspId(self.isps.len() - 1))
    }

    /// Adds a box with its ports on `wires`, in order, and switches it on.
    ///
    /// # Errors
    /// When its disk cannot be made or QEMU does not start.
    pub fn add_box(&mut self, name: &str, wires: &[WireId], options: &BoxOptions) -> Result<BoxId> {
        let id = self.prepare_box(name, wires, options)?;
        self.power_on(id)?;
        Ok(id)
    }

    /// Like [`Self::add_box`], but leaves it off.
    ///
    /// # Errors
    /// When its disk cannot be made.
    pub fn prepare_box(&mut self, name: &str, wires: &[WireId], options: &BoxOptions) -> Result<BoxId> {
        let equipment = self.equipment()?;
        let number = u8::try_from(self.boxes.len() + 1).context("too many boxes")?;
        let mut ports: Vec<PathBuf> = Vec::new();
        for (index, wire) in wires.iter().enumerate() {
            let path = self.artefacts.socket(&format!("{name}-port{}", index + 1));
            self.wires[wire.0].plug_machine(&path)?;
            ports.push(path);
        }
        self.boxes.push(Vm::new(name, number, options, &ports, &equipment, &self.artefacts)?);
        Ok(BoxId(self.boxes.len() - 1))
    }

    /// Switches a box on.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn power_on(&mut self, id: BoxId) -> Result<()> {
        let equipment = self.equipment()?;
        self.boxes[id.0].power_on(&equipment.tools)
    }

    /// What its boxes are built from.
    ///
    /// # Errors
    /// When it can have none.
    pub fn equipment(&self) -> Result<Arc<Equipment>> {
        self.equipment.clone().context("this world has no image to boot boxes from")
    }

    fn plug_host(&mut self, wire: WireId) -> Plug {
        Plug { wire: wire.0, port: self.wires[wire.0].plug_host() }
    }

    /// Adds a plug through which a test puts frames of its own on a wire.
    pub fn add_injector(&mut self, wire: WireId) -> Plug {
        self.plug_host(wire)
    }

    /// Puts a frame on a wire.
    ///
    /// # Errors
    /// When the capture cannot be written.
    pub fn inject(&mut self, plug: Plug, frame: Vec<u8>) -> Result<()> {
        Ok(self.wires[plug.wire].send(plug.port, frame)?)
    }

    /// Puts a frame on the cables of a wire's boxes only: hosts of the test must not stumble over what is made to
    /// trip the boxes.
    ///
    /// # Errors
    /// When the capture cannot be written.
    pub fn inject_to_boxes(&mut self, plug: Plug, frame: Vec<u8>) -> Result<()> {
        Ok(self.wires[plug.wire].send_to_machines(plug.port, frame)?)
    }

    /// Connects two wires, as a cable between two switches does: from now on they are one network.
    pub fn join(&mut self, a: WireId, b: WireId) -> JoinId {
        let plugs = [self.plug_host(a), self.plug_host(b)];
        self.joins.push(Some(plugs));
        JoinId(self.joins.len() - 1)
    }

    /// Pulls that cable.
    pub fn separate(&mut self, join: JoinId) {
        for plug in self.joins[join.0].take().into_iter().flatten() {
            self.wires[plug.wire].unplug_host(plug.port);
        }
    }

    fn carry_over(&mut self) -> Result<bool> {
        let mut busy = false;
        for [a, b] in self.joins.iter().flatten() {
            for (from, to) in [(a, b), (b, a)] {
                while let Some(frame) = self.wires[from.wire].receive(from.port) {
                    self.wires[to.wire].send(to.port, frame)?;
                    busy = true;
                }
            }
        }
        Ok(busy)
    }

    /// A wire.
    #[must_use]
    pub fn wire(&self, id: WireId) -> &Wire {
        &self.wires[id.0]
    }

    /// A PC.
    pub fn pc(&mut self, id: PcId) -> &mut OfficePc {
        &mut self.pcs[id.0]
    }

    /// A provider.
    pub fn isp(&mut self, id: IspId) -> &mut Isp {
        &mut self.isps[id.0]
    }

    /// A box.
    pub fn vm(&mut self, id: BoxId) -> &mut Vm {
        &mut self.boxes[id.0]
    }

    /// What the test leaves behind.
    #[must_use]
    pub fn artefacts(&self) -> &Artefacts {
        &self.artefacts
    }

    /// The test passed: removes what it would leave behind.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn finish(self) -> Result<()> {
        let Self { boxes, artefacts, .. } = self;
        drop(boxes);
        artefacts.remove()
    }

    /// Lets the world go on until `check` gives a value.
    ///
    /// # Errors
    /// When `check` fails, or gives nothing within `limit`; `what` was waited for.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            self.settle()?;
            if let Some(value) = check(self)? {
                return Ok(value);
            }
            // What the check itself sent goes out before anybody waits.
            if self.settle()? {
                continue;
            }
            let now = Instant::now();
            if now >= deadline {
                bail!("waited {} s in vain for {what}{}", limit.as_secs(), self.last_words());
            }
            self.wait_for_event(deadline - now)?;
        }
    }

    /// Lets the world go on for a time: between two looks at something that cannot announce itself.
    ///
    /// # Errors
    /// When a capture or log cannot be written.
    pub fn go_on_for(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.settle()?;
            self.wait_for_event(deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// Does everything that can be done without waiting; whether there was anything.
    fn settle(&mut self) -> Result<bool> {
        let mut any = false;
        loop {
            let mut busy = false;
            for wire in &mut self.wires {
                busy |= wire.exchange()?;
            }
            busy |= self.carry_over()?;
            for pc in &mut self.pcs {
                busy |= pc.poll(&mut self.wires)?;
            }
            for isp in &mut self.isps {
                busy |= isp.poll(&mut self.wires)?;
            }
            for vm in &mut self.boxes {
                busy |= vm.serial.receive()?;
            }
            if !busy {
                return Ok(any);
            }
            any = true;
        }
    }

    fn wait_for_event(&mut self, limit: Duration) -> Result<()> {
        let timers = self.pcs.iter_mut().map(OfficePc::poll_delay);
        let timers = timers.chain(self.isps.iter_mut().map(Isp::poll_delay));
        let limit = timers.flatten().fold(limit.min(MAX_WAIT), Duration::min);
        // Rounded up: a timer that is due in less than a millisecond must not become a busy loop.
        let limit = Duration::from_millis(u64::try_from(limit.as_micros().div_ceil(1000))?);
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        for (fd, writing) in self.wires.iter().flat_map(Wire::watched) {
            fds.push(watch(fd, writing));
        }
        for fd in self.boxes.iter().flat_map(|vm| vm.serial.watched()) {
            fds.push(watch(fd, false));
        }
        match poll(&mut fds, PollTimeout::try_from(limit)?) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("wait for events"),
        }
    }

    /// The end of each box's console, for an error message.
    fn last_words(&self) -> String {
        let mut text = String::new();
        for vm in &self.boxes {
            let lines: Vec<&str> = vm.serial.text().lines().collect();
            let last = lines[lines.len().saturating_sub(15)..].join("\n    ");
            text += &format!("; the console of {} ends with\n    {last}", vm.name());
        }
        text
    }
}

fn watch(fd: BorrowedFd<'_>, writing: bool) -> PollFd<'_> {
    let out = if writing { PollFlags::POLLOUT } else { PollFlags::empty() };
    PollFd::new(fd, PollFlags::POLLIN | out)
}
