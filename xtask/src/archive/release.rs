//! The archive's signed `InRelease`: signature, age, and the hashes of the index files it vouches for.
//!
//! Only the text inside the verified clear-signed frame is ever read (RFC 9580, section 7).

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use camino::Utf8Path;
use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::Signature;
use pgp::types::KeyDetails;

/// How far a release file may lie in the future before the clock is blamed: one day covers any time zone mistake.
const CLOCK_TOLERANCE_S: i64 = 86_400;

/// The keys whose signature on a release file counts.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: Vec<(String, SignedPublicKey)>,
}

impl KeyRing {
    /// Reads every `*.asc` of a directory.
    pub fn load(directory: &Utf8Path) -> Result<Self> {
        let mut ring = KeyRing::default();
        let mut paths: Vec<_> = directory
            .read_dir_utf8()
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("reading the archive keys in {directory}"))?
            .into_iter()
            .map(|entry| entry.into_path())
            .filter(|path| path.extension() == Some("asc"))
            .collect();
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            let name = path.file_stem().unwrap_or_default();
            ring.add(name, &text).with_context(|| format!("key file {path}"))?;
        }
        ensure!(!ring.keys.is_empty(), "no archive key (*.asc) in {directory}");
        Ok(ring)
    }

    /// Adds the keys of one ASCII-armoured text.
    pub fn add(&mut self, name: &str, armored: &str) -> Result<()> {
        let (keys, _) = SignedPublicKey::from_string_many(armored)?;
        for key in keys {
            let mut key = key?;
            // Other people's certifications cannot be checked here, and nothing rests on them; the bond between the key
            // and its subkeys can.
            let SignedPublicKey { primary_key, public_subkeys, .. } = &mut key;
            public_subkeys.retain(|subkey| subkey.verify_bindings(primary_key).is_ok());
            self.keys.push((name.to_owned(), key));
        }
        Ok(())
    }

    fn verifies(&self, signature: &Signature, text: &[u8]) -> bool {
        if !strong(signature) {
            return false;
        }
        self.keys.iter().any(|(_, key)| {
            signature.verify(&key.primary_key, text).is_ok()
                || key.public_subkeys.iter().any(|subkey| signature.verify(&subkey.key, text).is_ok())
        })
    }

    fn names(&self) -> String {
        let shown = |(name, key): &(String, SignedPublicKey)| format!("{name} ({})", key.legacy_key_id());
        self.keys.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

/// Hashes for which no collision is known.
fn strong(signature: &Signature) -> bool {
    matches!(
        signature.hash_alg(),
        Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
    )
}

/// What a verified release file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `Codename`, for example `trixie-security`.
    pub codename: String,
    /// When it was made, in seconds since 1970.
    pub made_at: i64,
    /// Until when it counts.
    pub valid_until: Option<i64>,
    /// Whether index files are also stored under their hash.
    pub by_hash: bool,
    /// Path below the suite → (SHA-256, size).
    pub files: BTreeMap<String, (String, u64)>,
}

impl Release {
    /// Verifies and reads an `InRelease`.
    pub fn verify(inrelease: &str, keys: &KeyRing) -> Result<Self> {
        let (message, _) = CleartextSignedMessage::from_string(inrelease)
            .context("not a clear-signed release file (truncated, or not from a Debian mirror)")?;
        let text = message.signed_text();
        if !message.signatures().iter().any(|signature| keys.verifies(signature, text.as_bytes())) {
            let signers: Vec<_> = message
                .signatures()
                .iter()
                .flat_map(|s| s.issuer_key_id())
                .map(|id| id.to_string())
                .collect();
            bail!(
                "no valid signature by a known key; signed by {}; keys tried: {}",
                signers.join(", "),
                keys.names()
            );
        }
        Self::parse(&text.replace("\r\n", "\n"))
    }

