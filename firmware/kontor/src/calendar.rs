//! UTC dates for people.

use std::time::{SystemTime, UNIX_EPOCH};

/// RFC 3339 in UTC, to the second. A clock before 1970 (no RTC) shows as 1970.
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Gregorian date of a day since 1970-01-01. Years begin in March, so that leap days come last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(seconds: u64, expect: &str) {
        assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expect);
    }

    #[test]
    fn known_dates() {
        check(0, "1970-01-01T00:00:00Z");
        check(1_709_164_799, "2024-02-28T23:59:59Z");
        check(1_709_164_800, "2024-02-29T00:00:00Z");
        check(1_795_284_245, "2026-11-21T18:04:05Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        check(1_795_284_189, "2026-11-21T18:03:09Z");
    }
}
