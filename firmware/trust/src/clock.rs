//! What the clock must fulfil before anything that expires is looked at.
//!
//! A clock that is set back makes old metadata valid again. Clocks of boxes are also corrected by honest servers, by seconds each
//! day, or by hours when a clock chip keeps local time: that must not stop updates.

use crate::error::TrustError;

/// How far the clock may be behind a time that has been: a clock chip in local time is up to 14 hours wrong.
pub const SLACK_S: u64 = 86_400;

/// The time, and what is known of it. All in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// What the clock says.
    pub now: u64,
    /// The day on which the running release was built: no clock is right that is before it.
    pub floor: u64,
}

impl Clock {
    /// The time that decides what has expired: a time that has been is not undone by a clock that is a little behind.
    pub(crate) fn checked(self, seen: u64) -> Result<u64, TrustError> {
        let Self { now, floor } = self;
        if now < floor {
            return Err(TrustError::ClockBeforeBuild { now, floor });
        }
        if now.saturating_add(SLACK_S) < seen {
            return Err(TrustError::ClockSetBack { now, seen });
        }
        Ok(now.max(seen))
    }
}

/// For people, to the minute.
pub(crate) fn date(seconds: u64) -> String {
    // Civil calendar from days, years beginning in March (Howard Hinnant's algorithm); beyond year 9999 it is nonsense anyway.
    let seconds = seconds.min(253_402_300_799);
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_795_858_020), "2026-11-28 09:27 UTC");
        assert_eq!(date(u64::MAX), "9999-12-31 23:59 UTC");
    }

    #[test]
    fn a_small_correction_is_no_attack_and_undoes_no_time() {
        let at = |now| Clock { now, floor: 1_000_000 }.checked(2_000_000);
        assert_eq!(at(2_000_001), Ok(2_000_001));
        assert_eq!(at(2_000_000 - SLACK_S), Ok(2_000_000));
        let late = 2_000_000 - SLACK_S - 1;
        assert_eq!(at(late), Err(TrustError::ClockSetBack { now: late, seen: 2_000_000 }));
        assert_eq!(at(999_999), Err(TrustError::ClockBeforeBuild { now: 999_999, floor: 1_000_000 }));
    }
}
