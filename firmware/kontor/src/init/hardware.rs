//! The hardware watchdog and the power button, as they come and go.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kontor_sys::input::PowerButton;
use kontor_sys::watchdog::Watchdog;

use super::kmsg;

/// Feeding and looking for new devices happen at this pace.
pub(super) const TICK: Duration = Duration::from_secs(5);
/// While drivers are still being loaded.
pub(super) const EARLY_TICK: Duration = Duration::from_secs(1);
/// Twelve missed feedings; long enough for a slow shutdown step, short enough for an office.
const WATCHDOG_TIMEOUT_S: u16 = 60;
const WATCHDOG_DEVICE: &str = "/dev/watchdog0";

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Hardware {
    watchdog: Option<Watchdog>,
    buttons: Vec<(PathBuf, PowerButton)>,
    /// Input devices that could not be opened; not tried again.
    useless: Vec<PathBuf>,
}

impl Hardware {
    /// Opens what has appeared, and feeds the watchdog unless told not to.
    pub(super) fn tick(&mut self, feed: bool) {
        if self.watchdog.is_none() && Path::new(WATCHDOG_DEVICE).exists() {
            match Watchdog::arm(Path::new(WATCHDOG_DEVICE), WATCHDOG_TIMEOUT_S) {
                Ok(watchdog) => {
                    kmsg::info("hardware watchdog armed");
                    self.watchdog = Some(watchdog);
                }
                Err(error) => kmsg::error(&format!("cannot arm the watchdog: {error}")),
            }
        }
        if feed
            && let Some(watchdog) = &mut self.watchdog
            && let Err(error) = watchdog.feed()
        {
            kmsg::error(&format!("cannot feed the watchdog: {error}"));
        }
        self.find_buttons();
    }

    fn find_buttons(&mut self) {
        let Ok(entries) = fs::read_dir("/dev/input") else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_event = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("event"));
            let known = self.buttons.iter().any(|(open, _)| *open == path) || self.useless.contains(&path);
            if !is_event || known {
                continue;
            }
            match PowerButton::open(&path) {
                Ok(button) => self.buttons.push((path, button)),
                Err(_) => self.useless.push(path),
            }
        }
    }

    /// What to poll for reading.
    pub(super) fn interests(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.buttons.iter().map(|(_, button)| button.as_fd())
    }

    /// Whether the power button was pressed.
    pub(super) fn power_pressed(&mut self) -> bool {
        let mut pressed = false;
        self.buttons.retain_mut(|(_, button)| match button.pressed() {
            Ok(now) => {
                pressed |= now;
                true
            }
            Err(_) => false,
        });
        pressed
    }

    /// Before the machine goes down in order.
    pub(super) fn disarm(&mut self) {
        if let Some(watchdog) = self.watchdog.take()
            && let Err(error) = watchdog.disarm()
        {
            kmsg::error(&format!("cannot stop the watchdog: {error}"));
        }
    }
}
