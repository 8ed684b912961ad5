//! Which release a box takes, and which it refuses: first by its channel, then by the release's manifest.
//!
//! Both are signed. A signature says who made a release, not that this box may run it: that is decided here.

use std::fmt;

use kontor_migrate::Span;

use crate::channel::{Channel, place};
use crate::release::Release;
use crate::version::Version;

/// The box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The product it is.
    pub product: String,
    /// The machine type it is.
    pub board: String,
    /// What runs.
    pub version: Version,
    /// Security epoch of what runs.
    pub security_epoch: u32,
    /// Schemas of the state that what runs can read.
    pub state_schema: Span,
    /// Drawn once; decides when it has its turn.
    pub seed: u64,
    /// Versions that have failed on this box.
    pub failed: Vec<Version>,
}

/// Who wants an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nobody: the box looks by itself.
    Automatic,
    /// An operator: now, whatever the wave, also what has failed before; another major version if that one is named.
    Operator {
        /// The major version to go to.
        major: Option<u32>,
    },
}

/// What the channel says to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Nothing.
    UpToDate,
    /// The release is there, the box's turn is later; or nobody knows when.
    Wait(Version, Option<u64>),
    /// Take this one.
    Take(Version),
}

/// Why a release is not for this box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The channel has nothing for the product and major version.
    NothingForProduct(String, u32),
    /// The manifest is of another product.
    Product(String),
    /// The manifest is of another version than its name says.
    OtherVersion(Version),
    /// It does not serve this machine type.
    Board(String),
    /// It could be broken into through holes that are known.
    SecurityEpoch {
        /// The release's.
        theirs: u32,
        /// The running one's.
        ours: u32,
    },
    /// There is no schema of the state that both it and what runs can read.
    StateSchema {
        /// The release's.
        theirs: Span,
        /// The running one's.
        ours: Span,
    },
    /// The way from the running version leads over another.
    From(Version),
    /// It is older, and what runs is not withdrawn.
    Older(Version),
    /// The channel has withdrawn it.
    Withdrawn(Version, String),
    /// It has failed here.
    FailedBefore(Version),
    /// Another major version, which nobody asked for.
    Major(Version),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingForProduct(product, major) => {
                write!(f, "rule channel: it has no release of {product} {major}")
            }
            Self::Product(theirs) => write!(f, "rule product: the release is for {theirs:?}"),
            Self::OtherVersion(version) => {
                write!(f, "rule version: the manifest is that of {version}, under another name")
            }
            Self::Board(ours) => write!(f, "rule board: the release does not serve {ours}"),
            Self::SecurityEpoch { theirs, ours } => {
                write!(f, "rule security epoch: the release has {theirs}, what runs has {ours}")
            }
            Self::StateSchema { theirs, ours } => write!(
                f,
                "rule state schema: the release reads schema {theirs} of what this box keeps, what runs reads {ours}; a \
                 release between them has to be installed first"
            ),
            Self::From(minimum) => write!(f, "rule minimum version: {minimum} must be installed first"),
            Self::Older(version) => {
                write!(f, "rule downgrade: {version} is older than what runs, which is not withdrawn")
            }
            Self::Withdrawn(version, reason) if reason.is_empty() => {
                write!(f, "rule withdrawn: {version} is withdrawn")
            }
            Self::Withdrawn(version, reason) => {
                write!(f, "rule withdrawn: {version} is withdrawn: {reason}")
            }
            Self::FailedBefore(version) => {
                write!(
                    f,
                    "rule failed before: {version} did not work on this box; an operator can ask for it again"
                )
            }
            Self::Major(version) => {
                write!(f, "rule major: {version} is another major version; an operator has to ask for it")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// What the channel has for this box at this time.
///
/// # Errors
/// The rule that stands against it.
pub fn choose(facts: &Facts, channel: &Channel, wish: Wish, now: u64) -> Result<Choice, Refusal> {
    let (asked, major) = match wish {
        Wish::Automatic => (false, facts.version.major),
        Wish::Operator { major } => (true, major.unwrap_or(facts.version.major)),
    };
    let nothing = || Refusal::NothingForProduct(facts.product.clone(), major);
    let current = channel.current(&facts.product, major).ok_or_else(nothing)?;
    let version = current.version;
    if version == facts.version {
        return Ok(Choice::UpToDate);
    }
    if let Some(reason) = channel.is_withdrawn(&facts.product, version) {
        return Err(Refusal::Withdrawn(version, reason.to_owned()));
    }
    if version < facts.version && channel.is_withdrawn(&facts.product, facts.version).is_none() {
        return Err(Refusal::Older(version));
    }
    if asked {
        return Ok(Choice::Take(version));
    }
    if facts.failed.contains(&version) {
        return Err(Refusal::FailedBefore(version));
    }
    match current.turn_at(place(facts.seed, version)) {
        Some(at) if at <= now => Ok(Choice::Take(version)),
        turn => Ok(Choice::Wait(version, turn)),
    }
}

/// Whether this box may run the release that its channel has chosen for it.
///
/// # Errors
/// The rule that stands against it.
pub fn accept(facts: &Facts, release: &Release, chosen: Version, wish: Wish) -> Result<(), Refusal> {
    if release.product != facts.product {
        return Err(Refusal::Product(release.product.chars().take(40).collect()));
    }
    if release.version != chosen {
        return Err(Refusal::OtherVersion(release.version));
    }
    if !release.boards.contains(&facts.board) {
        return Err(Refusal::Board(facts.board.clone()));
    }
    if release.security_epoch < facts.security_epoch {
        return Err(Refusal::SecurityEpoch { theirs: release.security_epoch, ours: facts.security_epoch });
    }
    if facts.version < release.from_minimum {
        return Err(Refusal::From(release.from_minimum));
    }
    if !release.state_schema.meets(facts.state_schema) {
        return Err(Refusal::StateSchema { theirs: release.state_schema, ours: facts.state_schema });
    }
    let asked_major = matches!(wish, Wish::Operator { major: Some(major) } if major == release.version.major);
    if release.version.major != facts.version.major && !asked_major {
        return Err(Refusal::Major(release.version));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Withdrawn;
    use crate::channel::tests::current;
    use crate::release::tests::release;

    fn facts(version: &str) -> Facts {
        Facts {
            product: "branch".into(),
            board: "qemu".into(),
            version: version.parse().unwrap(),
            security_epoch: 1,
            state_schema: Span::default(),
            seed: 7,
            failed: Vec::new(),
        }
    }

    fn channel() -> Channel {
        let mut channel = Channel::new("stable");
        channel.current = vec![current("0.2.0"), current("1.0.0")];
        channel
    }

    const LATE: u64 = 100_000;
    const OPERATOR: Wish = Wish::Operator { major: None };

    #[track_caller]
    fn check(facts: &Facts, channel: &Channel, wish: Wish, now: u64, expect: Result<&str, &str>) {
        let got = choose(facts, channel, wish, now).map(|choice| format!("{choice:?}"));
        let got = got.map_err(|refusal| refusal.to_string());
        match (&got, expect) {
            (Ok(got), Ok(part)) | (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            _ => panic!("{got:?} instead of {expect:?}"),
        }
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn a_box_takes_the_current_release_when_it_is_its_turn() {
        let ours = facts("0.1.0");
        let turn = current("0.2.0").turn_at(place(7, version("0.2.0"))).unwrap();
        let wait = format!("Wait(Version {{ major: 0, minor: 2, build: 0 }}, Some({turn}))");
        check(&ours, &channel(), Wish::Automatic, turn - 1, Ok(&wait));
        check(&ours, &channel(), Wish::Automatic, turn, Ok("Take"));
        check(&ours, &channel(), OPERATOR, 0, Ok("Take"));
        check(&facts("0.2.0"), &channel(), Wish::Automatic, LATE, Ok("UpToDate"));
    }

    #[test]
    fn nothing_is_installed_across_a_major_version_unasked() {
        let asked = Wish::Operator { major: Some(1) };
        check(&facts("0.2.0"), &channel(), Wish::Automatic, LATE, Ok("UpToDate"));
        check(&facts("0.2.0"), &channel(), asked, LATE, Ok("Take(Version { major: 1"));
        let mut release = release("1.0.0");
        release.from_minimum = version("0.2.0");
        let check = |wish, expect: Result<(), &str>| {
            let got = accept(&facts("0.2.0"), &release, version("1.0.0"), wish);
            assert_eq!(got.map_err(|refusal| refusal.to_string()), expect.map_err(str::to_owned));
        };
        check(asked, Ok(()));
        let rule = "rule major: 1.0.0 is another major version; an operator has to ask for it";
        check(Wish::Automatic, Err(rule));
        check(OPERATOR, Err(rule));
    }

    #[test]
    fn a_step_back_needs_a_withdrawn_release() {
        check(&facts("0.3.0"), &channel(), Wish::Automatic, LATE, Err("rule downgrade: 0.2.0 is older"));
        check(&facts("0.3.0"), &channel(), OPERATOR, LATE, Err("rule downgrade"));
        let mut channel = channel();
        let reason = "eats leases".to_owned();
        channel.withdrawn.push(Withdrawn { product: "branch".into(), version: version("0.3.0"), reason });
        check(&facts("0.3.0"), &channel, Wish::Automatic, LATE, Ok("Take"));
    }

    #[test]
    fn what_failed_or_is_withdrawn_is_not_taken() {
        let mut ours = facts("0.1.0");
        ours.failed.push(version("0.2.0"));
        check(&ours, &channel(), Wish::Automatic, LATE, Err("rule failed before: 0.2.0"));
        check(&ours, &channel(), OPERATOR, LATE, Ok("Take"));
        let mut channel = channel();
        let reason = String::new();
        channel.withdrawn.push(Withdrawn { product: "branch".into(), version: version("0.2.0"), reason });
        check(&facts("0.1.0"), &channel, OPERATOR, LATE, Err("rule withdrawn: 0.2.0 is withdrawn"));
        check(&facts("2.0.0"), &channel, OPERATOR, LATE, Err("rule channel: it has no release of branch 2"));
    }

    #[test]
    fn each_rule_of_the_manifest_has_its_name() {
        let check = |change: &dyn Fn(&mut Release), expected: &str| {
            let mut release = release("0.2.0");
            change(&mut release);
            let refusal = accept(&facts("0.1.0"), &release, version("0.2.0"), Wish::Automatic).unwrap_err();
            assert!(refusal.to_string().contains(expected), "{refusal}");
        };
        check(&|release| release.product = "central".into(), "rule product: the release is for \"central\"");
        check(&|release| release.version = version("0.2.1"), "rule version: the manifest is that of 0.2.1");
        check(
            &|release| release.boards = vec!["other".into()],
            "rule board: the release does not serve qemu",
        );
        check(
            &|release| release.security_epoch = 0,
            "rule security epoch: the release has 0, what runs has 1",
        );
        check(
            &|release| release.state_schema = Span { oldest: 2, newest: 3 },
            "rule state schema: the release reads schema 2 to 3 of what this box keeps, what runs reads 1;",
        );
        check(&|release| release.from_minimum = version("0.1.5"), "rule minimum version: 0.1.5 must be");
        assert_eq!(accept(&facts("0.1.0"), &release("0.2.0"), version("0.2.0"), Wish::Automatic), Ok(()));
    }
}
