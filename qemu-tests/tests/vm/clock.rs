//! Clock chips that are dead, or wrong by decades, with and without a time server on the Internet.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use qemu_tests::{BoxOptions, World};

use crate::scene::{BACK_LIMIT, Scene};

/// What the Internet's time server says: far enough from both build day and clock chip to be told apart.
const TRUE_TIME: u64 = 1_900_000_000; // 2030-03-17
const DAY: u64 = 86_400;
const POWER_OFF_LIMIT: Duration = Duration::from_secs(90);

fn open(world: &mut World, clock_chip: &'static str) -> Result<Scene> {
    Scene::open(world, BoxOptions { clock_chip: Some(clock_chip), ..BoxOptions::default() })
}

/// Seconds since 1970, as the box sees it.
fn clock(scene: &Scene, world: &mut World) -> Result<u64> {
    number(&scene.shell(world, "date -u +%s")?)
}

fn number(text: &str) -> Result<u64> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("not a number: {text}"))
}

fn day_of_the_build(scene: &Scene, world: &mut World) -> Result<u64> {
    number(&scene.shell(world, "grep epoch-s /usr/share/kontor/release.toml")?)
}

/// The provider announces a time server from now on, and the box asks for its lease again.
fn turn_on_time(scene: &Scene, world: &mut World) -> Result<()> {
    let isp = world.isp(scene.office.isp);
    isp.time.enabled = true;
    isp.time.set(UNIX_EPOCH + Duration::from_secs(TRUE_TIME));
    isp.dhcp.pool.time_server = Some(isp.options.name_server);
    scene.shell(world, "kontor ctl restart netd")?;
    world.eventually(BACK_LIMIT, |world| {
        let time = clock(scene, world)?;
        ensure!((TRUE_TIME..TRUE_TIME + DAY).contains(&time), "the clock says {time}");
        ensure!(world.isp(scene.office.isp).time.answers > 0, "nobody asked for the time");
        Ok(())
    })
}

/// The box begins with the day of its build, serves, and takes the time as soon as somebody tells it; after a
/// reboot without a time server it still knows.
fn corrected_and_kept(world: &mut World, clock_chip: &'static str) -> Result<()> {
    let scene = open(world, clock_chip)?;
    let built = day_of_the_build(&scene, world)?;
    let time = clock(&scene, world)?;
    ensure!((built..built + DAY).contains(&time), "built at {built}, the clock says {time}");
    scene.still_serves(world)?;

    turn_on_time(&scene, world)?;
    scene.still_serves(world).context("after the clock was set")?;

    let isp = world.isp(scene.office.isp);
    (isp.time.enabled, isp.dhcp.pool.time_server) = (false, None);
    scene.office.power_off_in_order(world, POWER_OFF_LIMIT)?;
    world.power_on(scene.office.gateway)?;
    world.wait_until_ready(scene.office.gateway)?;
    scene.enter_shell(world)?;
    // The office does not wait for the disk, where the time is kept.
    scene.office.wait_until_durable_in_shell(world)?;
    let time = clock(&scene, world)?;
    ensure!((TRUE_TIME..TRUE_TIME + DAY).contains(&time), "after a restart the clock says {time}");
    scene.office.ensure_lease_is_known(world)
}

pub(crate) fn at_1970(world: &mut World) -> Result<()> {
    corrected_and_kept(world, "1970-01-01T00:00:00")
}

pub(crate) fn at_2099(world: &mut World) -> Result<()> {
    corrected_and_kept(world, "2099-06-01T00:00:00")
}

/// 2035 may be true. But when the chip is right again the box must not insist on what it once said.
pub(crate) fn from_the_future(world: &mut World) -> Result<()> {
    const YEAR_2035: u64 = 2_051_222_400;
    let scene = open(world, "2035-01-01T00:00:00")?;
    let time = clock(&scene, world)?;
    ensure!((YEAR_2035..YEAR_2035 + DAY).contains(&time), "the clock says {time}");
    scene.office.power_off_in_order(world, POWER_OFF_LIMIT)?;
    world.vm(scene.office.gateway).clock_chip = Some("2028-01-01T00:00:00");
    world.power_on(scene.office.gateway)?;
    world.wait_until_ready(scene.office.gateway)?;
    scene.enter_shell(world)?;
    scene.office.wait_until_durable_in_shell(world)?;
    let time = clock(&scene, world)?;
    const YEAR_2028: u64 = 1_830_297_600;
    ensure!((YEAR_2028..YEAR_2028 + DAY).contains(&time), "the clock says {time}");
    scene.office.ensure_lease_is_known(world)
}
