//! A channel: which release its boxes should run, who gets it when, and which releases are withdrawn.
//!
//! A TUF target, `channel/NAME.json`. A box follows one channel.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::version::Version;

/// The form of document that this program reads and writes.
pub const SCHEMA: u32 = 1;
/// No channel's document is longer.
pub const MAX_BYTES: u64 = 1 << 20;

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Channel {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its name, `stable` or `testing`.
    pub channel: String,
    /// One for each product and major version.
    #[serde(default)]
    pub current: Vec<Current>,
    /// Releases that nobody should run.
    #[serde(default)]
    pub withdrawn: Vec<Withdrawn>,
}

/// What a product's boxes of one major version should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Current {
    /// The product.
    pub product: String,
    /// The release's version.
    pub version: Version,
    /// When the first wave begins, in seconds since 1970.
    pub start_at: u64,
    /// Who gets it when; all at once when empty.
    #[serde(default)]
    pub waves: Vec<Wave>,
}

/// A step of a roll-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Wave {
    /// Seconds after the start.
    pub after_s: u64,
    /// Boxes that have had their turn then, in thousandths of all.
    pub permille: u16,
}

/// A release that nobody should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Withdrawn {
    /// The product.
    pub product: String,
    /// The release's version.
    pub version: Version,
    /// Why, for operators.
    #[serde(default)]
    pub reason: String,
}

/// Why bytes are no channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelError {
    /// Not the JSON it should be.
    Syntax(String),
    /// A form of document that this firmware does not know.
    Schema(u32),
    /// It contradicts itself.
    Invalid(String),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => write!(f, "the channel's document is damaged: {error}"),
            Self::Schema(schema) => {
                write!(f, "the channel's document has schema {schema}; this firmware knows {SCHEMA}")
            }
            Self::Invalid(what) => write!(f, "the channel's document is wrong: {what}"),
        }
    }
}

impl std::error::Error for ChannelError {}

impl Channel {
    /// One without releases.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { schema: SCHEMA, channel: name.to_owned(), current: Vec::new(), withdrawn: Vec::new() }
    }

    /// Reads and checks a channel that should have this name.
    ///
    /// # Errors
    /// When it is damaged, of another schema, another channel's, or contradicts itself.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, ChannelError> {
        #[derive(Deserialize)]
        struct Probe {
            schema: u32,
        }
        let syntax = |error: serde_json::Error| ChannelError::Syntax(error.to_string());
        let probe: Probe = serde_json::from_slice(bytes).map_err(syntax)?;
        if probe.schema != SCHEMA {
            return Err(ChannelError::Schema(probe.schema));
        }
        let channel: Self = serde_json::from_slice(bytes).map_err(syntax)?;
        if channel.channel != name {
            let found: String = channel.channel.chars().take(40).collect();
            return Err(ChannelError::Invalid(format!("it is of the channel {found:?}, not of {name:?}")));
        }
        channel.check().map_err(ChannelError::Invalid)?;
        Ok(channel)
    }

    /// What contradicts itself.
    ///
    /// # Errors
    /// With the reason.
    pub fn check(&self) -> Result<(), String> {
        for (position, current) in self.current.iter().enumerate() {
            let Current { product, version, waves, .. } = current;
            let twin = |other: &Current| other.product == *product && other.version.major == version.major;
            if self.current[..position].iter().any(twin) {
                return Err(format!("{product} has two current releases of major version {}", version.major));
            }
            if self.is_withdrawn(product, *version).is_some() {
                return Err(format!("{product} {version} is current and withdrawn"));
            }
            let grow =
                |pair: &[Wave]| pair[0].after_s <= pair[1].after_s && pair[0].permille <= pair[1].permille;
            if waves.iter().any(|wave| wave.permille > 1000) || !waves.windows(2).all(grow) {
                return Err(format!("the waves of {product} {version} do not grow to at most 1000 ‰"));
            }
        }
        Ok(())
    }

    /// As it is published.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The TUF target's name.
    #[must_use]
    pub fn target(name: &str) -> String {
        format!("channel/{name}.json")
    }

    /// What boxes of this product and major version should run.
    #[must_use]
    pub fn current(&self, product: &str, major: u32) -> Option<&Current> {
        self.current.iter().find(|current| current.product == product && current.version.major == major)
    }

    /// Why this release is withdrawn, if it is.
    #[must_use]
    pub fn is_withdrawn(&self, product: &str, version: Version) -> Option<&str> {
        let of = |one: &&Withdrawn| one.product == product && one.version == version;
        self.withdrawn.iter().find(of).map(|one| one.reason.as_str())
    }
}

