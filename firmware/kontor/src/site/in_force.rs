//! The site in force: the copy under /run that every daemon reads, and [`SiteStatus`] beside it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use kontor_config::Site;
use kontor_status::paths::Paths;
use kontor_status::{SiteOrigin, SiteStatus};
use kontor_sys::file::write_atomic;
use nix::fcntl::{Flock, FlockArg};

/// Keeps every other boot choice and load out until it is dropped: two consoles may load at once, and
/// the choice that follows a slow disk may meet a load.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "holding it is its use")] Flock<File>);

/// Waits for the others and keeps them out.
pub(super) fn lock(paths: &Paths) -> io::Result<Lock> {
    let path = paths.site().with_file_name("lock");
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // Whoever can open the file can hold the lock: no daemon may.
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let lock = Flock::lock(file, FlockArg::LockExclusive);
    lock.map(Lock).map_err(|(_, error)| error.into())
}

/// The status in force; the default one before the first boot choice, or when the file is damaged.
pub(super) fn status(paths: &Paths) -> SiteStatus {
    let text = fs::read(paths.site_status()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Puts a validated site in force. The revision grows only when the text changes.
///
/// `error` is the report of a newer file that was refused; without one, the report of a file refused
/// while this same site was in force stays.
pub(super) fn apply(
    paths: &Paths,
    text: &str,
    site: &Site,
    origin: SiteOrigin,
    error: Option<String>,
) -> io::Result<SiteStatus> {
    let before = status(paths);
    let same = fs::read_to_string(paths.site()).is_ok_and(|current| current == text);
    let status = SiteStatus {
        origin,
        office: site.office.name.clone(),
        revision: if same { before.revision } else { before.revision + 1 },
        error: error.or(before.error.filter(|_| same)),
    };
    if !same {
        write_atomic_in_new_directory(&paths.site(), text.as_bytes())?;
    }
    write_status(paths, &status)?;
    Ok(status)
}

/// Notes the report of a refused file; the site in force stays.
pub(super) fn refuse(paths: &Paths, report: &str) -> io::Result<()> {
    write_status(paths, &SiteStatus { error: Some(report.to_owned()), ..status(paths) })
}

/// Forgets the report of a refused file: a newer one has been accepted.
pub(super) fn clear_error(paths: &Paths) -> io::Result<SiteStatus> {
    let status = SiteStatus { error: None, ..status(paths) };
    write_status(paths, &status)?;
    Ok(status)
}

fn write_status(paths: &Paths, status: &SiteStatus) -> io::Result<()> {
    let json = serde_json::to_vec_pretty(status).map_err(io::Error::other)?;
    write_atomic_in_new_directory(&paths.site_status(), &json)
}

fn write_atomic_in_new_directory(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    write_atomic(path, content)
}
