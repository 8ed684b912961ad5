//! A component on the box: a service of PID 1, from its image on the `system` partition, with its state on `data`.
//!
//! One that the site file has no table for ends at once, and well: PID 1 starts it again when the site changes.

use std::path::Path;

use anyhow::{Context, ensure};
use kontor_component::{SHIPPED_DIRECTORY, Shipped};
use kontor_status::paths::{self, Paths};
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use nix::sys::signal::Signal;

use super::image::{Image, Root};
use super::outside::{self, Follow};
use super::{Places, office};
use crate::site::wait;
use crate::storage::{SYSTEM, is_mounted};

/// Below [`paths::DATA`]: what components keep, each in a directory of its own.
const DATA: &str = "component";

/// Runs the component of this name as the box has it, until SIGTERM or until there is nothing for it to do.
pub(super) fn run(name: &str) -> anyhow::Result<()> {
    let shipped = shipped(name)?;
    let paths = Paths::default();
    let mut signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    let notifier = Notifier::from_environment();
    if !wait::wait(&paths, &mut signals, &notifier)? {
        return Ok(());
    }
    let places = places(&shipped, &paths);
    if office::Office::of(&places)?.is_none() {
        notifier.status(&format!("off: the site file has no [{name}]"));
        return Ok(());
    }
    for (partition, mount_point) in [("system", SYSTEM), ("data", paths::DATA)] {
        ensure!(
            is_mounted(mount_point),
            "there is no {partition} partition, and {name} cannot be without it; `status` says what is wrong with the disk"
        );
    }
    notifier.status("looking at its image");
    outside::run(&places, Follow::Site)
}

/// A component of the release that runs.
///
/// # Errors
/// When it has none of that name.
pub(super) fn shipped(name: &str) -> anyhow::Result<Shipped> {
    let path = Path::new(SHIPPED_DIRECTORY).join(format!("{name}.toml"));
    let text = std::fs::read_to_string(&path);
    let text = text.with_context(|| format!("this release has no component {name} ({})", path.display()))?;
    Shipped::parse(&text).with_context(|| path.display().to_string())
}

/// Where the things of a component of this box are.
///
/// # Errors
/// When it has none of that name.
pub(super) fn places_of(name: &str) -> anyhow::Result<Places> {
    Ok(places(&shipped(name)?, &Paths::default()))
}

fn places(shipped: &Shipped, paths: &Paths) -> Places {
    let name = &shipped.manifest.name;
    Places {
        name: name.clone(),
        root: Root::Image(Image {
            path: Path::new(SYSTEM).join(shipped.seal.path()),
            seal: shipped.seal.clone(),
        }),
        state: Path::new(paths::DATA).join(DATA).join(name),
        run: run_directory(name),
        site: paths.site(),
        board: paths.board.clone(),
        join: Some(Path::new(paths::STATE_SECRETS).join(format!("{name}-join"))),
    }
}

/// Where a component of the box says how it is doing.
pub(super) fn run_directory(name: &str) -> std::path::PathBuf {
    Path::new(paths::RUN).join(name)
}
