//! A whole update, as the disk saw it; and the same from a file, so that a state that was found once is found again.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use qemu_tests::block::BlockServer;
use qemu_tests::block::trace::Event;
use qemu_tests::release::{self, Draft};
use qemu_tests::{PcId, PcOptions, World};
use serde::{Deserialize, Serialize};

use super::ServedDisk;
use crate::office::Office;
use crate::update::{TRIAL_LIMIT, UPDATE_LIMIT, Updated};

/// What is installed.
pub(super) const VERSION: &str = "0.2.0";
/// The component of which the new release has another, small image.
pub(super) const COMPONENT: &str = "samba";
/// PCs that come one after the other while the update goes on.
const PCS: u8 = 40;
const LEVEL: i32 = 1;

/// A lease that a PC has, and how many events the disk had answered when it had it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Acknowledged {
    pub(super) mac: [u8; 6],
    pub(super) address: Ipv4Addr,
    pub(super) position: usize,
}

/// What happened, beside what the disk was told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Story {
    /// How many events there had been when the update began.
    pub(super) begun_at: usize,
    pub(super) leases: Vec<Acknowledged>,
}

/// An update from beginning to end.
pub(super) struct Recording {
    pub(super) story: Story,
    pub(super) events: Arc<[Event]>,
}

impl Recording {
    /// The box of this office updates itself.
    pub(super) fn make(world: &mut World, office: Office, disk: &BlockServer<ServedDisk>) -> Result<Self> {
        let options = release::options(VERSION, Some(COMPONENT))?;
        let folder = world.artefacts().directory().join("releases").join(VERSION);
        let draft = Draft::build_of(options, Utf8Path::from_path(&folder).context("no path in UTF-8")?)?;
        world.power_on(office.gateway)?;
        world.wait_until_ready(office.gateway)?;
        let updated = Updated::follow(world, office)?;
        let office = &updated.office;
        office.is_durable(world)?;
        updated.publish(&draft)?;
        let position = || disk.backend().position();
        let mut pcs = Pcs::default();
        pcs.add(world, office);
        world.wait_for("a lease", Office::LEASE_LIMIT, |world| {
            pcs.look(world, office, position);
            Ok((!pcs.leases.is_empty()).then_some(()))
        })?;
        let (begun, begun_at) = (Instant::now(), position());
        world.run(office.gateway, "update check")?;
        let ready = world.wait_for("the new release", UPDATE_LIMIT, |world| {
            pcs.look(world, office, position);
            Ok(world.vm(office.gateway).serial.take_line("kontor: gateway ready"))
        })?;
        ensure!(ready.contains("slot b"), "{ready}");
        world.log_in(office.gateway)?;
        updated.wait_for(world, "update", "0.2.0 runs; everything that worked", TRIAL_LIMIT)?;
        updated.wait_for(world, "status", "slot b (good)", TRIAL_LIMIT)?;
        world.vm(office.gateway).power_cut()?;
        let events = disk.backend().events();
        println!(
            "recorded: an update of {} s, {} events of the disk",
            begun.elapsed().as_secs(),
            events.len()
        );
        Ok(Self { story: Story { begun_at, leases: pcs.leases }, events })
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let mut file = zstd::Encoder::new(BufWriter::new(file), LEVEL)?;
        let story = serde_json::to_vec(&self.story)?;
        file.write_all(&(story.len() as u64).to_le_bytes())?;
        file.write_all(&story)?;
        for event in &*self.events {
            let (offset, data) = match event {
                Event::Write { offset, data } => (*offset, &data[..]),
                Event::Flush => (0, &[][..]),
            };
            file.write_all(&offset.to_le_bytes())?;
            file.write_all(&(data.len() as u64).to_le_bytes())?;
            file.write_all(data)?;
        }
        file.finish()?.flush()?;
        Ok(())
    }

    pub(super) fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut file = BufReader::new(zstd::Decoder::new(file)?);
        let length = number(&mut file)?.context("it is empty")?;
        let mut story = vec![0; usize::try_from(length)?];
        file.read_exact(&mut story)?;
        let mut events = Vec::new();
        while let Some(offset) = number(&mut file)? {
            let length = number(&mut file)?.context("it is cut off")?;
            let mut data = vec![0; usize::try_from(length)?];
            file.read_exact(&mut data)?;
            let data: Arc<[u8]> = data.into();
            events.push(if data.is_empty() { Event::Flush } else { Event::Write { offset, data } });
        }
        Ok(Self { story: serde_json::from_slice(&story)?, events: events.into() })
    }
}

/// The next number; nothing at the end.
fn number(file: &mut impl Read) -> Result<Option<u64>> {
    let mut bytes = [0; 8];
    match file.read_exact(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        read => Ok(Some(read.map(|()| u64::from_le_bytes(bytes))?)),
    }
}

/// PCs of the office that come one after the other.
#[derive(Default)]
struct Pcs {
    newest: Option<PcId>,
    count: u8,
    leases: Vec<Acknowledged>,
    next_at: Option<Instant>,
}

impl Pcs {
    /// While an update goes on for minutes.
    const EVERY: Duration = Duration::from_secs(4);

    fn add(&mut self, world: &mut World, office: &Office) {
        let options = PcOptions { mac: [2, 0, 0, 0, 2, self.count], name: None };
        self.newest = Some(world.add_pc(office.lan, &options));
        self.count += 1;
    }

    /// Notes the newest PC's lease; then there is another PC.
    fn look(&mut self, world: &mut World, office: &Office, position: impl Fn() -> usize) {
        let now = Instant::now();
        if self.next_at.is_some_and(|at| at > now) || self.count == PCS {
            return;
        }
        let Some(pc) = self.newest else { return self.add(world, office) };
        let Some(lease) = world.pc(pc).lease() else { return };
        let address = lease.address.address();
        self.leases.push(Acknowledged { mac: world.pc(pc).mac, address, position: position() });
        (self.newest, self.next_at) = (None, Some(now + Self::EVERY));
    }
}