    /// Reads the text of a release file, whose signature is the business of [`Self::verify`].
    ///
    /// # Errors
    /// When a field is missing or malformed.
    pub fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let made = field("Date").context("the release file has no Date")?;
        let valid_until = field("Valid-Until").map(parse_date).transpose()?;
        let files = text
            .lines()
            .skip_while(|line| *line != "SHA256:")
            .skip(1)
            .take_while(|line| line.starts_with(' '))
            .map(parse_file)
            .collect::<Result<_>>()?;
        Ok(Release {
            codename: field("Codename").context("the release file has no Codename")?.to_owned(),
            made_at: parse_date(made)?,
            valid_until,
            by_hash: field("Acquire-By-Hash") == Some("yes"),
            files,
        })
    }

    /// Refuses a release of another suite, from the future, or (unless `stale_is_fine`) past its date.
    pub fn check(&self, suite: &str, now: i64, stale_is_fine: bool) -> Result<()> {
        ensure!(self.codename == suite, "asked for suite {suite}, but the mirror serves {}", self.codename);
        ensure!(
            self.made_at <= now + CLOCK_TOLERANCE_S,
            "the release file of {suite} was made at {}, but this machine's clock says {}: set the clock",
            format_date(self.made_at),
            format_date(now)
        );
        match self.valid_until {
            Some(end) if end < now && !stale_is_fine => bail!(
                "the release file of {suite} expired at {} (now {}): the mirror is stale, or somebody replays old \
                 security state; choose another mirror, or say --ignore-valid-until",
                format_date(end),
                format_date(now)
            ),
            _ => Ok(()),
        }
    }
}

fn parse_file(line: &str) -> Result<(String, (String, u64))> {
    let mut words = line.split_whitespace();
    let (Some(hash), Some(size), Some(path)) = (words.next(), words.next(), words.next()) else {
        bail!("malformed line in the release file: {line:?}");
    };
    let size = size.parse().with_context(|| format!("malformed size in the release file: {line:?}"))?;
    Ok((path.to_owned(), (hash.to_owned(), size)))
}

/// Seconds since 1970 of `Sat, 12 Sep 2026 07:55:41 UTC`.
fn parse_date(text: &str) -> Result<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let malformed = || anyhow!("malformed date in the release file: {text:?}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "UTC" | "GMT" | "+0000"] = words[..] else { return Err(malformed()) };
    let month = MONTHS.iter().position(|name| *name == month).ok_or_else(malformed)? as i64 + 1;
    let (day, year): (i64, i64) =
        (day.parse().map_err(|_| malformed())?, year.parse().map_err(|_| malformed())?);
    let clock: Vec<i64> =
        time.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
    let [hour @ 0..24, minute @ 0..60, second @ 0..=60] = clock[..] else { return Err(malformed()) };
    ensure!((1970..3000).contains(&year) && (1..=31).contains(&day), malformed());
    Ok(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a Gregorian date (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `2026-09-12T07:55:41Z`.
pub fn format_date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(format_date(parse_date(text).unwrap()), expect);
    }

    #[test]
    fn dates_of_release_files() {
        check("Sat, 12 Sep 2026 07:55:41 UTC", "2026-09-12T07:55:41Z");
        check("Thu, 29 Feb 2024 23:59:59 UTC", "2024-02-29T23:59:59Z");
        check("Thu, 01 Jan 1970 00:00:00 UTC", "1970-01-01T00:00:00Z");
        assert!(parse_date("12 Sep 2026").is_err());
        for clock in ["24:00:00", "23:60:00", "23:59:61", "-1:00:00", "9223372036854775807:0:0"] {
            assert!(parse_date(&format!("Sat, 12 Sep 2026 {clock} UTC")).is_err(), "{clock}");
        }
        assert!(parse_date("Sat, 12 Foo 2026 07:55:41 UTC").is_err());
    }

    fn release() -> Release {
        Release {
            codename: "trixie".to_owned(),
            made_at: 1_000_000,
            valid_until: Some(2_000_000),
            by_hash: false,
            files: BTreeMap::new(),
        }
    }

    #[test]
    fn another_suite_a_wrong_clock_and_a_stale_mirror_are_told_apart() {
        let error = |suite, now| format!("{:#}", release().check(suite, now, false).unwrap_err());
        assert!(error("sid", 1_500_000).contains("the mirror serves trixie"));
        assert!(error("trixie", 0).contains("set the clock"));
        assert!(error("trixie", 2_000_001).contains("--ignore-valid-until"));
        release().check("trixie", 1_500_000, false).unwrap();
        release().check("trixie", 2_000_001, true).unwrap();
    }
}
