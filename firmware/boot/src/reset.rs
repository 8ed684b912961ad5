//! The factory reset: what is asked for, what is left of a box, and in which order the rest goes.
//!
//! The request is one sector of `bootstate`, behind the site's copies; carried out, it becomes the note that it was, so that both
//! are one write. Storage does the whole plan at each boot that finds a request: whenever the power goes, the next boot does
//! it again from the beginning, before any daemon sees `state`. The site file that came with the seed has a place of its own
//! beside it, because the seed is wiped when it has been imported.

use std::path::{Path, PathBuf};

use crate::site_copy::{AREA_LENGTH, AREA_OFFSETS};

/// Where the seed's site file is kept in the `bootstate` partition, in the form of a [`crate::site_copy::SiteCopy`].
pub const FACTORY_SITE_OFFSET: u64 = AREA_OFFSETS[1] + AREA_LENGTH as u64;
/// Where the request, later the note, is.
pub const RECORD_OFFSET: u64 = FACTORY_SITE_OFFSET + AREA_LENGTH as u64;
/// Length of both: one sector is written whole or not at all.
pub const RECORD_LENGTH: usize = 512;

const MAGIC: &[u8; 8] = b"KONTRSET";
const CHECKED: usize = 18;

/// What becomes of the `data` partition. The numbers are on disks: never changed or reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// It is not touched.
    Keep = 1,
    /// It is made anew.
    Wipe = 2,
}

/// How far it is. The numbers are on disks: never changed or reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// To be carried out at the next boot. `state` is as it was.
    Asked = 1,
    /// `state` is neither as it was nor fresh: nobody may use it before the reset is done.
    Begun = 2,
    /// Carried out.
    Done = 3,
}

/// The last factory reset of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// How far it is.
    pub stage: Stage,
    /// What becomes, or became, of `data`.
    pub data: Data,
    /// When that stage began, in seconds since 1970.
    pub at: u64,
}

impl Record {
    /// As a sector.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_LENGTH] {
        let mut sector = [0; RECORD_LENGTH];
        sector[..8].copy_from_slice(MAGIC);
        sector[8] = self.stage as u8;
        sector[9] = self.data as u8;
        sector[10..CHECKED].copy_from_slice(&self.at.to_le_bytes());
        let checksum = crc32fast::hash(&sector[..CHECKED]);
        sector[CHECKED..CHECKED + 4].copy_from_slice(&checksum.to_le_bytes());
        sector
    }

    /// Nothing of garbage: a box is reset only when it was asked for.
    #[must_use]
    pub fn decode(sector: &[u8]) -> Option<Self> {
        let (checked, rest) = sector.split_at_checked(CHECKED)?;
        let checksum = u32::from_le_bytes(*rest.first_chunk()?);
        if !checked.starts_with(MAGIC) || checksum != crc32fast::hash(checked) {
            return None;
        }
        let stage =
            [Stage::Asked, Stage::Begun, Stage::Done].into_iter().find(|stage| *stage as u8 == checked[8])?;
        let data = [Data::Keep, Data::Wipe].into_iter().find(|data| *data as u8 == checked[9])?;
        Some(Self { stage, data, at: u64::from_le_bytes(checked[10..].try_into().ok()?) })
    }
}

/// What becomes of something on `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Left as it is, with everything in it.
    Stays,
    /// A directory of which a part stays.
    Enter,
    /// Goes, with everything in it.
    Goes,
}

/// The fate of a path, relative to `state`.
///
/// What is remembered of releases stays, the schema that all of them can read, and a time that has certainly passed: otherwise a
/// reset would make a box take an old release, or one that has failed on it. Everything else goes, also what this release does
/// not know.
#[must_use]
pub fn fate(path: &Path) -> Fate {
    match path.to_str() {
        Some("updated" | "schema.json" | "init/clock" | "lost+found") => Fate::Stays,
        Some("init") => Fate::Enter,
        _ => Fate::Goes,
    }
}

