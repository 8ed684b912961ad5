//! The schema of what lies on `state`: brought to what every release that may boot can read, before any daemon has it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kontor_boot::{BootState, PartitionKind};
use kontor_migrate::{Directory, NOTE, Note, Other, STAGING, TABLE, Table, bring, target};
use kontor_sys::file::write_durable;
use kontor_update::Journal;
use nix::unistd::{Gid, Uid, chown};

use super::booted_slot;
use super::bootstate::BootStateFile;
use super::disk::Disk;

/// The journal of updates, from the state's root: it knows what the release in the other slot reads.
const JOURNAL: &str = "updated/journal.json";
/// Every state that was ever used has it.
const USED: &str = "init";
/// Daemons read it, root alone changes it.
const NOTE_MODE: u32 = 0o644;

/// Brings what lies below `root` to the schema that is to be in force, or leaves it as it was.
///
/// # Errors
/// When it has one that this release does not read, and nobody of this release may touch it.
pub(super) fn bring_up(disk: &Disk, root: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let journal = Journal::parse(&fs::read(root.join(JOURNAL)).unwrap_or_default()).0;
    let other = other(disk, &journal);
    let next = journal.awaited.map(|awaited| awaited.reads);
    bring_to(&TABLE, &mut OnDisk(root.to_owned()), |now| target(now, TABLE.span(), other, next), problems)
}

/// What the release in the other slot reads.
fn other(disk: &Disk, journal: &Journal) -> Other {
    let state = disk.partition(PartitionKind::BootState).and_then(|node| BootStateFile::open(&node));
    let state = state.ok().and_then(|file| file.read().ok()?.ok()).unwrap_or(BootState::fresh());
    let Some(slot) = booted_slot().map(kontor_boot::Slot::other) else { return Other::Unknown };
    if state.is_invalid(slot) {
        return Other::Gone;
    }
    journal.reads.get(slot.letter()).map_or(Other::Unknown, |reads| Other::Reads(*reads))
}

fn bring_to(
    table: &Table,
    directory: &mut OnDisk,
    target: impl Fn(Option<u32>) -> Result<u32, kontor_migrate::Unreadable>,
    problems: &mut Vec<String>,
) -> anyhow::Result<()> {
    let noted = Note::settle(directory).context(NOTE)?;
    let is_damaged = noted.is_none() && directory.0.join(NOTE).exists();
    let is_new = noted.is_none() && !is_damaged && !directory.0.join(USED).exists();
    let now = noted.or((!is_new && !is_damaged).then_some(1));
    let wanted = target(now)?;
    if is_damaged {
        // Whose files have another one will say so, and keep them.
        problems.push(format!("{NOTE} on the state partition was damaged: taken for schema {wanted}"));
    }
    if is_new && wanted == 1 {
        // That is what it is without a note.
        return Ok(());
    }
    let Some(now) = now else {
        return directory.put(NOTE, &Note::of(wanted).to_json()).context(NOTE);
    };
    if now == wanted {
        return Ok(());
    }
    match bring(directory, table, now, wanted) {
        Ok(()) => eprintln!("what this box keeps was brought from schema {now} to {wanted}"),
        Err(error) => {
            problems.push(format!(
                "the state partition cannot be brought from schema {now} to {wanted}: {error}"
            ));
            // It may have happened all the same, but for its end.
            let _ = Note::settle(directory).context(NOTE)?;
        }
    }
    Ok(())
}

/// The state partition, mounted where no daemon looks for it.
struct OnDisk(PathBuf);