impl Current {
    /// When the box at this place of all (0 to 999) has its turn; never when no wave reaches it.
    #[must_use]
    pub fn turn_at(&self, place: u16) -> Option<u64> {
        if self.waves.is_empty() {
            return Some(self.start_at);
        }
        let wave = self.waves.iter().find(|wave| place < wave.permille)?;
        Some(self.start_at.saturating_add(wave.after_s))
    }
}

/// A box's place in the roll-out of a version, 0 to 999: the same each time, and another for each version, so that the same
/// boxes are not always the first. FNV-1a with a final mix, as it needs to be even and nothing else.
#[must_use]
pub fn place(seed: u64, version: Version) -> u16 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let parts = [version.major, version.minor, version.build].map(u32::to_le_bytes).concat();
    for byte in seed.to_le_bytes().into_iter().chain(parts) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    // Below a thousand.
    (hash % 1000) as u16
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn current(version: &str) -> Current {
        let wave = |after_s, permille| Wave { after_s, permille };
        Current {
            product: "branch".into(),
            version: version.parse().unwrap(),
            start_at: 1000,
            waves: vec![wave(0, 10), wave(3600, 250), wave(7200, 1000)],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut channel = Channel::new("stable");
        channel.current.push(current("0.2.0"));
        let version = "0.1.9".parse().unwrap();
        channel.withdrawn.push(Withdrawn { product: "branch".into(), version, reason: "eats leases".into() });
        assert_eq!(Channel::parse("stable", &channel.to_json()), Ok(channel.clone()));
        assert_eq!(channel.is_withdrawn("branch", version), Some("eats leases"));
        assert_eq!(channel.is_withdrawn("central", version), None);
    }

    #[test]
    fn contradictions_are_named() {
        let check = |change: &dyn Fn(&mut Channel), expected: &str| {
            let mut channel = Channel::new("stable");
            channel.current.push(current("0.2.0"));
            change(&mut channel);
            let error = Channel::parse("stable", &channel.to_json()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&|channel| channel.channel = "testing".into(), "of the channel \"testing\", not of \"stable\"");
        check(&|channel| channel.schema = 9, "schema 9; this firmware knows 1");
        check(&|channel| channel.current.push(current("0.3.0")), "two current releases of major version 0");
        check(&|channel| channel.current[0].waves[0].permille = 300, "do not grow");
        check(&|channel| channel.current[0].waves[2].permille = 1001, "at most 1000");
        let version = "0.2.0".parse().unwrap();
        let withdrawn = || Withdrawn { product: "branch".into(), version, reason: String::new() };
        check(&|channel| channel.withdrawn.push(withdrawn()), "current and withdrawn");
    }

    #[test]
    fn each_box_has_its_turn_with_its_wave() {
        let current = current("0.2.0");
        let turns = [0, 9, 10, 249, 250, 999].map(|place| current.turn_at(place));
        assert_eq!(turns, [1000, 1000, 4600, 4600, 8200, 8200].map(Some));
        let partial = Current { waves: current.waves[..2].to_vec(), ..current.clone() };
        assert_eq!(partial.turn_at(250), None, "the roll-out stands still there");
        assert_eq!(Current { waves: Vec::new(), ..current }.turn_at(999), Some(1000));
    }

    #[test]
    fn places_are_even_and_differ_between_versions() {
        let version: Version = "1.2.3".parse().unwrap();
        let mut counts = [0_u32; 10];
        for seed in 0..10_000 {
            counts[usize::from(place(seed, version) / 100)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        let next = "1.2.4".parse().unwrap();
        let same = (0..1000).filter(|seed| place(*seed, version) == place(*seed, next)).count();
        assert!(same < 10, "{same}");
    }
}
