//! A picture as a disk again, for a machine to boot.

use std::io;
use std::sync::Arc;

use super::super::Backend;
use super::super::trace::Overlay;
use super::{Film, Picture};

/// A disk with what a cut has left; what is written to it is its own.
#[derive(Debug)]
pub struct LeftDisk {
    film: Arc<Film>,
    picture: Picture,
    now: Overlay,
}

impl LeftDisk {
    /// The disk of this picture.
    #[must_use]
    pub fn new(film: Arc<Film>, picture: Picture) -> Self {
        Self { film, picture, now: Overlay::default() }
    }
}

impl Backend for LeftDisk {
    fn size(&self) -> u64 {
        self.film.contents.base.size()
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.film.contents.base.read(offset, buffer)?;
        let end = offset + buffer.len() as u64;
        for (number, area) in self.film.areas.iter().enumerate() {
            let (from, to) = (offset.max(area.offset), end.min(area.offset + area.length));
            if from >= to {
                continue;
            }
            let unit = area.unit as u64;
            for index in (from - area.offset) / unit..(to - area.offset).div_ceil(unit) {
                let content = self.picture.0[number][index as usize];
                if content == self.film.first.0[number][index as usize] {
                    continue;
                }
                let bytes = self.film.contents.read(content)?;
                let begin = area.offset + index * unit;
                let (from, to) = (from.max(begin), to.min(begin + unit));
                buffer[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - begin) as usize..(to - begin) as usize]);
            }
        }
        self.now.read(offset, buffer);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.now.write(offset, data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
