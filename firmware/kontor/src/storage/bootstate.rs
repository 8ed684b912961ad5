//! The state in the first sector of the `bootstate` partition (the site's copies behind it are `site`'s).
//!
//! Written in place and synchronously; no file system is involved. The frame that GRUB needs around it is kept
//! whole too.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context as _;
use kontor_boot::frame::{FRAME_OFFSET, frame};
use kontor_boot::slots::{BootState, SECTOR, Slot, StateError};
use nix::fcntl::{Flock, FlockArg, OFlag};

/// The open partition.
#[derive(Debug)]
pub(crate) struct BootStateFile(File);

impl BootStateFile {
    pub(crate) fn open(node: &Path) -> anyhow::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlag::O_SYNC.bits());
        options.open(node).map(Self).with_context(|| node.display().to_string())
    }

    /// The state, or why the sector has none.
    pub(crate) fn read(&self) -> io::Result<Result<BootState, StateError>> {
        let mut sector = [0; SECTOR];
        self.0.read_exact_at(&mut sector, 0)?;
        Ok(BootState::decode(&sector))
    }

    /// Garbage becomes what GRUB takes it for.
    pub(super) fn reset(&mut self) -> io::Result<BootState> {
        let state = BootState::fresh();
        self.write(state)?;
        Ok(state)
    }

    /// Restores the frame through which GRUB reaches the sector; whether it was damaged.
    pub(super) fn restore_frame(&mut self) -> io::Result<bool> {
        let wanted = frame();
        let mut found = vec![0; wanted.len()];
        self.0.read_exact_at(&mut found, FRAME_OFFSET)?;
        if found == wanted {
            return Ok(false);
        }
        self.0.write_all_at(&wanted, FRAME_OFFSET)?;
        self.0.sync_all()?;
        Ok(true)
    }

    /// The running slot has proved itself.
    pub(crate) fn mark_good(&mut self, slot: Slot) -> io::Result<BootState> {
        self.change(|state| state.mark_good(slot))
    }

    /// The running slot is left in order: it keeps the try this boot took.
    pub(super) fn give_back(&mut self, slot: Slot) -> io::Result<BootState> {
        self.change(|state| state.give_back(slot))
    }

    /// Reads, changes and writes it. Meanwhile nobody else does: who judges a release, who installs one and who leaves are
    /// different processes.
    pub(crate) fn change(&mut self, how: impl FnOnce(&mut BootState)) -> io::Result<BootState> {
        let _lock = Flock::lock(self.0.try_clone()?, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        let mut state = self.read()?.unwrap_or(BootState::fresh());
        let before = state;
        how(&mut state);
        if state != before {
            self.write(state)?;
        }
        Ok(state)
    }

    fn write(&self, state: BootState) -> io::Result<()> {
        self.0.write_all_at(&state.encode(), 0)?;
        self.0.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use kontor_boot::partition::BOOTSTATE_SIZE;

    use super::*;

    fn partition(directory: &tempfile::TempDir) -> BootStateFile {
        let path = directory.path().join("bootstate");
        File::create(&path).unwrap().set_len(BOOTSTATE_SIZE).unwrap();
        BootStateFile::open(&path).unwrap()
    }

    #[test]
    fn a_zeroed_state_is_garbage_until_it_is_reset() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = partition(&directory);
        assert_eq!(file.read().unwrap(), Err(StateError::Signature));
        file.reset().unwrap();
        assert_eq!(file.read().unwrap(), Ok(BootState::fresh()));
        let state = file.mark_good(Slot::B).unwrap();
        assert_eq!(file.read().unwrap(), Ok(state));
        assert_eq!(state.last_good, Slot::B);
        assert_eq!(file.give_back(Slot::B).unwrap(), state, "it has all its tries");
    }

    #[test]
    fn of_two_changes_at_once_none_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        partition(&directory).reset().unwrap();
        // An odd number of times, so that both are set in the end unless one has written what it had read before the other.
        const TIMES: usize = 201;
        std::thread::scope(|scope| {
            for slot in [Slot::A, Slot::B] {
                let mut file = BootStateFile::open(&directory.path().join("bootstate")).unwrap();
                scope.spawn(move || {
                    for _ in 0..TIMES {
                        file.change(|state| state.good[slot.index()] ^= true).unwrap();
                    }
                });
            }
        });
        let file = BootStateFile::open(&directory.path().join("bootstate")).unwrap();
        assert_eq!(file.read().unwrap().unwrap().good, [true, true]);
    }

    #[test]
    fn a_damaged_frame_is_restored_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = partition(&directory);
        let state = file.reset().unwrap();
        assert!(file.restore_frame().unwrap());
        assert!(!file.restore_frame().unwrap());
        file.0.write_all_at(b"garbage", FRAME_OFFSET + 3000).unwrap();
        assert!(file.restore_frame().unwrap());
        let start = kontor_boot::frame::bootstate(&state);
        let mut found = vec![0; start.len()];
        file.0.read_exact_at(&mut found, 0).unwrap();
        assert!(found == start, "it is what the builder writes");
    }
}
