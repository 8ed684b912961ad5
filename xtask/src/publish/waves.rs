//! What operators write about a roll-out: `0h:1%,24h:10%,72h:100%`, and when it starts.

use anyhow::{Context, Result, bail, ensure};
use kontor_update::channel::Wave;

/// Reads waves.
///
/// # Errors
/// When they are none, or do not grow.
pub fn parse(text: &str) -> Result<Vec<Wave>> {
    let waves: Vec<Wave> = text
        .split(',')
        .map(|part| wave(part.trim()).with_context(|| format!("{part:?} is not of the form 24h:10%")))
        .collect::<Result<_>>()?;
    let grows = |pair: &[Wave]| pair[0].after_s < pair[1].after_s && pair[0].permille < pair[1].permille;
    ensure!(
        waves.windows(2).all(grows),
        "the waves {text:?} do not grow: each is later and larger than the one before"
    );
    Ok(waves)
}

fn wave(text: &str) -> Result<Wave> {
    let (after, share) = text.split_once(':').context("no colon")?;
    let unit = after.chars().last().context("no time")?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => bail!("a time ends with m, h or d"),
    };
    let count: u64 = after.trim_end_matches(unit).parse().context("no number of hours")?;
    let after_s = count.checked_mul(seconds).filter(|after| *after <= 3650 * 86_400).context("ten years")?;
    let percent = share.strip_suffix('%').context("a share ends with %")?;
    let (whole, tenth) = percent.split_once('.').unwrap_or((percent, "0"));
    ensure!(tenth.len() == 1, "a share has at most one decimal");
    let permille = whole.parse::<u16>()?.checked_mul(10).context("too large")? + tenth.parse::<u16>()?;
    ensure!((1..=1000).contains(&permille), "a share is at least 0.1% and at most 100%");
    Ok(Wave { after_s, permille })
}

/// Reads a time as RFC 3339 has it.
///
/// # Errors
/// When it is none, or before 1970.
pub fn time(text: &str) -> Result<u64> {
    let time: jiff::Timestamp =
        text.parse().with_context(|| format!("{text:?} is no time; one is 2026-12-01T08:00:00Z"))?;
    Ok(u64::try_from(time.as_second())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_read() {
        let waves = parse("0h:1%, 24h:12.5%,3d:100%").unwrap();
        let pairs: Vec<(u64, u16)> = waves.iter().map(|wave| (wave.after_s, wave.permille)).collect();
        assert_eq!(pairs, [(0, 10), (86_400, 125), (259_200, 1000)]);
        assert_eq!(time("2026-11-28T00:00:00Z").unwrap(), 1_795_824_000);
    }

    #[test]
    fn what_makes_no_sense_says_so() {
        for (text, expected) in [
            ("0h:10%,24h:5%", "do not grow"),
            ("24h:5%,0h:10%", "do not grow"),
            ("0h:0%", "at least 0.1%"),
            ("0h:101%", "at most 100%"),
            ("0:1%", "ends with m, h or d"),
            ("", "no colon"),
            ("1h:1", "ends with %"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(time("yesterday").is_err());
    }
}
