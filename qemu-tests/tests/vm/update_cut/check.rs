//! What must be true of a disk, whenever the power went: the model of the boot chain, and what it must find.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8PathBuf;
use kontor_boot::frame::{FRAME_OFFSET, frame};
use kontor_boot::partition::LAYOUT;
use kontor_boot::site_copy::{AREA_LENGTH, AREA_OFFSETS, SiteCopy, newest};
use kontor_boot::slots::BootState;
use kontor_boot::{PartitionKind, Slot};
use kontor_dhcp4::lease::{self, RecordState};
use kontor_update::Journal;
use kontor_update::journal::{Boot, Slots};
use qemu_tests::block::picture::{Film, Number, Picture, Projector};
use qemu_tests::block::trace::Cut;
use qemu_tests::bootloader::Environment;
use qemu_tests::ext4::{BLOCK, Ext4};
use qemu_tests::release;
use xtask::image::{self, ImageOptions};

use super::recording::{Acknowledged, COMPONENT, Recording, VERSION};

pub(super) const SECTOR: usize = 512;
/// Never written to when a disk has been flashed and booted once.
const FIXED: [PartitionKind; 3] = [PartitionKind::Bios, PartitionKind::Esp, PartitionKind::Seed];

/// What the disk writes whole or not at all: file systems rely on their blocks, everything else on sectors.
pub(super) const fn unit(kind: PartitionKind) -> usize {
    match kind {
        PartitionKind::System | PartitionKind::State => BLOCK,
        _ => SECTOR,
    }
}

/// The number of its area; the head of the disk is area 0.
pub(super) fn area(kind: PartitionKind) -> usize {
    LAYOUT.iter().position(|other| *other == kind).map_or(0, |index| index + 1)
}

pub(super) fn area_name(area: usize) -> &'static str {
    area.checked_sub(1).map_or("head", |index| LAYOUT[index].name())
}

fn slot_area(slot: Slot) -> usize {
    area(if slot == Slot::A { PartitionKind::SlotA } else { PartitionKind::SlotB })
}

/// A release as it must be on the disk.
struct Whole {
    slot: Vec<Number>,
    components: Vec<Component>,
}

struct Component {
    path: String,
    length: u64,
    numbers: Vec<Number>,
    /// What lies behind its end once it is sealed.
    seal: Option<Vec<(u64, Number)>>,
}

impl Component {
    fn check(&self, system: &Ext4<'_>) -> Result<()> {
        system.ensure_content(&self.path, &self.numbers, self.length)?;
        let seal = system.seal(&self.path)?;
        ensure!(seal.is_none() || seal == self.seal, "{} is sealed with other hashes", self.path);
        Ok(())
    }
}

/// Which of the two releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Which {
    Old,
    New,
}

/// What a disk does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Verdict {
    /// The release of the slot that boots first.
    pub(super) first: Which,
    /// How many releases boot one after the other while none works.
    pub(super) ways: usize,
    /// What the box finds out about the update.
    pub(super) boot: &'static str,
}

/// What is known of the recording.
pub(super) struct Checker {
    releases: [Whole; 2],
    frame: Vec<Number>,
    /// What the disk was when the update began.
    begun: Picture,
    leases: Vec<Acknowledged>,
    site: String,
}

impl Checker {
    pub(super) fn new(film: &mut Film, recording: &Recording, site: &str) -> Result<Self> {
        let mut old = whole(film, &ImageOptions::default()).context("the old release")?;
        let mut new = whole(film, &release::options(VERSION, Some(COMPONENT))?).context("the new release")?;
        let differ = old.components.iter().zip(&new.components).all(|(old, new)| old.path != new.path);
        ensure!(old.slot != new.slot && differ, "the releases do not differ");
        let frame = film.numbers(&frame(), SECTOR);
        let begun = Projector::new(film).cut(recording.story.begun_at, Cut::Prefix);
        let ended = Projector::new(film).cut(film.len(), Cut::Prefix);
        let system =
            Ext4::open(film, ended.area(area(PartitionKind::System))).context("system, at the end")?;
        for component in old.components.iter_mut().chain(&mut new.components) {
            component.seal = system.seal(&component.path)?;
        }
        let leases = recording.story.leases.clone();
        Ok(Self { releases: [old, new], frame, begun, leases, site: site.to_owned() })
    }

    /// The boot loader's sector.
    pub(super) fn environment(film: &Film, picture: &Picture) -> Result<Environment> {
        let numbers = picture.area(area(PartitionKind::BootState));
        Ok(Environment::new(&film.read(numbers[0])?))
    }

    /// Everything that must hold when this is what the power cut after `position` events has left.
    pub(super) fn check(&self, film: &Film, picture: &Picture, position: usize) -> Result<Verdict> {
        self.check_untouched(picture)?;
        let environment = Self::environment(film, picture)?;
        let boot_state = BootState::decode(environment.sector()).context("boot state")?;
        let system = Ext4::open(film, picture.area(area(PartitionKind::System))).context("system")?;
        let mut first = None;
        let ways = environment.without_success();
        for slot in &ways {
            let which = self.release_in(picture, *slot)?;
            first = first.or(Some((*slot, which)));
            for component in &self.releases[which as usize].components {
                component
                    .check(&system)
                    .with_context(|| format!("slot {slot} has the {which:?} release; on system"))?;
            }
        }
        let (slot, first) = first.context("nothing boots")?;
        let state = Ext4::open(film, picture.area(area(PartitionKind::State))).context("state")?;
        self.check_state(&state, position).context("state")?;
        self.check_site_copies(film, picture).context("bootstate")?;
        let boot = judge(&state, &boot_state, slot, first)?;
        Ok(Verdict { first, ways: ways.len(), boot })
    }