/// One step. Each may be done again when it was done, or cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The copies of the good site file become the seed's site file, or nothing.
    ReplaceCopies,
    /// Nothing is left of `data`.
    WipeData,
    /// The request says from now on that `state` is being changed.
    Begin,
    /// What the file or directory, relative to `state`, holds is overwritten: what is only removed stays on the disk.
    Overwrite(PathBuf),
    /// It is removed.
    Remove(PathBuf),
    /// What was done to `state` so far is on the disk.
    Sync,
    /// The disk is told which blocks of `state` hold nothing.
    Trim,
    /// The seed's site file becomes the operator's again.
    StoreSite,
    /// The request becomes the note that it was carried out: last.
    Note,
}

/// All steps that are left, in order, for what [`fate`] lets go. `data` comes before `state`: on a disk that fails to write, the
/// office stays as it was. Begun, it is never wiped again: people may have used it since.
#[must_use]
pub fn plan(asked: Record, goes: &[PathBuf]) -> Vec<Step> {
    let mut steps = vec![Step::ReplaceCopies];
    if asked.stage == Stage::Asked {
        steps.extend((asked.data == Data::Wipe).then_some(Step::WipeData));
        steps.push(Step::Begin);
    }
    steps.extend(goes.iter().cloned().map(Step::Overwrite));
    steps.push(Step::Sync);
    steps.extend(goes.iter().cloned().map(Step::Remove));
    steps.extend([Step::Sync, Step::Trim, Step::StoreSite, Step::Note]);
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{FRAME_OFFSET, frame};
    use crate::partition::BOOTSTATE_SIZE;

    #[test]
    fn places_in_the_boot_state_do_not_overlap() {
        assert!(AREA_OFFSETS[0] >= FRAME_OFFSET + frame().len() as u64);
        assert_eq!((FACTORY_SITE_OFFSET, RECORD_OFFSET), (576 << 10, 832 << 10));
        assert!(RECORD_OFFSET + RECORD_LENGTH as u64 <= BOOTSTATE_SIZE);
    }

    #[test]
    fn what_keeps_old_releases_out_stays() {
        let check = |path: &str, expected: Fate| assert_eq!(fate(Path::new(path)), expected, "{path}");
        for path in ["updated", "schema.json", "init/clock", "lost+found"] {
            check(path, Fate::Stays);
        }
        check("init", Fate::Enter);
        for path in
            ["site", "dhcpd", "netd", "timed", "log", "init/clock.damaged", "unknown", "updated.damaged"]
        {
            check(path, Fate::Goes);
        }
    }

    #[test]
    fn the_note_comes_last_and_data_before_state() {
        let asked = |stage, data| Record { stage, data, at: 7 };
        let steps = plan(asked(Stage::Asked, Data::Wipe), &["site".into(), "dhcpd".into()]);
        assert_eq!(steps.last(), Some(&Step::Note));
        assert_eq!(steps[..3], [Step::ReplaceCopies, Step::WipeData, Step::Begin]);
        let remove = steps.iter().position(|step| matches!(step, Step::Remove(_))).unwrap();
        assert_eq!(steps[remove - 1], Step::Sync, "what is overwritten is on the disk before it is removed");
        for record in [asked(Stage::Asked, Data::Keep), asked(Stage::Begun, Data::Wipe)] {
            assert!(!plan(record, &[]).contains(&Step::WipeData), "{record:?}");
        }
    }

    proptest! {
        #[test]
        fn records_read_back(stage in 0..3_usize, keep: bool, at: u64) {
            let record = Record {
                stage: [Stage::Asked, Stage::Begun, Stage::Done][stage],
                data: if keep { Data::Keep } else { Data::Wipe },
                at,
            };
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        #[test]
        fn one_changed_byte_asks_for_nothing(at in 0..CHECKED + 4, flip in 1_u8..) {
            let mut sector = Record { stage: Stage::Asked, data: Data::Wipe, at: 7 }.encode();
            sector[at] ^= flip;
            prop_assert_eq!(Record::decode(&sector), None);
        }

        #[test]
        fn garbage_never_panics(sector in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(Record::decode(&sector), None);
        }
    }
}
