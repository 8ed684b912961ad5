//! Disks as numbers: each unit of an area has the number of its content, so that tens of thousands of disks that a power
//! cut may have left are made and compared in seconds.

mod left;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::trace::{Base, Cut, Event, Random};

pub use left::LeftDisk;

/// The number of a content: equal ones are equal bytes.
pub type Number = u32;

/// Read from the base at a time.
const CHUNK: usize = 1 << 20;

/// A part of the disk, and what of it is written whole or not at all.
#[derive(Debug, Clone, Copy)]
pub struct Area {
    /// Where it begins.
    pub offset: u64,
    /// Its length, a multiple of `unit`.
    pub length: u64,
    /// Bytes that a power cut never splits.
    pub unit: usize,
}

/// What is on a disk, by area; areas that pictures have in common are kept once.
#[derive(Debug, Clone)]
pub struct Picture(Vec<Arc<Vec<Number>>>);

impl Picture {
    /// The contents of an area, unit by unit.
    #[must_use]
    pub fn area(&self, area: usize) -> &[Number] {
        &self.0[area]
    }
}

#[derive(Debug, Clone)]
enum Place {
    Base(u64),
    Written(Arc<[u8]>, usize),
    Known(Arc<[u8]>),
}

/// Every content there is, by number.
#[derive(Debug)]
struct Contents {
    base: Base,
    known: HashMap<u64, Number>,
    places: Vec<(Place, usize)>,
}

impl Contents {
    fn number(&mut self, bytes: &[u8], place: impl FnOnce() -> Place) -> Number {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let places = &mut self.places;
        *self.known.entry(hasher.finish()).or_insert_with(|| {
            places.push((place(), bytes.len()));
            (places.len() - 1) as Number
        })
    }

    fn read(&self, number: Number) -> io::Result<Vec<u8>> {
        let (place, length) = &self.places[number as usize];
        let mut bytes = vec![0; *length];
        match place {
            Place::Base(offset) => self.base.read(*offset, &mut bytes)?,
            Place::Written(data, at) => bytes.copy_from_slice(&data[*at..*at + length]),
            Place::Known(data) => bytes.copy_from_slice(data),
        }
        Ok(bytes)
    }
}

/// What the disk was told, as numbers.
#[derive(Debug, Clone)]
enum Step {
    Write { area: usize, first: usize, numbers: Box<[Number]> },
    Flush,
}

/// A recorded trace, prepared for being cut anywhere.
#[derive(Debug)]
pub struct Film {
    areas: Vec<Area>,
    contents: Contents,
    first: Picture,
    steps: Vec<Step>,
}

impl Film {
    /// Reads the whole base and all that was written to it.
    ///
    /// # Errors
    /// When something was written outside of the areas or to part of a unit, or any I/O error.
    pub fn new(base: &Base, events: &[Event], areas: Vec<Area>) -> Result<Self> {
        let mut contents = Contents { base: base.clone(), known: HashMap::new(), places: Vec::new() };
        let first = areas.iter().map(|area| contents.area(area).map(Arc::new)).collect::<Result<_>>()?;
        let mut steps = Vec::new();
        for event in events {
            steps.push(match event {
                Event::Flush => Step::Flush,
                Event::Write { offset, data } => contents.step(*offset, data, &areas)?,
            });
        }
        Ok(Self { areas, contents, first: Picture(first), steps })
    }

    /// The numbers of bytes that some area may hold from its beginning on; the rest of the last unit is zero.
    pub fn numbers(&mut self, bytes: &[u8], unit: usize) -> Vec<Number> {
        let number = |chunk: &[u8]| {
            let mut whole = chunk.to_vec();
            whole.resize(unit, 0);
            let whole: Arc<[u8]> = whole.into();
            self.contents.number(&whole, || Place::Known(whole.clone()))
        };
        bytes.chunks(unit).map(number).collect()
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Where an area begins.
    #[must_use]
    pub fn offset(&self, area: usize) -> u64 {
        self.areas[area].offset
    }

    /// Area and first unit of the write that is this event; nothing for a flush.
    #[must_use]
    pub fn written(&self, event: usize) -> Option<(usize, usize)> {
        match self.steps.get(event) {
            Some(Step::Write { area, first, .. }) => Some((*area, *first)),
            _ => None,
        }
    }

    /// The bytes of a content.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn read(&self, number: Number) -> io::Result<Vec<u8>> {
        self.contents.read(number)
    }