    fn check_untouched(&self, picture: &Picture) -> Result<()> {
        for area in FIXED.map(area).into_iter().chain([0]) {
            ensure!(picture.area(area) == self.begun.area(area), "{} was written to", area_name(area));
        }
        let first = usize::try_from(FRAME_OFFSET)? / SECTOR;
        let frame = &picture.area(area(PartitionKind::BootState))[first..first + self.frame.len()];
        ensure!(frame == self.frame, "the frame around the boot state is damaged");
        Ok(())
    }

    /// Which release is in the slot, byte for byte.
    pub(super) fn release_in(&self, picture: &Picture, slot: Slot) -> Result<Which> {
        let found = picture.area(slot_area(slot));
        for (which, release) in [Which::Old, Which::New].into_iter().zip(&self.releases) {
            if found.get(..release.slot.len()) == Some(&release.slot) {
                return Ok(which);
            }
        }
        bail!("slot {slot} boots and is neither of the releases")
    }

    fn check_state(&self, state: &Ext4<'_>, position: usize) -> Result<()> {
        let site = state.read("site/site.toml")?.context("the site file is lost")?;
        ensure!(site == self.site.as_bytes(), "the site file is another one");
        let journal = state.read("dhcpd/leases.journal")?.context("the leases are lost")?;
        let replay = lease::replay(&journal);
        ensure!(replay.problems.is_empty(), "the leases are damaged: {:?}", replay.problems);
        for lease in self.leases.iter().filter(|lease| lease.position <= position) {
            let found = replay.records.iter().find(|record| record.address == lease.address);
            let held =
                found.is_some_and(|record| record.state == RecordState::Leased && record.mac == lease.mac);
            ensure!(held, "{lease:?} is lost; the journal says {found:?}");
        }
        Ok(())
    }

    fn check_site_copies(&self, film: &Film, picture: &Picture) -> Result<()> {
        let numbers = picture.area(area(PartitionKind::BootState));
        let mut copies = [None, None];
        for (copy, offset) in copies.iter_mut().zip(AREA_OFFSETS) {
            let first = usize::try_from(offset)? / SECTOR;
            let mut bytes = Vec::new();
            // A site file of an office is a few KiB.
            for number in &numbers[first..first + AREA_LENGTH / SECTOR / 8] {
                bytes.extend(film.read(*number)?);
            }
            *copy = SiteCopy::decode(&bytes);
        }
        let copy = newest(copies).context("both copies of the site file are lost")?;
        ensure!(copy.text == self.site.as_bytes(), "the copy of the site file is another one");
        Ok(())
    }

    /// The leases that somebody had been promised.
    pub(super) fn promised(&self, position: usize) -> impl Iterator<Item = &Acknowledged> {
        self.leases.iter().filter(move |lease| lease.position <= position)
    }
}

/// What the box will find out about the update: nothing that did not happen.
fn judge(state: &Ext4<'_>, boot_state: &BootState, slot: Slot, which: Which) -> Result<&'static str> {
    let journal = match state.read("updated/journal.json")? {
        Some(bytes) => match Journal::parse(&bytes) {
            (journal, None) => journal,
            (_, Some(damage)) => bail!("the journal of updates is damaged: {damage}"),
        },
        None => Journal::default(),
    };
    let good = boot_state.good[slot.index()];
    let active = boot_state.active.letter();
    let boot = journal.after_boot(Slots { booted: slot.letter(), active, good });
    ensure!(journal.failed.is_empty(), "a release is said to have failed: {:?}", journal.failed);
    match (which, boot) {
        (Which::Old, Boot::Ordinary) if slot == Slot::A => Ok("ordinary"),
        (Which::Old, Boot::Interrupted) => Ok("interrupted"),
        (Which::New, Boot::Trial) => Ok("on trial"),
        (Which::New, Boot::Proven) => Ok("proven"),
        (Which::New, Boot::Ordinary) if good => Ok("ended"),
        (which, boot) => bail!("slot {slot} with the {which:?} release, {boot:?}, {boot_state:?}"),
    }
}

/// A release as the builder makes it.
fn whole(film: &mut Film, options: &ImageOptions) -> Result<Whole> {
    let (slot, components) = image::shipped(options)?;
    let read = |path: &Utf8PathBuf| fs::read(path).with_context(|| path.to_string());
    let slot = film.numbers(&read(&slot)?, SECTOR);
    let mut all = Vec::new();
    for sealed in components {
        let bytes = read(&sealed.path)?;
        all.push(Component {
            path: format!("component/{}.erofs", sealed.seal.verity),
            length: bytes.len() as u64,
            numbers: film.numbers(&bytes, BLOCK),
            seal: None,
        });
    }
    Ok(Whole { slot, components: all })
}
