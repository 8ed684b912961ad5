//! The slots of the box's own disk: which one runs, writing the other one, and the boot state between them.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek as _, Write};

use anyhow::{Context as _, bail, ensure};
use kontor_boot::slots::BootState;
use kontor_boot::{PartitionKind, Slot};
use kontor_sys::block;
use kontor_update::Sha256Hex;
use kontor_update::journal::Slots;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest as _, Sha256};

use crate::storage::{BootStateFile, Disk, booted_slot, chosen_disk};

/// Written and read at a time.
const CHUNK: usize = 1 << 20;

/// The disk the box has booted from.
pub(super) struct OwnDisk {
    disk: Disk,
    /// The slot that runs.
    pub(super) booted: Slot,
    bootstate: BootStateFile,
}

impl OwnDisk {
    pub(super) fn open() -> anyhow::Result<Self> {
        let disk = chosen_disk()?;
        let booted = booted_slot().context("the kernel command line names no slot")?;
        let bootstate = BootStateFile::open(&disk.partition(PartitionKind::BootState)?)?;
        Ok(Self { disk, booted, bootstate })
    }

    /// The boot state as it is.
    pub(super) fn state(&self) -> anyhow::Result<BootState> {
        self.bootstate.read().context("boot state")?.context("boot state")
    }

    /// The slot that runs has proved itself.
    pub(super) fn mark_good(&mut self) -> anyhow::Result<BootState> {
        self.bootstate.mark_good(self.booted).context("boot state")
    }

    /// The slot cannot be chosen any more.
    pub(super) fn invalidate(&mut self, slot: Slot) -> anyhow::Result<()> {
        self.bootstate.change(|state| state.invalidate(slot)).context("boot state").map(drop)
    }

    /// The slot is tried at the next boot.
    pub(super) fn activate(&mut self, slot: Slot) -> anyhow::Result<()> {
        self.bootstate.change(|state| state.activate(slot)).context("boot state").map(drop)
    }

    /// The slot that does not run is about to be written over: it cannot be chosen any more.
    pub(super) fn give_up_inactive(&mut self) -> anyhow::Result<()> {
        self.ensure_good()?;
        self.invalidate(self.booted.other())
    }

    fn ensure_good(&self) -> anyhow::Result<()> {
        ensure!(
            self.state()?.good[self.booted.index()],
            "the release that runs has not proved itself yet: there would be nothing to go back to"
        );
        Ok(())
    }

    /// The next boot is that of the other slot, whose release has worked here.
    pub(super) fn return_to(&mut self, slot: Slot) -> anyhow::Result<()> {
        self.bootstate.mark_good(slot).context("boot state").map(drop)
    }

    /// Writes the slot that does not run, and reads it back: what is on the disk then has this hash. It cannot be chosen from
    /// before its first byte is written.
    pub(super) fn write_inactive(
        &mut self,
        image: &mut File,
        bytes: u64,
        sha256: &Sha256Hex,
    ) -> anyhow::Result<Slot> {
        let slot = self.booted.other();
        self.ensure_good()?;
        let node = self.disk.partition(partition(slot))?;
        let place = node.display().to_string();
        let mut options = OpenOptions::new();
        let mut target = options.read(true).write(true).open(&node).with_context(|| place.clone())?;
        let room = block::size(&target).with_context(|| place.clone())?;
        ensure!(
            bytes <= room,
            "slot {slot} has {room} bytes, the release needs {bytes}: flash the box with a newer image"
        );
        // Before anything is touched: what is in the other slot is the way back until then.
        image.rewind().context("the slot's image")?;
        let found = hash(image, bytes).context("the slot's image")?;
        ensure!(found == *sha256, "rule hash: the slot's image is not what the release says");
        self.invalidate(slot)?;
        image.rewind().context("the slot's image")?;
        let written = copy(image, &mut target, bytes).with_context(|| format!("cannot write {place}"))?;
        ensure!(written == *sha256, "the slot's image is not what the release says: nothing was activated");
        target.sync_all().with_context(|| format!("cannot write {place}"))?;
        let read = read_back(&mut target, bytes).with_context(|| format!("cannot read back {place}"))?;
        ensure!(read == *sha256, "{place} reads back other bytes than were written: replace the disk");
        Ok(slot)
    }
}

fn partition(slot: Slot) -> PartitionKind {
    match slot {
        Slot::A => PartitionKind::SlotA,
        Slot::B => PartitionKind::SlotB,
    }
}

/// Both slots for reading, that which runs first.
pub(super) fn readable() -> anyhow::Result<Vec<File>> {
    let disk = chosen_disk()?;
    let booted = booted_slot().context("the kernel command line names no slot")?;
    let open = |slot| {
        let node = disk.partition(partition(slot))?;
        File::open(&node).with_context(|| node.display().to_string())
    };
    Ok([booted, booted.other()].into_iter().map(open).filter_map(Result::ok).collect())
}

/// What the boot state says, for the journal.
pub(super) fn slots(booted: Slot, state: &BootState) -> Slots<'static> {
    Slots { booted: booted.letter(), active: state.active.letter(), good: state.good[booted.index()] }
}

/// Copies exactly `bytes`, and says what was copied.
pub(super) fn copy(from: &mut impl Read, to: &mut impl Write, bytes: u64) -> anyhow::Result<Sha256Hex> {
    let (mut hash, mut left, mut chunk) = (Sha256::new(), bytes, vec![0; CHUNK]);
    while left > 0 {
        let length = read_some(from, &mut chunk, left)?;
        hash.update(&chunk[..length]);
        to.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    Ok(Sha256Hex::from_bytes(&hash.finalize().into()))
}

/// The hash of what the disk itself has.
fn read_back(from: &mut File, bytes: u64) -> anyhow::Result<Sha256Hex> {
    posix_fadvise(&*from, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    from.rewind()?;
    hash(from, bytes)
}

/// The hash of the next `bytes` of a file.
pub(super) fn hash(from: &mut impl Read, bytes: u64) -> anyhow::Result<Sha256Hex> {
    copy(from, &mut io::sink(), bytes)
}

fn read_some(from: &mut impl Read, chunk: &mut [u8], left: u64) -> anyhow::Result<usize> {
    let limit = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    loop {
        match from.read(&mut chunk[..limit]) {
            Ok(0) => bail!("it ends {left} bytes too early"),
            Ok(length) => return Ok(length),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_is_hashed_and_nothing_else() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&[7; 3 << 20]).unwrap();
        from.rewind().unwrap();
        let mut to = tempfile::tempfile().unwrap();
        let bytes = (2 << 20) + 17;
        let copied = copy(&mut from, &mut to, bytes).unwrap();
        assert_eq!(to.metadata().unwrap().len(), bytes);
        assert_eq!(read_back(&mut to, bytes).unwrap(), copied);
        let error = copy(&mut from, &mut to, bytes).unwrap_err().to_string();
        assert!(error.contains("bytes too early"), "{error}");
    }
}