    fn apply(&self, step: &Step, picture: &mut Picture, survives: &mut impl FnMut() -> bool) {
        if let Step::Write { area, first, numbers } = step {
            let target = &mut Arc::make_mut(&mut picture.0[*area])[*first..*first + numbers.len()];
            for (unit, number) in target.iter_mut().zip(numbers) {
                if survives() {
                    *unit = *number;
                }
            }
        }
    }
}

impl Contents {
    fn area(&mut self, area: &Area) -> Result<Vec<Number>> {
        let zero = vec![0; area.unit];
        let nothing: Arc<[u8]> = zero.into();
        let zero = self.number(&nothing, || Place::Known(nothing.clone()));
        let mut numbers = Vec::new();
        let mut buffer = vec![0; CHUNK];
        let none = vec![0; CHUNK];
        let mut at = 0;
        while at < area.length {
            let length = CHUNK.min(usize::try_from(area.length - at)?);
            let chunk = &mut buffer[..length];
            self.base.read(area.offset + at, chunk).context("read the image")?;
            if chunk == &none[..length] {
                numbers.extend(std::iter::repeat_n(zero, length / area.unit));
            } else {
                let places = (area.offset + at..).step_by(area.unit);
                let units = places.zip(chunk.chunks(area.unit));
                numbers.extend(units.map(|(place, unit)| self.number(unit, || Place::Base(place))));
            }
            at += length as u64;
        }
        Ok(numbers)
    }

    fn step(&mut self, offset: u64, data: &Arc<[u8]>, areas: &[Area]) -> Result<Step> {
        let end = offset + data.len() as u64;
        let inside = |area: &Area| area.offset <= offset && end <= area.offset + area.length;
        let area = areas.iter().position(inside);
        let area = area.with_context(|| format!("{offset} to {end} is in no single area of the disk"))?;
        let Area { offset: begin, unit, .. } = areas[area];
        let relative = usize::try_from(offset - begin)?;
        ensure!(
            relative.is_multiple_of(unit) && data.len().is_multiple_of(unit),
            "{} bytes at {offset} are written, which are no units of {unit}",
            data.len()
        );
        let units = (0..data.len()).step_by(unit).zip(data.chunks(unit));
        let numbers =
            units.map(|(at, bytes)| self.number(bytes, || Place::Written(data.clone(), at))).collect();
        Ok(Step::Write { area, first: relative / unit, numbers })
    }
}

/// Goes through a film and shows what cuts leave at growing positions.
#[derive(Debug)]
pub struct Projector<'a> {
    film: &'a Film,
    at: usize,
    durable: Picture,
    /// The first event that is not durable for certain.
    pending: usize,
    /// From this event on no flush does anything.
    lies_from: usize,
}

impl<'a> Projector<'a> {
    /// Before the first event.
    #[must_use]
    pub fn new(film: &'a Film) -> Self {
        Self { film, at: 0, durable: film.first.clone(), pending: 0, lies_from: usize::MAX }
    }

    /// The same for a disk that says that it has flushed, and has not, from this event on: whoever relies on flushes must be
    /// found out with it.
    #[must_use]
    pub fn of_a_liar(film: &'a Film, lies_from: usize) -> Self {
        Self { lies_from, ..Self::new(film) }
    }

    /// What is there after the power went when `position` events had been answered. Positions must not go back.
    pub fn cut(&mut self, position: usize, cut: Cut) -> Picture {
        self.forward(position);
        let mut picture = self.durable.clone();
        let pending = &self.film.steps[self.pending..self.at];
        match cut {
            Cut::Flushed => {}
            Cut::Prefix => pending.iter().for_each(|step| self.film.apply(step, &mut picture, &mut || true)),
            Cut::Torn { seed } => {
                let mut random = Random::new(seed);
                for step in pending {
                    // Of each write all, any part, or nothing.
                    match random.below(3) {
                        0 => self.film.apply(step, &mut picture, &mut || true),
                        1 => self.film.apply(step, &mut picture, &mut || random.below(2) == 0),
                        _ => {}
                    }
                }
            }
        }
        picture
    }

