//! The journal's file, and what is drawn once for this box.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use kontor_sys::file::{set_aside, write_reserved};
use kontor_update::Journal;
use nix::fcntl::{Flock, FlockArg};

/// The journal; see the table of state files in ARCHITECTURE.md.
pub(super) const JOURNAL: &str = "/state/updated/journal.json";
/// Held while the journal is changed: the daemon and `trial` do so.
const LOCK: &str = "/run/kontor/updated/journal.lock";
/// A journal is some 10 KB; what is longer is none.
const MAX_BYTES: u64 = 1 << 20;
/// A release that fills the disk must not keep its own failure from being written down.
const ROOM: usize = 64 << 10;

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The journal as it is; a damaged one is set aside and as good as none.
pub(super) fn load() -> anyhow::Result<Journal> {
    load_from(Path::new(JOURNAL), Path::new(LOCK))
}

/// What was opened may have changed places with the spare file, and be written over meanwhile: only with the lock damage is damage.
fn load_from(path: &Path, lock: &Path) -> anyhow::Result<Journal> {
    if let (journal, None) = read(path)? {
        return Ok(journal);
    }
    let _lock = take_lock(lock)?;
    load_locked(path)
}

fn load_locked(path: &Path) -> anyhow::Result<Journal> {
    let (journal, damage) = read(path)?;
    if let Some(damage) = damage {
        let aside = set_aside(path).with_context(|| path.display().to_string())?;
        eprintln!("error: the journal of updates was damaged ({damage}); kept as {}", aside.display());
    }
    Ok(journal)
}

fn read(path: &Path) -> anyhow::Result<(Journal, Option<String>)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Journal::default(), None)),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).with_context(|| path.display().to_string())?;
    Ok(Journal::parse(&bytes))
}

fn take_lock(lock: &Path) -> anyhow::Result<Flock<File>> {
    if let Some(directory) = lock.parent() {
        fs::create_dir_all(directory).with_context(|| lock.display().to_string())?;
    }
    let file = File::create(lock).with_context(|| lock.display().to_string())?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| lock.display().to_string())
}

/// Changes the journal durably; nothing is changed when it cannot be written.
pub(super) fn change<T>(how: impl FnOnce(&mut Journal) -> T) -> anyhow::Result<T> {
    let _lock = take_lock(Path::new(LOCK))?;
    let mut journal = load_locked(Path::new(JOURNAL))?;
    if journal.seed == 0 {
        journal.seed = draw().context("/dev/urandom")?;
    }
    let result = how(&mut journal);
    write_reserved(Path::new(JOURNAL), &journal.to_json(), ROOM).context(JOURNAL)?;
    Ok(result)
}

/// A journal that was loaded, with the seed that is drawn once.
pub(super) fn seeded(journal: Journal) -> anyhow::Result<Journal> {
    if journal.seed == 0 { change(|journal| journal.clone()) } else { Ok(journal) }
}

/// Any number but 0.
fn draw() -> std::io::Result<u64> {
    Ok(u64::from_le_bytes(kontor_sys::random::octets()?).max(1))
}

/// Whether a release is on trial, in whichever slot: then only `trial` says what is good. Without `state` nobody knows.
pub(crate) fn is_on_trial() -> bool {
    load().is_ok_and(|journal| journal.trial.is_some())
}

/// The same of a state partition that is mounted elsewhere.
pub(crate) fn is_trial_noted(state: &Path) -> bool {
    let bytes = fs::read(state.join("updated/journal.json")).unwrap_or_default();
    Journal::parse(&bytes).0.trial.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_journal_is_set_aside_and_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let (path, lock) = (directory.path().join("journal.json"), directory.path().join("lock"));
        assert_eq!(load_from(&path, &lock).unwrap(), Journal::default());
        fs::write(&path, "{\"seed\": 7").unwrap();
        assert_eq!(load_from(&path, &lock).unwrap(), Journal::default());
        assert_eq!(fs::read(directory.path().join("journal.json.damaged")).unwrap(), b"{\"seed\": 7");
        let mut journal = Journal { seed: 7, ..Journal::default() };
        journal.tell(1, "something");
        fs::write(&path, journal.to_json()).unwrap();
        assert_eq!(load_from(&path, &lock).unwrap(), journal);
    }
}
