//! Which site a boot begins with: the operator's file, else the last good one, else the default.
//!
//! Runs at once after power-on and again when storage has finished. A file with a mistake never stops a
//! boot and is never silently passed over: its report goes into the status. After the way back to an older release all newer files may be
//! such that it cannot read them: then the newest one of the history that it can read is in force.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use kontor_config::{Board, Site};
use kontor_status::paths::Paths;
use kontor_status::{SiteOrigin, SiteStatus};
use kontor_sys::watch::FileWatch;

use super::{copy, in_force, pending, store};

/// How long the office may wait for the disk. A healthy one takes a second or two; starting with the
/// wrong addresses would cost every PC of the office more than this.
const STORAGE_WAIT: Duration = Duration::from_secs(8);
/// How much longer when our disk has been found and is being brought up: a first boot makes the file
/// system and imports the seed, and only then knows the office's addresses.
const BRING_UP_WAIT: Duration = Duration::from_secs(40);

/// The last good site is in force although no file was refused: nobody may take it for the newest one.
const MISSING: &str = "error: the operator's site file is not on the state partition: the last good one is in force\n\
                       help: load the site file again\n";

/// A site that may be put in force.
struct Choice {
    text: String,
    site: Site,
    origin: SiteOrigin,
    error: Option<String>,
}

/// Waits for storage, chooses, and puts the choice in force.
pub(super) fn boot(paths: &Paths, board: &Board) -> anyhow::Result<SiteStatus> {
    wait_for_storage(paths)?;
    let _lock = in_force::lock(paths)?;
    let durable = store::is_durable(paths);
    kontor_sys::file::remove(&paths.site_from_disk())?;
    if durable {
        store_pending(paths, board);
    }
    if pending::take(paths).is_some() {
        // The operator has loaded a file since the last choice, and no disk has taken it: nothing is newer.
        return Ok(in_force::status(paths));
    }
    let mut choice = choose(paths, board)?;
    let before = in_force::status(paths);
    if choice.origin == SiteOrigin::Default && before.origin != SiteOrigin::Default {
        // The disk went while storage worked, or came back empty: the office keeps the addresses it has.
        let report = choice.error.unwrap_or_else(|| MISSING.to_owned());
        in_force::refuse(paths, &report)?;
        return Ok(in_force::status(paths));
    }
    if durable && choice.origin == SiteOrigin::LastGood {
        choice.error.get_or_insert_with(|| MISSING.to_owned());
    }
    let status = in_force::apply(paths, &choice.text, &choice.site, choice.origin, choice.error)?;
    if durable && choice.origin == SiteOrigin::File {
        // The site is in force either way; without these only the way back is missing.
        let stored = store::promote(paths, &choice.text)
            .and_then(|()| copy::write(paths, &choice.text))
            .and_then(|_| store::note_unrecorded(paths, &choice.text));
        if let Err(error) = stored {
            eprintln!("the last good site cannot be stored: {error}");
        }
    }
    if durable {
        // For PID 1: this choice was made with the disk.
        std::fs::File::create(paths.site_from_disk())?;
    }
    Ok(status)
}

fn wait_for_storage(paths: &Paths) -> io::Result<()> {
    let watch = FileWatch::new(&paths.storage_status())?;
    let reported = watch.wait_for_file(STORAGE_WAIT)?
        || paths.storage_disk().exists() && watch.wait_for_file(BRING_UP_WAIT)?;
    if !reported {
        eprintln!("storage has not reported in time: going on without it");
    }
    Ok(())
}

/// What was loaded before the disk appeared becomes the operator's file on it.
fn store_pending(paths: &Paths, board: &Board) {
    let Some((bytes, info)) = pending::take(paths) else { return };
    let Ok(text) = std::str::from_utf8(&bytes) else { return pending::discard(paths) };
    if Site::parse("pending.toml", text, board).is_err() {
        return pending::discard(paths);
    }
    match store::store(paths, text, &info) {
        Ok(number) => {
            eprintln!("the site file loaded earlier is now stored as number {number}");
            pending::discard(paths);
        }
        Err(error) => eprintln!("the site file loaded earlier cannot be stored yet: {error}"),
    }
}

fn choose(paths: &Paths, board: &Board) -> anyhow::Result<Choice> {
    let file = |path: PathBuf| (path.display().to_string(), store::read_bounded(&path));
    // Each is read only when those before it were of no use: a dying disk is asked as little as possible.
    let sources: [(SiteOrigin, &dyn Fn() -> Source); 4] = [
        (SiteOrigin::File, &|| file(paths.state_site())),
        (SiteOrigin::File, &|| file(paths.seed_site())),
        (SiteOrigin::LastGood, &|| file(paths.state_site_good())),
        (SiteOrigin::LastGood, &|| ("the copy in bootstate".to_owned(), Ok(copy::read(paths)))),
    ];
    let mut error = None;
    for (origin, read) in sources {
        match candidate(read(), board) {
            Ok(Some((text, site))) => return Ok(Choice { text, site, origin, error }),
            Ok(None) => {}
            // The operator's file is the one to mend; the report of an older copy would only confuse.
            Err(report) => error = error.or(Some(report)),
        }
    }
    if error.is_some()
        && let Some((text, site)) = from_history(paths, board)
    {
        return Ok(Choice { text, site, origin: SiteOrigin::LastGood, error });
    }
    let text = Site::default_text().to_owned();
    let site = Site::default_site(board).context("the default site does not fit this board")?;
    Ok(Choice { text, site, origin: SiteOrigin::Default, error })
}

/// The newest file that can be read; those before it are not even looked at.
fn from_history(paths: &Paths, board: &Board) -> Option<(String, Site)> {
    let numbers = store::numbers(paths).unwrap_or_default();
    numbers.iter().rev().find_map(|number| {
        let path = store::entry(paths, *number);
        candidate((path.display().to_string(), store::read_bounded(&path)), board).ok().flatten()
    })
}

/// Name of a stored file, and its bytes if it is there.
type Source = (String, io::Result<Option<Vec<u8>>>);

/// A stored file's text and site; nothing when there is none; the report when it is wrong.
fn candidate((name, bytes): Source, board: &Board) -> Result<Option<(String, Site)>, String> {
    let bytes = bytes.map_err(|error| format!("error: {name}: {error}\n"))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let site = Site::parse_bytes(&name, &bytes, board).map_err(|report| report.to_string())?;
    let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    Ok(Some((text, site)))
}