impl Directory for OnDisk {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.0.join(path);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Its owner sets it aside.
            Err(_) if path.is_dir() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(path);
        write_durable(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(NOTE_MODE))
    }

    fn stage(&mut self, path: &str, bytes: &[u8], like: &str) -> io::Result<()> {
        let path = self.0.join(path);
        fs::write(&path, bytes)?;
        let like = fs::metadata(self.0.join(like))?;
        fs::set_permissions(&path, like.permissions())?;
        chown(&path, Some(Uid::from_raw(like.uid())), Some(Gid::from_raw(like.gid())))?;
        File::open(&path)?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        match fs::rename(self.0.join(from), self.0.join(to)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn sync(&mut self, directory: &str) -> io::Result<()> {
        File::open(self.0.join(directory))?.sync_all()
    }

    fn clear(&mut self, keep: bool) -> io::Result<()> {
        let path = self.0.join(STAGING);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if keep { fs::create_dir(&path) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use kontor_migrate::{Change, Migration, Span};

    use super::*;

    const LEASES: &str = "dhcpd/leases.journal";
    const MIGRATION: Migration = Migration {
        changes: &[
            Change {
                path: LEASES,
                forward: |bytes| bytes.to_ascii_uppercase(),
                back: |bytes| bytes.to_ascii_lowercase(),
            },
            Change { path: "netd/lease.json", forward: |_| b"new".to_vec(), back: |_| b"old".to_vec() },
        ],
    };
    const TRIAL: Table = Table { oldest: 1, native: 2, migrations: &[MIGRATION] };

    fn state() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        for name in [USED, "dhcpd", "netd"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        fs::write(scratch.path().join(LEASES), "leases").unwrap();
        fs::set_permissions(scratch.path().join(LEASES), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(scratch.path().join("netd/lease.json"), "old").unwrap();
        scratch
    }

    fn to(scratch: &tempfile::TempDir, other: Other) -> (anyhow::Result<()>, Vec<String>) {
        let mut problems = Vec::new();
        let plan = |now| target(now, TRIAL.span(), other, None);
        let result = bring_to(&TRIAL, &mut OnDisk(scratch.path().to_owned()), plan, &mut problems);
        (result, problems)
    }

    #[track_caller]
    fn holds(scratch: &tempfile::TempDir, schema: Option<u32>, leases: &str) {
        let note = fs::read(scratch.path().join(NOTE)).ok().map(|bytes| Note::parse(&bytes).unwrap());
        assert_eq!(note, schema.map(Note::of));
        assert_eq!(fs::read_to_string(scratch.path().join(LEASES)).unwrap(), leases);
        assert_eq!(fs::metadata(scratch.path().join(LEASES)).unwrap().mode() & 0o777, 0o600);
        assert!(!scratch.path().join(STAGING).exists());
    }

    #[test]
    fn it_waits_for_the_other_slot_goes_forward_and_comes_back() {
        let (scratch, old) = (state(), Other::Reads(Span::default()));
        to(&scratch, old).0.unwrap();
        holds(&scratch, None, "leases");
        to(&scratch, Other::Gone).0.unwrap();
        holds(&scratch, Some(2), "LEASES");
        to(&scratch, old).0.unwrap();
        holds(&scratch, Some(1), "leases");
    }

    #[test]
    fn what_is_new_is_noted_and_what_is_damaged_is_said() {
        let scratch = tempfile::tempdir().unwrap();
        to(&scratch, Other::Gone).0.unwrap();
        let note = || Note::parse(&fs::read(scratch.path().join(NOTE)).unwrap()).unwrap();
        assert_eq!(note(), Note::of(2));
        for (other, schema) in [(Other::Gone, 2), (Other::Reads(Span::default()), 1)] {
            fs::write(scratch.path().join(NOTE), "").unwrap();
            let (result, problems) = to(&scratch, other);
            result.unwrap();
            assert!(problems[0].contains(&format!("taken for schema {schema}")), "{problems:?}");
            assert_eq!(note(), Note::of(schema));
        }
    }

    #[test]
    fn state_of_a_newer_release_is_not_touched() {
        let scratch = state();
        fs::write(scratch.path().join(NOTE), Note::of(3).to_json()).unwrap();
        let error = to(&scratch, Other::Gone).0.unwrap_err().to_string();
        assert!(error.contains("schema 3, which only newer releases read; this one reads 1 to 2"), "{error}");
        holds(&scratch, Some(3), "leases");
    }

    /// The commit is there, and some of the files are moved already.
    #[test]
    fn what_was_cut_short_is_finished() {
        let scratch = state();
        let note = "{\"schema\":1,\"becoming\":{\"schema\":2,\"files\":[\"netd/lease.json\",\"dhcpd/leases.journal\"]}}";
        fs::write(scratch.path().join(NOTE), note).unwrap();
        let mut directory = OnDisk(scratch.path().to_owned());
        directory.clear(true).unwrap();
        directory.stage(&kontor_migrate::staged(LEASES), b"LEASES", LEASES).unwrap();
        fs::write(scratch.path().join("netd/lease.json"), "new").unwrap();
        to(&scratch, Other::Unknown).0.unwrap();
        holds(&scratch, Some(2), "LEASES");
        assert_eq!(fs::read_to_string(scratch.path().join("netd/lease.json")).unwrap(), "new");
    }

    #[test]
    fn a_full_disk_leaves_what_was() {
        let scratch = state();
        // Nothing can be staged where a file is in the way.
        fs::write(scratch.path().join(STAGING), "").unwrap();
        let (result, problems) = to(&scratch, Other::Gone);
        result.unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(fs::read_to_string(scratch.path().join(LEASES)).unwrap(), "leases");
    }
}