    fn forward(&mut self, position: usize) {
        while self.at < position.min(self.film.steps.len()) {
            if matches!(self.film.steps[self.at], Step::Flush) && self.at < self.lies_from {
                for step in &self.film.steps[self.pending..self.at] {
                    self.film.apply(step, &mut self.durable, &mut || true);
                }
                self.pending = self.at + 1;
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::Backend;
    use super::*;

    fn film(events: &[Event]) -> Arc<Film> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 64 << 10]).unwrap();
        let areas = vec![
            Area { offset: 0, length: 16 << 10, unit: 512 },
            Area { offset: 16 << 10, length: 48 << 10, unit: 4096 },
        ];
        Arc::new(Film::new(&Base::open(file.path()).unwrap(), events, areas).unwrap())
    }

    fn write(offset: u64, byte: u8, length: usize) -> Event {
        Event::Write { offset, data: vec![byte; length].into() }
    }

    #[test]
    fn a_left_disk_reads_as_what_was_written_and_flushed() {
        let film = film(&[write(512, 1, 1024), Event::Flush, write(16 << 10, 2, 8192), write(512, 3, 512)]);
        let check = |cut, expect: [u8; 4]| {
            let mut disk = LeftDisk::new(film.clone(), Projector::new(&film).cut(4, cut));
            let mut bytes = vec![0; 64 << 10];
            disk.read(0, &mut bytes).unwrap();
            assert_eq!([0, 512, 1024, 20 << 10].map(|at| bytes[at]), expect);
            let mut part = vec![0; 512];
            disk.read(20 << 10, &mut part).unwrap();
            assert_eq!(part[0], expect[3]);
            disk.write(20 << 10, &[9; 512]).unwrap();
            disk.read((20 << 10) - 512, &mut bytes[..1536]).unwrap();
            assert_eq!([0, 512, 1024].map(|at| bytes[at]), [expect[3], 9, expect[3]]);
        };
        check(Cut::Flushed, [7, 1, 1, 7]);
        check(Cut::Prefix, [7, 3, 1, 2]);
    }

    #[test]
    fn units_are_never_split_and_survive_in_any_combination() {
        let film = film(&[write(0, 1, 1024), write(16 << 10, 2, 8192)]);
        let mut seen = std::collections::HashSet::new();
        let mut projector = Projector::new(&film);
        for seed in 0..300 {
            let picture = projector.cut(2, Cut::Torn { seed });
            seen.insert([picture.0[0][0], picture.0[0][1], picture.0[1][0], picture.0[1][1]]);
        }
        assert_eq!(seen.len(), 16);
    }

    #[test]
    fn a_liar_loses_what_it_says_is_flushed() {
        let film = film(&[write(0, 1, 512), Event::Flush, write(512, 2, 512), Event::Flush]);
        let flushed = |mut projector: Projector<'_>| {
            let picture = projector.cut(4, Cut::Flushed);
            [0, 1, 2].map(|unit| picture.0[0][unit] == picture.0[0][3])
        };
        assert_eq!(flushed(Projector::new(&film)), [false, false, true]);
        assert_eq!(flushed(Projector::of_a_liar(&film, 2)), [false, true, true]);
    }

    #[test]
    fn known_bytes_have_the_numbers_of_the_same_bytes_on_the_disk() {
        let mut film = Arc::into_inner(film(&[write(0, 1, 1024)])).unwrap();
        let wanted = film.numbers(&[[1; 1024], [7; 1024]].concat(), 512);
        let picture = Projector::new(&film).cut(1, Cut::Prefix);
        assert_eq!(picture.area(0)[..4], wanted);
        assert!(Film::new(&film.contents.base, &[write(16 << 10, 2, 512)], film.areas.clone()).is_err());
        assert!(Film::new(&film.contents.base, &[write(15 << 10, 2, 4096)], film.areas.clone()).is_err());
    }
}
