//! Updates over bad lines: what has come is never fetched again, and what failed is tried again soon.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kontor_update::release::Form;
use qemu_tests::World;
use qemu_tests::line::{Cuts, LineOptions};
use qemu_tests::release::Draft;

use crate::update::{TRIAL_LIMIT, UPDATE_LIMIT, Updated};

/// `KONTOR_SLOW_LINE=1`: 1 Mbit/s, cut every 30 s. That takes its time, so by default the line is faster, and cut more often.
const SLOW_LINE: &str = "KONTOR_SLOW_LINE";
const SLOW_LIMIT: Duration = Duration::from_secs(3600);
/// What a cut may cost: what was in the queue of the line, and asking again.
const LOST_BY_A_CUT: u64 = 512 << 10;
/// Metadata, names, time.
const BESIDE_THE_OBJECTS: u64 = 1 << 20;
/// Lost by a power cut: `SYNC_EVERY` of the downloader, and what it had just read.
const LOST_BY_A_POWER_CUT: u64 = 5 << 20;
/// It looks again within two minutes, of a machine that is emulated.
const AGAIN_LIMIT: Duration = Duration::from_secs(240);

fn line() -> (LineOptions, Duration) {
    let seconds = Duration::from_secs;
    if std::env::var_os(SLOW_LINE).is_some() {
        let cuts = Cuts::Every { period: seconds(30), silence: seconds(3) };
        return (LineOptions { kbit_s: 1000, cuts }, SLOW_LIMIT);
    }
    let cuts = Cuts::Every { period: seconds(5), silence: seconds(1) };
    (LineOptions { kbit_s: 24_000, cuts }, UPDATE_LIMIT)
}

/// A release that has to be fetched whole, and the bytes of its slot.
fn whole(updated: &Updated) -> Result<(Draft, String, u64)> {
    let mut draft = updated.draft("0.2.0")?;
    draft.release.slot.forms.retain(|form| matches!(form, Form::Full(_)));
    let object = draft.release.slot.full().context("no full form")?;
    let (path, bytes) = (format!("/kontor/objects/{}", object.sha256), object.bytes);
    Ok((draft, path, bytes))
}

/// First bytes asked for, of each object.
fn asked(world: &mut World, updated: &Updated) -> BTreeMap<String, Vec<u64>> {
    let mut asked: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in &world.isp(updated.office.isp).web.requests {
        if request.path.starts_with("/kontor/objects/") {
            asked.entry(request.path.clone()).or_default().push(request.from);
        }
    }
    asked
}

/// Only the release's slot is fetched, and each request goes on behind the one before.
fn ensure_nothing_twice(world: &mut World, updated: &Updated, path: &str) -> Result<Vec<u64>> {
    let mut asked = asked(world, updated);
    let from = asked.remove(path).with_context(|| format!("{path} was never asked for: {asked:?}"))?;
    ensure!(asked.is_empty(), "more was fetched than the slot: {asked:?}");
    // A connection that is cut before its first byte came is asked for again from the same place.
    ensure!(from.first() == Some(&0) && from.is_sorted(), "it goes back: {from:?}");
    Ok(from)
}

fn delivered(world: &mut World, updated: &Updated) -> Result<(u64, u32)> {
    let line = world.isp(updated.office.isp).line().context("no line")?;
    Ok((line.delivered(), line.cuts()))
}

