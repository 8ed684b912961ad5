//! Which disks are checked, and which of them are booted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kontor_boot::PartitionKind;
use qemu_tests::block::picture::{Film, Projector};
use qemu_tests::block::trace::{Cut, Random};
use qemu_tests::block::variants::CutPoint;

use super::boots::EACH;
use super::check::{Checker, area, area_name};

/// So near to a change of the boot state there are more states than elsewhere.
const NEAR: usize = 6;
const TIMES: u64 = 4;
/// States of a disk that does not flush.
const LIES: usize = 200;

/// How a state is found again.
pub(super) fn name(number: usize, (position, cut): CutPoint, seed: u64) -> String {
    format!(
        "state {number} (KONTOR_CUT_SEED={seed} KONTOR_CUT_ONLY={number}): after {position} events, {cut:?}"
    )
}

/// Every position from the beginning on: all that was answered, only what was flushed, and as many torn ones as are needed.
pub(super) fn choose(film: &Film, begun_at: usize, at_least: u64, seed: u64) -> Vec<CutPoint> {
    let is_near = near(film);
    let is_open = |position: &usize| *position > 0 && film.written(position - 1).is_some();
    let open = (begun_at..=film.len()).filter(is_open).count() as u64;
    let certain = (film.len() - begun_at) as u64 + 1 + open;
    let torn = at_least.saturating_sub(certain).div_ceil(open.max(1)).max(1);
    let mut states = Vec::new();
    for position in begun_at..=film.len() {
        states.push((position, Cut::Prefix));
        if !is_open(&position) {
            continue;
        }
        states.push((position, Cut::Flushed));
        let count = if is_near(position) { torn * TIMES } else { torn };
        for number in 0..count {
            let seed =
                Random::new(seed.wrapping_mul(1 << 32) + ((position as u64) << 8) + number).below(u64::MAX);
            states.push((position, Cut::Torn { seed }));
        }
    }
    states
}

/// Whether the boot state is changed by one of the events around.
fn near(film: &Film) -> impl Fn(usize) -> bool {
    let is_change = |event: &usize| film.written(*event) == Some((area(PartitionKind::BootState), 0));
    let changes: Vec<usize> = (0..film.len()).filter(is_change).collect();
    move |position| changes.iter().any(|change| (change + 1).abs_diff(position) <= NEAR)
}

/// When the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Around a change of the boot state: a slot is invalidated, activated, tried, called good.
    Decision,
    /// The slot is written.
    Slot,
    /// Downloads and components are written.
    System,
    /// Leases, journal and the like are written.
    State,
    Other,
}

/// In which phase the power goes after so many events.
pub(super) fn phases(film: &Film) -> impl Fn(usize) -> Phase {
    let is_near = near(film);
    move |position| {
        let last = (0..position).rev().find_map(|event| film.written(event)).map(|(area, _)| area_name(area));
        match last {
            _ if is_near(position) => Phase::Decision,
            Some("slot-b") => Phase::Slot,
            Some("system") => Phase::System,
            Some("state") => Phase::State,
            _ => Phase::Other,
        }
    }
}

/// States for so many boots, of all phases.
pub(super) fn to_boot(states: &[CutPoint], film: &Film, boots: u64, seed: u64) -> Vec<usize> {
    use Phase::{Decision, Slot, State, System};
    const TURNS: [Phase; 8] = [Decision, Slot, Decision, System, Decision, Slot, System, State];
    let phase = phases(film);
    let mut groups: BTreeMap<Phase, Vec<usize>> = BTreeMap::new();
    for (number, (position, _)) in states.iter().enumerate() {
        groups.entry(phase(*position)).or_default().push(number);
    }
    let mut random = Random::new(seed);
    let mut chosen = BTreeSet::new();
    let wanted = usize::try_from(boots).unwrap_or(usize::MAX).div_ceil(EACH).min(states.len() / 2);
    for turn in TURNS.into_iter().cycle().take(states.len()) {
        if chosen.len() == wanted {
            break;
        }
        if let Some(group) = groups.get(&turn) {
            chosen.insert(group[random.below(group.len() as u64) as usize]);
        }
    }
    chosen.into_iter().collect()
}

/// Checks them, and says what they were.
pub(super) fn check_all(
    film: &Film,
    states: &[CutPoint],
    only: Option<usize>,
    seed: u64,
    checker: &Checker,
) -> Result<()> {
    let begun = Instant::now();
    let mut projector = Projector::new(film);
    let (mut kinds, mut verdicts) = (BTreeMap::new(), BTreeMap::new());
    for (number, (position, cut)) in states.iter().enumerate() {
        if only.is_some_and(|only| only != number) {
            continue;
        }
        let picture = projector.cut(*position, *cut);
        let verdict = checker
            .check(film, &picture, *position)
            .with_context(|| name(number, (*position, *cut), seed))?;
        let last = position.checked_sub(1).and_then(|event| film.written(event));
        let kind = match cut {
            Cut::Prefix => "everything answered",
            Cut::Flushed => "only what was flushed",
            Cut::Torn { .. } => "torn",
        };
        *kinds.entry((last.map_or("a flush", |(area, _)| area_name(area)), kind)).or_insert(0) += 1;
        *verdicts.entry(verdict).or_insert(0) += 1;
    }
    let (count, all): (i32, _) = (kinds.values().sum(), states.len());
    println!(
        "{count} of {all} states checked in {} s, seed {seed}: all boot, nothing lost, nothing mixed",
        begun.elapsed().as_secs()
    );
    for ((last, kind), count) in kinds {
        println!("  cut after {last}, {kind}: {count}");
    }
    for (verdict, count) in verdicts {
        println!("  {verdict:?}: {count}");
    }
    Ok(())
}

/// The proof that the checks see something: a disk that only says that it has flushed must be found out.
pub(super) fn check_liar(film: &Film, begun_at: usize, seed: u64, checker: &Checker) -> Result<()> {
    let mut projector = Projector::of_a_liar(film, begun_at);
    let (mut refused, mut reasons) = (0, BTreeMap::new());
    for number in 0..LIES {
        let position = begun_at + (film.len() - begun_at) * number / LIES;
        let cut = Cut::Torn { seed: seed.wrapping_add(number as u64) };
        if let Err(error) = checker.check(film, &projector.cut(position, cut), position) {
            refused += 1;
            let words = format!("{error:#}");
            let reason = words.split(|c: char| c.is_ascii_digit() || c == '{').next().unwrap_or_default();
            *reasons.entry(reason.to_owned()).or_insert(0) += 1;
        }
    }
    println!("a disk that does not flush: {refused} of {LIES} states refused");
    for (reason, count) in reasons {
        println!("  {reason}…: {count}");
    }
    ensure!(
        refused > LIES / 2,
        "the checks are blind: only {refused} of {LIES} states of a disk that does not flush are refused"
    );
    Ok(())
}
