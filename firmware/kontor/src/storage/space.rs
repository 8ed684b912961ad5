//! How much room there is for what components keep, and what to say of it.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Room on a file system: what an ordinary user may still write, and all there is, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    free: u64,
    total: u64,
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
    pub(super) fn on(mount: &Path) -> Option<Self> {
        let found = statvfs(mount).ok()?;
        Some(Self { free: found.blocks_available(), total: found.blocks() })
    }

    fn less_than(self, percent: u64) -> bool {
        self.free.saturating_mul(100) < self.total.saturating_mul(percent)
    }
}

impl Space {
    /// After another look: what was said is taken back only when there is clearly more room than when it was said.
    pub(super) fn after(self, room: Room) -> Self {
        let [full, low] = [(Self::Full, 1, 2), (Self::Low, 10, 12)]
            .map(|(level, below, again)| room.less_than(if self >= level { again } else { below }));
        match (full, low) {
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

    #[test]
    fn what_was_said_stands_until_there_is_clearly_more_room() {
        let room = |free| Room { free, total: 1000 };
        let looks =
            [(500, Space::Enough), (99, Space::Low), (110, Space::Low), (9, Space::Full), (15, Space::Full)];
        let mut space = Space::default();
        for (free, expected) in looks {
            space = space.after(room(free));
            assert_eq!(space, expected, "{free}");
        }
        assert_eq!(space.after(room(30)), Space::Low);
        assert_eq!(space.after(room(200)), Space::Enough);
        assert_eq!(Space::default().after(Room { free: 0, total: 0 }), Space::Enough);
    }

    #[test]
    fn every_mounted_file_system_has_a_size() {
        assert!(Room::on(Path::new("/")).unwrap().total > 0);
        assert_eq!(Room::on(Path::new("/nowhere")), None);
    }
}
