//! The power goes at any moment of a whole update: the box boots the old release or the new one, whole, with its own
//! components, the site file and every lease.
//!
//! An update is recorded as a block trace. Cut at each of its events, in every way that a disk may lose what was not flushed,
//! it gives thousands of disks; each is checked by a model of the boot chain and of what must be found ([`check`]). Some of them
//! are booted for real, and must do what the model says ([`boots`]).
//!
//! - `KONTOR_CUT_STATES`: how many disks are checked, at least;
//! - `KONTOR_CUT_BOOTS`: how many boots there are, at least;
//! - `KONTOR_CUT_SEED`: which ones;
//! - `KONTOR_CUT_TRACE`: the recording, which is made if the file is not there;
//! - `KONTOR_CUT_ONLY`: the number of the only state to be checked and booted.

mod boots;
mod check;
mod recording;
mod states;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use kontor_boot::partition::LAYOUT;
use qemu_tests::block::picture::{Area, Film, LeftDisk};
use qemu_tests::block::trace::{Base, Event, Recorder};
use qemu_tests::block::{Backend, BlockServer};
use qemu_tests::disk::Disk;
use qemu_tests::{BoxOptions, World};

use self::boots::Booter;
use self::check::Checker;
use self::recording::Recording;
use crate::disk_faults::flashed;
use crate::office::Office;
use crate::update::Updated;

/// What is checked and booted unless more is asked for.
const STATES: u64 = 10_000;
const BOOTS: u64 = 6;
/// One in so many of the booted states comes up as a whole.
const FULL_EVERY: usize = 16;

/// The disk that the box has at the moment.
pub(crate) enum ServedDisk {
    /// It updates itself.
    Recorded(Recorder),
    /// It boots what a cut has left.
    Left(LeftDisk),
}

impl ServedDisk {
    fn position(&self) -> usize {
        match self {
            Self::Recorded(recorder) => recorder.position(),
            Self::Left(_) => 0,
        }
    }

    fn events(&self) -> Arc<[Event]> {
        match self {
            Self::Recorded(recorder) => recorder.trace().1,
            Self::Left(_) => Arc::default(),
        }
    }

    fn backend(&mut self) -> &mut dyn Backend {
        match self {
            Self::Recorded(recorder) => recorder,
            Self::Left(disk) => disk,
        }
    }
}

impl Backend for ServedDisk {
    fn size(&self) -> u64 {
        match self {
            Self::Recorded(recorder) => recorder.size(),
            Self::Left(disk) => disk.size(),
        }
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.backend().read(offset, buffer)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend().write(offset, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.backend().flush()
    }
}

pub(crate) fn survives_any_cut(world: &mut World) -> Result<()> {
    let site = Updated::site();
    let base = flashed(world, &site)?;
    let areas = areas(world, &base)?;
    let recorder = ServedDisk::Recorded(Recorder::new(base.clone()));
    let disk = BlockServer::start(world.artefacts().socket("served"), recorder)?;
    let served_disk = Some(disk.socket().to_owned());
    let office = Office::prepare(world, &BoxOptions { served_disk, ..BoxOptions::default() })?;
    let gateway = office.gateway;
    let kept = std::env::var_os("KONTOR_CUT_TRACE").map(PathBuf::from);
    let file = kept.clone().unwrap_or_else(|| world.artefacts().directory().join("trace.zst"));
    if kept.is_none() || !file.exists() {
        Recording::make(world, office, &disk)?.save(&file)?;
    }
    let recording = Recording::load(&file)?;
    let mut film = Film::new(&base, &recording.events, areas)?;
    let checker = Checker::new(&mut film, &recording, &site)?;
    let film = Arc::new(film);
    let seed = number("KONTOR_CUT_SEED", 1)?;
    let states = states::choose(&film, recording.story.begun_at, number("KONTOR_CUT_STATES", STATES)?, seed);
    let only = std::env::var("KONTOR_CUT_ONLY").ok().map(|text| text.parse::<usize>()).transpose()?;
    let booted = states::to_boot(&states, &film, number("KONTOR_CUT_BOOTS", BOOTS)?, seed);
    let mut booter = Booter::new(gateway, disk, film.clone());
    states::check_all(&film, &states, only, seed, &checker)?;
    states::check_liar(&film, recording.story.begun_at, seed, &checker)?;
    let booted = only.map_or(booted, |only| vec![only]);
    for number in &booted {
        let done = booter.choose(world, &checker, states[*number]);
        done.with_context(|| states::name(*number, states[*number], seed))?;
    }
    booter.report();
    for number in booted.iter().step_by(FULL_EVERY) {
        let done = booter.serve(world, &checker, states[*number]);
        done.with_context(|| states::name(*number, states[*number], seed))?;
    }
    booter.report();
    Ok(())
}

/// The whole disk: head with the table, partitions, and what is behind them.
fn areas(world: &mut World, base: &Base) -> Result<Vec<Area>> {
    let disk = Disk::open(&world.equipment()?.image)?;
    let mut areas = vec![Area { offset: 0, length: 0, unit: check::SECTOR }];
    for kind in LAYOUT {
        let (offset, length) = disk.partition(kind)?;
        areas.push(Area { offset, length, unit: check::unit(kind) });
    }
    areas[0].length = areas[1].offset;
    if let Some(data) = areas.last_mut() {
        data.length = base.size() - data.offset;
    }
    Ok(areas)
}

fn number(name: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is no number: {text}")),
        Err(_) => Ok(otherwise),
    }
}
