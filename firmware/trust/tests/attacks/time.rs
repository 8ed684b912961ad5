//! The clock: set back to make old metadata valid, and honestly corrected.

use kontor_trust::SLACK_S;
use kontor_trust::tough::schema::RoleType;

use crate::forge::{Box_, DAY, Forge, NOW};

#[test]
fn a_clock_before_the_build() {
    let forge = Forge::new();
    let mut office = Box_::new(&forge);
    office.now = 0;
    office.refuses(
        &forge.server,
        "rule clock: the clock says 1970-01-01 00:00 UTC, before the running release was built (2026-10-07 08:00 UTC)",
    );
    office.now = NOW;
    office.accepts(&forge.server);
}

#[test]
fn a_clock_set_back() {
    let forge = Forge::new();
    let mut office = Box_::new(&forge);
    office.accepts(&forge.server);
    office.now = NOW - SLACK_S - 1;
    office.refuses(
        &forge.server,
        "rule clock: the clock says 2027-01-14 07:59 UTC, but 2027-01-15 08:00 UTC has already been",
    );
}

/// tough would refuse a clock that is behind by a nanosecond.
#[test]
fn an_honest_correction_stops_nothing() {
    let forge = Forge::new();
    let mut office = Box_::new(&forge);
    office.accepts(&forge.server);
    for behind in [1, 3600, 14 * 3600] {
        office.now = NOW - behind;
        office.accepts(&forge.server);
    }
}

/// Within the slack, too, what has expired stays expired.
#[test]
fn a_small_step_back_revives_nothing() {
    let mut forge = Forge::new();
    let mut office = Box_::new(&forge);
    office.accepts(&forge.server);
    let frozen = forge.server.copy();
    frozen.restore(&forge.server);
    forge.expires.insert(RoleType::Timestamp, NOW + 10 * DAY);
    forge.versions.insert(RoleType::Timestamp, 2);
    forge.publish();
    office.now = NOW + 10 * DAY;
    office.accepts(&forge.server);
    let mut short = forge.clone();
    short.expires.insert(RoleType::Timestamp, NOW + 10 * DAY - 3600);
    short.versions.insert(RoleType::Timestamp, 3);
    short.publish();
    office.now = NOW + 10 * DAY - 7200;
    let error = office.look(&short.server).unwrap_err().to_string();
    assert!(error.starts_with("rule expired: timestamp was valid until 2027-01-25 07:00"), "{error}");
}

/// A clock that is far ahead finds everything expired, and so leaves no trace.
#[test]
fn a_clock_in_the_future_does_not_stop_updates_for_ever() {
    let forge = Forge::new();
    let mut office = Box_::new(&forge);
    office.now = NOW + 10_000 * DAY;
    let error = office.look(&forge.server).unwrap_err();
    assert_eq!(error.rule(), Some("expired"));
    office.now = NOW;
    office.accepts(&forge.server);
}
