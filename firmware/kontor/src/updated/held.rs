//! What the box has already of a new image: slots and components' images. The daemon opens them, read-only; the child that
//! fetches inherits them, for it may open nothing itself.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context as _;
use kontor_delta::io::{Source, Target};
use kontor_sys::spawn::inherited;
use kontor_update::Sha256Hex;
use serde::{Deserialize, Serialize};

use super::slots;

/// More images are not looked through: those of two releases.
const MOST: usize = 32;

/// What kind of image something is: what is alike is looked for in its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A slot's.
    Slot,
    /// A component's.
    Component,
}

/// An open file, as an order names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Held {
    pub(super) kind: Kind,
    /// Its number in the child.
    number: i32,
    /// Its length; that of a slot's partition.
    bytes: u64,
}

impl Held {
    pub(super) fn of(kind: Kind, file: &File, bytes: u64) -> Self {
        Self { kind, number: file.as_raw_fd(), bytes }
    }
}

/// Opens everything there is. What cannot be opened is not there: it is fetched then.
pub(super) fn open(components: &Path) -> (Vec<Held>, Vec<OwnedFd>) {
    let slots = slots::readable().unwrap_or_else(|error| {
        eprintln!("the slots are no help: {error:#}");
        Vec::new()
    });
    let mut found: Vec<(Kind, File)> = slots.into_iter().map(|slot| (Kind::Slot, slot)).collect();
    let images = fs::read_dir(components).into_iter().flatten().flatten();
    let mut images: Vec<_> = images.map(|entry| entry.path()).collect();
    images.retain(|path| path.extension().is_some_and(|extension| extension == "erofs"));
    // In the same order each time.
    images.sort();
    found.extend(images.iter().filter_map(|path| Some((Kind::Component, File::open(path).ok()?))));
    found.truncate(MOST);
    let opened = found.into_iter().filter_map(|(kind, mut file)| {
        // The end of a device is its size, as that of a file.
        let bytes = file.seek(SeekFrom::End(0)).ok()?;
        Some((Held::of(kind, &file, bytes), OwnedFd::from(file)))
    });
    opened.unzip()
}

/// One of them in the child.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    file: OnDisk,
    /// Hashes of its beginnings, by their length.
    hashes: Vec<(u64, Sha256Hex)>,
}

impl Old {
    pub(super) fn take(held: Held) -> anyhow::Result<Self> {
        let file = inherited(held.number).with_context(|| format!("file {}", held.number))?;
        Ok(Self { kind: held.kind, bytes: held.bytes, file: OnDisk(file.into()), hashes: Vec::new() })
    }

    /// Its bytes at offsets.
    pub(super) fn source(&mut self) -> &mut OnDisk {
        &mut self.file
    }

    /// Whether it is, or begins with, the image that has this length and hash. Read in full the first time.
    pub(super) fn is(&mut self, bytes: u64, sha256: &Sha256Hex) -> bool {
        let may_be = if self.kind == Kind::Slot { self.bytes >= bytes } else { self.bytes == bytes };
        if !may_be {
            return false;
        }
        if let Some((_, known)) = self.hashes.iter().find(|(length, _)| *length == bytes) {
            return known == sha256;
        }
        let Ok(found) = self.file.hash(bytes) else { return false };
        let is = found == *sha256;
        self.hashes.push((bytes, found));
        is
    }
}

/// A file or a partition, as `kontor_delta` reads and writes it.
#[derive(Debug)]
pub(super) struct OnDisk(pub(super) File);

impl OnDisk {
    /// The hash of its first `bytes`.
    pub(super) fn hash(&mut self, bytes: u64) -> anyhow::Result<Sha256Hex> {
        self.0.rewind()?;
        slots::hash(&mut self.0, bytes)
    }
}

impl Source for OnDisk {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

impl Target for OnDisk {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}
