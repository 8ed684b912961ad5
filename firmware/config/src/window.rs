//! The maintenance window: when a box may restart by itself. Days and times are UTC: a box knows no time zones.

use std::fmt;
use std::str::FromStr;

const DAY_S: u64 = 86_400;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// 1970-01-01 was a Thursday.
const FIRST_DAY: u64 = 3;

/// From one time of day to another, on some days of the week; it may cross midnight, and then belongs to the day on which
/// it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Whether it begins on Monday, Tuesday, …
    days: [bool; 7],
    from_s: u64,
    length_s: u64,
}

impl Default for Window {
    /// Every night from 1 to 4 o'clock: 2 to 5 in the winter of Central Europe, 3 to 6 in its summer.
    fn default() -> Self {
        Self { days: [true; 7], from_s: 3600, length_s: 3 * 3600 }
    }
}

/// A text that is no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowError;

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a window is `[DAYS ]HH:MM-HH:MM`, as `01:00-04:00` or `mon,tue,sat 22:30-02:00`, at least half an hour")
    }
}

impl std::error::Error for WindowError {}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let (days, times) = match text.split_once(' ') {
            Some((days, times)) => (days.split(',').map(day).collect::<Option<Vec<_>>>(), times),
            None => (Some((0..7).collect()), text),
        };
        let (from, to) = times.split_once('-').ok_or(WindowError)?;
        let (from_s, to_s) = (time(from).ok_or(WindowError)?, time(to).ok_or(WindowError)?);
        let length_s = (to_s + DAY_S - from_s) % DAY_S;
        if length_s < 1800 {
            return Err(WindowError);
        }
        let mut window = Self { days: [false; 7], from_s, length_s };
        for day in days.ok_or(WindowError)? {
            window.days[day] = true;
        }
        Ok(window)
    }
}

fn day(text: &str) -> Option<usize> {
    DAYS.iter().position(|day| *day == text)
}

/// `HH:MM` in seconds.
fn time(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, limit: u64| -> Option<u64> {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| plain && *number < limit)
    };
    Some(number(hours, 24)? * 3600 + number(minutes, 60)? * 60)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |seconds: u64| format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60);
        if self.days != [true; 7] {
            let days: Vec<&str> =
                DAYS.iter().zip(self.days).filter_map(|(day, is)| is.then_some(*day)).collect();
            write!(f, "{} ", days.join(","))?;
        }
        write!(f, "{}-{}", clock(self.from_s), clock(self.from_s + self.length_s))
    }
}

impl Window {
    /// Whether it is open at this time, in seconds since 1970.
    #[must_use]
    pub fn is_open(&self, now: u64) -> bool {
        self.left_s(now) > 0
    }

    /// Seconds until it closes; 0 when it is closed.
    #[must_use]
    pub fn left_s(&self, now: u64) -> u64 {
        // The one that began today, or yesterday.
        [0, 1]
            .into_iter()
            .filter_map(|ago| {
                let day = (now / DAY_S).checked_sub(ago)?;
                let begins_at = day * DAY_S + self.from_s;
                let is_its_day = self.days[usize::try_from((day + FIRST_DAY) % 7).ok()?];
                let gone = now.checked_sub(begins_at)?;
                (is_its_day && gone < self.length_s).then(|| self.length_s - gone)
            })
            .max()
            .unwrap_or(0)
    }

    /// Seconds until it opens; 0 when it is open.
    #[must_use]
    pub fn opens_in_s(&self, now: u64) -> u64 {
        if self.is_open(now) {
            return 0;
        }
        (0..=7)
            .filter_map(|ahead| {
                let day = now / DAY_S + ahead;
                let is_its_day = self.days[usize::try_from((day + FIRST_DAY) % 7).ok()?];
                (day * DAY_S + self.from_s).checked_sub(now).filter(|_| is_its_day)
            })
            .min()
            .unwrap_or(DAY_S)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-28, a Saturday, 00:00.
    const SATURDAY: u64 = 1_795_824_000;
    const HOUR: u64 = 3600;

    #[test]
    fn a_window_opens_and_closes() {
        let window = Window::default();
        assert_eq!(window.to_string(), "01:00-04:00");
        assert!(!window.is_open(SATURDAY + HOUR - 1) && window.is_open(SATURDAY + HOUR));
        assert!(window.is_open(SATURDAY + 4 * HOUR - 1) && !window.is_open(SATURDAY + 4 * HOUR));
        assert_eq!(window.opens_in_s(SATURDAY), HOUR);
        assert_eq!(window.opens_in_s(SATURDAY + 4 * HOUR), 21 * HOUR);
        assert_eq!(window.left_s(SATURDAY + 3 * HOUR), HOUR);
    }

    #[test]
    fn one_that_crosses_midnight_belongs_to_its_first_day() {
        let window: Window = "fri 22:30-02:00".parse().unwrap();
        assert_eq!(window.to_string(), "fri 22:30-02:00");
        assert!(window.is_open(SATURDAY) && window.is_open(SATURDAY + 2 * HOUR - 1));
        assert!(!window.is_open(SATURDAY + 23 * HOUR), "Saturday evening");
        assert_eq!(window.opens_in_s(SATURDAY + 2 * HOUR), 6 * 24 * HOUR + 20 * HOUR + HOUR / 2);
    }

    #[test]
    fn what_is_no_window_says_what_one_is() {
        for text in
            ["", "1:00-4:00", "01:00", "01:00-01:20", "24:00-01:00", "so 01:00-04:00", "mon  01:00-04:00"]
        {
            let error = text.parse::<Window>().unwrap_err().to_string();
            assert!(error.contains("01:00-04:00"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_is_open_when_it_opens(days in 1_u8..128, from in 0_u64..1440, length in 30_u64..1440, now in SATURDAY..SATURDAY + 14 * DAY_S) {
            let days = std::array::from_fn(|day| days >> day & 1 == 1);
            let window = Window { days, from_s: from * 60, length_s: length * 60 };
            prop_assert_eq!(window.to_string().parse::<Window>(), Ok(window));
            let wait = window.opens_in_s(now);
            prop_assert!(window.is_open(now + wait));
            prop_assert!(wait == 0 || !window.is_open(now + wait - 1));
        }
    }
}
