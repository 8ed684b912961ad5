//! How much room there is for what components keep, and what to say of it.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Below this nothing can be relied on to be saved, however large the disk is; a Samba that starts wants some MiB.
const FULL_BYTES: u64 = 64 << 20;

/// Room on a file system, in bytes: what may still be written, and all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free: u64,
    pub(crate) total: u64,
}

/// What people are to know of it, worst last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    #[default]
    Enough,
    Low,
    Full,
}

impl Room {
    /// Of a file system that is mounted; may take as long as its disk.
    pub(crate) fn on(mount: &Path) -> Option<Self> {
        Self::read(mount).ok()
    }

    /// The same, and why it is not known.
    pub(crate) fn read(mount: &Path) -> nix::Result<Self> {
        let found = statvfs(mount)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Ok(Self { free: bytes(found.blocks_available()), total: bytes(found.blocks()) })
    }

    fn less_than(self, percent: u64) -> bool {
        self.free / 100 < self.total / 10_000 * percent
    }
}

impl Space {
    /// Everything of which something is said.
    pub(super) const SAID: [Self; 2] = [Self::Low, Self::Full];

    /// After another look: what was said is taken back only when there is clearly more room than when it was said.
    pub(super) fn after(self, room: Room) -> Self {
        let full_bytes = if self == Self::Full { 2 * FULL_BYTES } else { FULL_BYTES };
        let low_percent = if self >= Self::Low { 12 } else { 10 };
        match (room.free < full_bytes, room.less_than(low_percent)) {
            (true, _) => Self::Full,
            (false, true) => Self::Low,
            (false, false) => Self::Enough,
        }
    }

    /// Nothing when there is enough.
    pub(super) const fn problem(self) -> Option<&'static str> {
        match self {
            Self::Enough => None,
            Self::Low => Some(
                "less than a tenth of the data file system is free: when it is full, nothing can be saved to a share",
            ),
            Self::Full => Some(
                "the data file system is full: nothing can be saved to a share, and people may be unable to log on. Delete \
                 files; those with previous versions give their room back when the last version is gone",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_said_stands_until_there_is_clearly_more_room() {
        let room = |free| Room { free: free * MIB, total: 10_000 * MIB };
        let looks = [
            (5000, Space::Enough),
            (990, Space::Low),
            (1100, Space::Low),
            (63, Space::Full),
            (100, Space::Full),
            (130, Space::Low),
            (2000, Space::Enough),
        ];
        let mut space = Space::default();
        for (free, expected) in looks {
            space = space.after(room(free));
            assert_eq!(space, expected, "{free}");
        }
    }

    #[test]
    fn a_large_disk_with_gigabytes_left_is_not_full() {
        let room = Room { free: 20_000 * MIB, total: 2_000_000 * MIB };
        assert_eq!(Space::default().after(room), Space::Low);
    }

    #[test]
    fn every_mounted_file_system_has_a_size() {
        assert!(Room::on(Path::new("/")).unwrap().total > 0);
        assert_eq!(Room::on(Path::new("/nowhere")), None);
    }
}
