//! Daemons start before the office's site is chosen, so that their own start costs the office nothing; here they wait.

use std::time::Duration;

use kontor_status::paths::Paths;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use kontor_sys::watch::FileWatch;
use nix::sys::signal::Signal;

/// How long the site file is waited for between two signs of life, and between two looks for a signal.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Waits until there is a site file; false when told to stop meanwhile.
///
/// # Errors
/// The kernel's, when the file cannot be watched.
pub(crate) fn wait(paths: &Paths, signals: &mut Signals, notifier: &Notifier) -> anyhow::Result<bool> {
    let watch = FileWatch::new(&paths.site())?;
    while !watch.wait_for_file(SIGN_OF_LIFE)? {
        notifier.watchdog();
        notifier.status("waiting for the site file");
        if signals.any(|signal| signal != Signal::SIGHUP) {
            return Ok(false);
        }
    }
    Ok(true)
}
