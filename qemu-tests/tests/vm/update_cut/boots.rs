//! Disks that a cut has left, booted for real: GRUB must choose what the model says, and the box must be what it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kontor_boot::{PartitionKind, Slot};
use qemu_tests::block::picture::{Film, LeftDisk, Picture, Projector};
use qemu_tests::block::variants::CutPoint;
use qemu_tests::block::{Backend, BlockServer};
use qemu_tests::bootloader::Environment;
use qemu_tests::console::BOOT_LIMIT;
use qemu_tests::{BoxId, World};

use super::ServedDisk;
use super::check::{Checker, SECTOR, Verdict, Which, area};
use super::recording::VERSION;
use super::states::{Phase, phases};

/// Boots of one state, one after the other: a try is taken at each.
pub(super) const EACH: usize = 2;
const GRUB_LIMIT: Duration = Duration::from_secs(120);

/// A machine that is on with a disk that a cut has left, and what it has to find there.
struct Inserted {
    picture: Picture,
    verdict: Verdict,
    environment: Environment,
}

/// Boots one state after the other.
pub(super) struct Booter {
    gateway: BoxId,
    disk: BlockServer<ServedDisk>,
    film: Arc<Film>,
    bootstate: u64,
    begun: Instant,
    states: usize,
    /// How many, by when the power went and what the box finds out.
    kinds: BTreeMap<(Phase, &'static str), usize>,
    boots: usize,
    full: usize,
}

impl Booter {
    pub(super) fn new(gateway: BoxId, disk: BlockServer<ServedDisk>, film: Arc<Film>) -> Self {
        let bootstate = film.offset(area(PartitionKind::BootState));
        Self {
            gateway,
            disk,
            film,
            bootstate,
            begun: Instant::now(),
            states: 0,
            kinds: BTreeMap::new(),
            boots: 0,
            full: 0,
        }
    }

    /// GRUB chooses, as often as one state is booted.
    pub(super) fn choose(&mut self, world: &mut World, checker: &Checker, point: CutPoint) -> Result<()> {
        let Inserted { verdict, mut environment, .. } = self.insert(world, checker, point)?;
        for number in 0..EACH {
            if number > 0 {
                world.vm(self.gateway).qmp()?.execute("system_reset", &serde_json::json!({}))?;
            }
            let what = || format!("boot {number}, {verdict:?}");
            self.compare(world, &mut environment).with_context(what)?;
            self.boots += 1;
        }
        self.states += 1;
        *self.kinds.entry((phases(&self.film)(point.0), verdict.boot)).or_insert(0) += 1;
        world.vm(self.gateway).power_cut()
    }

    /// The box comes up as a whole.
    pub(super) fn serve(&mut self, world: &mut World, checker: &Checker, point: CutPoint) -> Result<()> {
        let Inserted { picture, verdict, mut environment } = self.insert(world, checker, point)?;
        let slot = self.compare(world, &mut environment)?;
        let which = checker.release_in(&picture, slot)?;
        self.come_up(world, checker, point.0, which).with_context(|| format!("{verdict:?}"))?;
        self.boots += 1;
        self.full += 1;
        world.vm(self.gateway).power_cut()
    }

    /// Switches the machine on with the disk that this cut has left.
    fn insert(&self, world: &mut World, checker: &Checker, (position, cut): CutPoint) -> Result<Inserted> {
        let picture = Projector::new(&self.film).cut(position, cut);
        let verdict = checker.check(&self.film, &picture, position)?;
        *self.disk.backend() = ServedDisk::Left(LeftDisk::new(self.film.clone(), picture.clone()));
        if world.vm(self.gateway).is_on() {
            world.vm(self.gateway).power_cut()?;
        }
        world.vm(self.gateway).serial.skip();
        world.power_on(self.gateway)?;
        let environment = Checker::environment(&self.film, &picture)?;
        Ok(Inserted { picture, verdict, environment })
    }

    /// GRUB starts what the model says, and leaves the boot state as the model does.
    fn compare(&self, world: &mut World, environment: &mut Environment) -> Result<Slot> {
        let decision = environment.boot();
        let line = world.wait_for_line(self.gateway, "kontor: starting slot", GRUB_LIMIT)?;
        let expect = format!("kontor: starting slot {}", decision.slot);
        ensure!(line.contains(&expect), "{line:?} instead of {expect:?}");
        let mut sector = [0; SECTOR];
        self.disk.backend().read(self.bootstate, &mut sector)?;
        ensure!(
            sector == environment.sector(),
            "GRUB has left {:?} instead of {:?}",
            String::from_utf8_lossy(&sector),
            String::from_utf8_lossy(environment.sector())
        );
        Ok(decision.slot)
    }

    /// The box serves its office, runs the release of the model, and knows every lease.
    fn come_up(&self, world: &mut World, checker: &Checker, position: usize, which: Which) -> Result<()> {
        let gateway = self.gateway;
        world.wait_until_ready(gateway)?;
        world.log_in(gateway)?;
        let version = if which == Which::New { VERSION } else { "0.1.0" };
        world.eventually(BOOT_LIMIT, |world| {
            let story = world.run(gateway, "update")?;
            ensure!(story.contains(&format!("Running    {version}")), "it does not run {version}: {story}");
            let leases = world.run(gateway, "leases --json")?;
            for lease in checker.promised(position) {
                ensure!(leases.contains(&format!("\"{}\"", lease.address)), "{lease:?} is lost: {leases}");
            }
            Ok(())
        })
    }

    pub(super) fn report(&self) {
        println!(
            "{} boots of {} states in {} s: GRUB did what the model says; {} of them until the office was served",
            self.boots,
            self.states,
            self.begun.elapsed().as_secs(),
            self.full
        );
        for ((phase, boot), count) in &self.kinds {
            println!("  power cut in phase {phase:?}, {boot}: {count} states");
        }
    }
}
