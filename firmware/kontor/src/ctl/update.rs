//! Releases as text: what runs, what is on its way, what happened.

use std::time::{Duration, UNIX_EPOCH};

use kontor_status::UpdateStatus;

use super::snapshot::Snapshot;
use super::table::plain;
use crate::calendar::utc;
use crate::init::now;

/// `kontor ctl update`.
pub(super) fn show(snapshot: &Snapshot) -> String {
    match &snapshot.update {
        Some(update) => text(update, now()),
        None => "updated has not reported yet\n".to_owned(),
    }
}

fn text(update: &UpdateStatus, now: Duration) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| text.push_str(&format!("  {label:<11}{}\n", plain(value)));
    let keys = if update.development { ", which trusts DEVELOPMENT KEYS: not for offices" } else { "" };
    line("Running", &format!("{}{keys}", update.running));
    if let Some(state) = &update.state {
        line("State", state);
    }
    match (&update.repository, &update.channel) {
        (Some(repository), Some(channel)) => line("From", &format!("{repository}, channel {channel}")),
        _ => line("From", "nowhere: the site file has no [update]; `update from stick` takes a stick"),
    }
    line("Now", &format!("{}{}", update.phase, progress(update.progress)));
    if let Some(outcome) = &update.outcome {
        line("Last", outcome);
    }
    line("Looked", &update.looked_at.map_or_else(|| "not since the start".to_owned(), date));
    if let Some(at) = update.looks_at_s {
        line("Next look", &until(Duration::from_secs(at).saturating_sub(now)));
    }
    match (&update.centre, &update.not_told) {
        (Some(centre), None) => line("Centre", centre),
        (Some(centre), Some(problem)) => line("Centre", &format!("{centre} was not told: {problem}")),
        (None, _) => {}
    }
    for warning in &update.warnings {
        line("Warning", warning);
    }
    for (version, reason) in &update.failed {
        line("Failed", &format!("{version}: {reason}"));
    }
    for (at, what) in &update.story {
        text.push_str(&format!("  {}  {}\n", date(*at), plain(what)));
    }
    text
}

fn progress(progress: Option<(u64, u64)>) -> String {
    let mib = |bytes: u64| bytes >> 20;
    match progress {
        Some((bytes, of)) if of > 0 => {
            format!(", {} of {} MiB, {} %", mib(bytes), mib(of), bytes.min(of).saturating_mul(100) / of)
        }
        _ => String::new(),
    }
}

fn until(left: Duration) -> String {
    match left.as_secs().div_ceil(60) {
        0 => "now".to_owned(),
        minutes @ 1..=119 => format!("in {minutes} min"),
        minutes => format!("in {} h", minutes.div_ceil(60)),
    }
}

fn date(at: u64) -> String {
    utc(UNIX_EPOCH + Duration::from_secs(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_is_told() {
        let update = UpdateStatus {
            running: "0.1.0".into(),
            development: true,
            state: Some("schema 1; this release reads 1 to 2".into()),
            repository: Some("http://203.0.113.1/kontor".into()),
            channel: Some("stable".into()),
            centre: Some("https://centre.example.net/check-in".into()),
            not_told: Some("the server answers with status 500".into()),
            phase: "fetching 0.2.0".into(),
            version: Some("0.2.0".into()),
            progress: Some((10 << 20, 40 << 20)),
            looked_at: Some(1_795_824_000),
            looks_at_s: Some(700),
            outcome: Some("0.2.0 is there".into()),
            warnings: vec!["the metadata expires soon\u{1b}[2J".into()],
            failed: vec![("0.1.9".into(), "names are not answered".into())],
            story: vec![(1_795_824_000, "0.2.0 is there, fetching it".into())],
        };
        insta::assert_snapshot!(text(&update, Duration::from_secs(580)));
        let nothing = UpdateStatus {
            running: "0.1.0".into(),
            phase: "nothing is under way".into(),
            ..UpdateStatus::default()
        };
        insta::assert_snapshot!(text(&nothing, Duration::ZERO));
        let long = [0, 1, 60, 61, 7140, 7141, 20_000].map(|seconds| until(Duration::from_secs(seconds)));
        assert_eq!(long, ["now", "in 1 min", "in 1 min", "in 2 min", "in 119 min", "in 2 h", "in 6 h"]);
        assert_eq!(show(&Snapshot::default()), "updated has not reported yet\n");
    }
}