pub(crate) fn drops(world: &mut World) -> Result<()> {
    let updated = Updated::open(world)?;
    let (draft, path, bytes) = whole(&updated)?;
    updated.publish(&draft)?;
    let (options, limit) = line();
    world.isp(updated.office.isp).set_line(options);
    let start = Instant::now();
    world.run(updated.office.gateway, "update check")?;
    updated.wait_for(world, "update", "is fetched", limit)?;
    let took = start.elapsed();

    let (delivered, cuts) = delivered(world, &updated)?;
    let from = ensure_nothing_twice(world, &updated, &path)?;
    println!(
        "line: {bytes} bytes at {} kbit/s in {} s; {cuts} cuts, {} connections, {delivered} bytes \
         of frames delivered",
        options.kbit_s,
        took.as_secs(),
        from.len()
    );
    ensure!(cuts >= 3 && from.len() >= 3, "the line was not cut while it mattered: {cuts} cuts, {from:?}");
    // 1460 of 1514 bytes of a frame are the object's.
    let most = bytes * 1514 / 1460 + u64::from(cuts) * LOST_BY_A_CUT + BESIDE_THE_OBJECTS;
    ensure!(delivered <= most, "{delivered} bytes for {bytes}, more than {most}: {from:?}");

    if let Err(error) = world.wait_for_line(updated.office.gateway, "going down (Reboot)", UPDATE_LIMIT) {
        let story = world.run(updated.office.gateway, "update")?;
        return Err(error.context(format!("it is fetched, and not installed:\n{story}")));
    }
    world.wait_for_line(updated.office.gateway, "kontor: gateway ready", UPDATE_LIMIT)?;
    world.log_in(updated.office.gateway)?;
    let story = updated.wait_for(world, "update", "0.2.0 runs; everything that worked", TRIAL_LIMIT)?;
    println!("{story}");
    Ok(())
}

/// The line is down when it looks; later the power goes when half has come.
pub(crate) fn second_attempt(world: &mut World) -> Result<()> {
    let updated = Updated::open(world)?;
    let (draft, path, bytes) = whole(&updated)?;
    updated.publish(&draft)?;
    let (isp, gateway) = (updated.office.isp, updated.office.gateway);
    world.isp(isp).set_line(LineOptions { kbit_s: 24_000, cuts: Cuts::Always });
    world.run(gateway, "update check")?;
    let story = updated.wait_for(world, "update", "Last ", UPDATE_LIMIT)?;
    println!("without a line:\n{story}");
    let soon = ["Next look  in 1 min", "Next look  in 2 min"].iter().any(|next| story.contains(next));
    ensure!(soon && story.contains("nothing is under way"), "it is not said when it looks again: {story}");

    world.isp(isp).set_line(LineOptions { kbit_s: 24_000, cuts: Cuts::Never });
    let start = Instant::now();
    world.wait_for("a download nobody asked for", AGAIN_LIMIT, |world| {
        let (delivered, _) = delivered(world, &updated)?;
        Ok((delivered > bytes / 2).then_some(()))
    })?;
    println!("half of it has come {} s after the line was back; power cut", start.elapsed().as_secs());
    world.vm(gateway).power_cut()?;
    let before = asked(world, &updated).remove(&path).map_or(0, |from| from.len());
    world.isp(isp).set_line(LineOptions { kbit_s: 24_000, cuts: Cuts::Never });
    world.power_on(gateway)?;
    world.wait_until_ready(gateway)?;
    world.log_in(gateway)?;
    world.eventually(TRIAL_LIMIT, |world| {
        world.run(gateway, "update check")?;
        let fetched = asked(world, &updated).remove(&path).map_or(0, |from| from.len());
        ensure!(fetched > before, "the second attempt has not asked for the rest");
        Ok(())
    })?;
    updated.wait_for(world, "update", "is fetched", UPDATE_LIMIT)?;
    let from = ensure_nothing_twice(world, &updated, &path)?;
    let (delivered, _) = delivered(world, &updated)?;
    println!("second attempt: from {from:?} of {bytes}, {delivered} bytes of frames delivered");
    let had = from.last().copied().unwrap_or(0);
    ensure!(had + LOST_BY_A_POWER_CUT >= bytes / 2, "what had come is not used: {from:?} of {bytes}");
    let most = (bytes - had) * 1514 / 1460 + BESIDE_THE_OBJECTS;
    ensure!(delivered <= most, "{delivered} bytes for the last {} of {bytes}", bytes - had);
    Ok(())
}
