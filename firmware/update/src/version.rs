//! Versions of releases: major.minor.build. Major is incompatible and never installed unasked, minor has new features,
//! build has fixes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version; the order is that of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// Incompatible with another.
    pub major: u32,
    /// New features.
    pub minor: u32,
    /// Fixes.
    pub build: u32,
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionError(String);

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a version; one is three numbers, major.minor.build, as 1.4.2", self.0)
    }
}

impl std::error::Error for VersionError {}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        // A bounded text: it may come from a file that nobody has checked yet.
        let error = || VersionError(text.chars().take(40).collect());
        let number = |part: &str| -> Result<u32, VersionError> {
            let plain =
                part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            part.parse().ok().filter(|_| plain).ok_or_else(error)
        };
        match text.split('.').collect::<Vec<_>>()[..] {
            [major, minor, build] => {
                Ok(Self { major: number(major)?, minor: number(minor)?, build: number(build)? })
            }
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert!(parse("0.9.0") < parse("0.10.0"));
        assert!(parse("1.0.0") > parse("0.99.99"));
        assert_eq!(parse("1.2.3").to_string(), "1.2.3");
    }

    #[test]
    fn what_is_no_version_says_so() {
        for text in
            ["", "1", "1.2", "1.2.3.4", "1.2.x", "+1.2.3", "1..3", "01.2.3", "1.2.99999999999", "-1.0.0"]
        {
            let error = text.parse::<Version>().unwrap_err().to_string();
            assert!(error.contains("major.minor.build"), "{text}: {error}");
        }
    }
}
