//! `bench boot`: from the start of the kernel to the first DHCP ACK on the LAN (`docs/benchmarks.md`).

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use super::guest::{Direct, Guest, Setup, seconds};
use super::ours::{BOOT_LIMIT, Ours};
use super::report::OURS;
use super::systemd::Systemd;
use super::{Report, Subject, Summary, floor, run as run_subjects};
use crate::command::bench::Common;
use crate::scratch::{self, Claim};
use crate::workspace::Workspace;

/// Folders of running benchmarks, in target/images.
const PREFIX: &str = "bench-";
/// The floor boots nothing.
const FLOOR_LIMIT: Duration = Duration::from_secs(120);

/// Measures.
///
/// # Errors
/// When a subject cannot be built or does not come up.
pub fn run(common: &Common) -> Result<Report> {
    let (folder, _claim) = folder()?;
    let folder = Utf8Path::from_path(folder.path()).context("the target folder's path is not UTF-8")?;
    let ours = Ours::prepare(folder, &common.fetch)?;
    let peer = Systemd::prepare(folder, &common.fetch)?;
    let floor_initrd = folder.join("floor.cpio");
    floor::write_initramfs(&floor_initrd)?;
    let least_initrd = folder.join("least.cpio");
    floor::write_least(&ours, &least_initrd)?;
    let power_on = RefCell::new(Vec::new());
    let subjects = vec![
        Subject::new(OURS, |_| lease(&ours, &ours.direct_setup())),
        Subject::new("floor", |_| switched_off(&ours, floor_initrd.clone())),
        Subject::new("least", |_| switched_off(&ours, least_initrd.clone())),
        Subject::new("systemd", |_| lease(&ours, &peer.direct_setup())),
        Subject::new("grub", |_| {
            let value = from_power_on(&ours)?;
            power_on.borrow_mut().push(value);
            Ok(value)
        }),
    ];
    let mut samples = run_subjects(common.rounds, "s", subjects)?;
    samples.remove("grub");
    let mut report = Report::new("boot", "s", &samples)?;
    let summary = Summary::of(&power_on.borrow()).context("no boots from power-on")?;
    report.detail.insert("ours_from_power_on_by_grub".into(), serde_json::to_value(summary)?);
    Ok(report)
}

/// A folder for the disks of one run; what an interrupted one left goes.
///
/// # Errors
/// When it cannot be made.
pub fn folder() -> Result<(tempfile::TempDir, Claim)> {
    let images = Workspace::locate().images();
    std::fs::create_dir_all(&images).with_context(|| format!("cannot create {images}"))?;
    scratch::sweep(&images, PREFIX);
    scratch::directory(&images, PREFIX)
}

/// From the start of the kernel to the first ACK.
fn lease(ours: &Ours, setup: &Setup) -> Result<f64> {
    let mut guest = Guest::start(&ours.tools, ours.accel, setup)?;
    guest.run_until("the first lease", BOOT_LIMIT, |guest| guest.leased.is_some())?;
    seconds(guest.handover, guest.leased)
}

/// From the start of the kernel to the power switch.
fn switched_off(ours: &Ours, initrd: Utf8PathBuf) -> Result<f64> {
    let direct = Some(Direct { initrd, ..ours.direct.clone() });
    let mut guest = Guest::start(&ours.tools, ours.accel, &Setup { direct, ..ours.setup() })?;
    guest.run_until("power-off", FLOOR_LIMIT, |guest| guest.off.is_some())?;
    seconds(guest.handover, guest.off)
}

/// From power-on by GRUB to the first ACK.
fn from_power_on(ours: &Ours) -> Result<f64> {
    let mut guest = Guest::start(&ours.tools, ours.accel, &ours.setup())?;
    guest.run_until("the first lease", BOOT_LIMIT, |guest| guest.leased.is_some())?;
    seconds(Some(guest.power_on), guest.leased)
}
