//! Why metadata or a target is not trusted: one variant for each rule, and tough's errors in these terms.
//!
//! Messages name the rule and the role, because an operator must know whether to look at the line, the clock or the server.

use std::error::Error as _;
use std::fmt;

use kontor_update::Refusal;
use tough::TransportError;
use tough::error::Error as ToughError;
use tough::schema::{Error as SchemaError, RoleType};

use crate::clock::date;

/// Whose metadata it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Says which keys the others have.
    Root,
    /// Says which targets there are; its keys are offline.
    Targets,
    /// Says which metadata belongs together.
    Snapshot,
    /// Says what is current.
    Timestamp,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        })
    }
}

impl From<RoleType> for Role {
    fn from(role: RoleType) -> Self {
        match role {
            RoleType::Root => Self::Root,
            RoleType::Snapshot => Self::Snapshot,
            RoleType::Timestamp => Self::Timestamp,
            RoleType::Targets | RoleType::DelegatedTargets => Self::Targets,
        }
    }
}

/// What stands against metadata, a target, or looking at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustError {
    /// Nobody has signed it anew in time: it may be withheld.
    Expired {
        /// Whose.
        role: Role,
        /// Until when it was valid, in seconds since 1970.
        until: u64,
    },
    /// Older than what was seen before.
    Rollback {
        /// Whose.
        role: Role,
        /// The version offered.
        offered: u64,
        /// The version seen before.
        seen: u64,
    },
    /// Not enough of the role's keys have signed it.
    Signature {
        /// Whose.
        role: Role,
        /// Valid signatures.
        valid: u64,
        /// How many there must be.
        threshold: u64,
    },
    /// Longer than it may be.
    Length {
        /// The file.
        what: String,
        /// At most.
        limit: u64,
    },
    /// Other bytes than those that were signed.
    Hash {
        /// The file.
        what: String,
    },
    /// Metadata that does not belong together.
    Mix {
        /// Whose.
        role: Role,
        /// The version that was found.
        found: u64,
        /// The version that was signed.
        expected: u64,
    },
    /// The clock is before the day on which the running release was built.
    ClockBeforeBuild {
        /// The clock.
        now: u64,
        /// That day.
        floor: u64,
    },
    /// The clock is long before a time that has been.
    ClockSetBack {
        /// The clock.
        now: u64,
        /// The time that has been.
        seen: u64,
    },
    /// Too many new roots at once.
    RootUpdates {
        /// At most.
        limit: u64,
    },
    /// A name that no target has.
    TargetName(String),
    /// A target that nobody has signed.
    NoTarget(String),
    /// Metadata that is none.
    Form {
        /// Whose.
        role: Role,
        /// What is wrong with it.
        problem: String,
    },
    /// A signed document that this firmware cannot use.
    Document {
        /// The target.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A signed release under another's name.
    Refused(Refusal),
    /// The root that the release ships is none.
    ShippedRoot(String),
    /// It could not be had; nothing is said about trust.
    Fetch {
        /// The file.
        what: String,
        /// Why.
        problem: String,
    },
    /// What is remembered cannot be read or written.
    Store(String),
}

impl TrustError {
    /// The rule that stopped it; none when something merely failed.
    #[must_use]
    pub fn rule(&self) -> Option<&'static str> {
        Some(match self {
            Self::Expired { .. } => "expired",
            Self::Rollback { .. } => "rollback",
            Self::Signature { .. } => "signature",
            Self::Length { .. } => "length",
            Self::Hash { .. } => "hash",
            Self::Mix { .. } => "mix",
            Self::ClockBeforeBuild { .. } | Self::ClockSetBack { .. } => "clock",
            Self::RootUpdates { .. } => "root updates",
            Self::TargetName(_) => "target name",
            Self::NoTarget(_) => "target",
            Self::Form { .. } => "form",
            Self::Document { .. } => "document",
            Self::ShippedRoot(_) => "shipped root",
            Self::Refused(_) | Self::Fetch { .. } | Self::Store(_) => return None,
        })
    }

    /// Whether the same may well succeed later, without anybody's doing.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Fetch { .. } | Self::ClockBeforeBuild { .. } | Self::ClockSetBack { .. })
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rule) = self.rule() {
            write!(f, "rule {rule}: ")?;
        }
        match self {
            Self::Expired { role, until } => {
                write!(f, "{role} was valid until {}, and nobody has signed it anew", date(*until))
            }
            Self::Rollback { role, offered, seen } => {
                write!(f, "{role} {offered} is older than {seen}, which was seen before")
            }
            Self::Signature { role, valid, threshold } => {
                write!(f, "{role} has {valid} of {threshold} signatures")
            }
            Self::Length { what, limit } => write!(f, "{what} is longer than {limit} bytes"),
            Self::Hash { what } => write!(f, "{what} has other bytes than those that were signed"),
            Self::Mix { role, found, expected } => {
                write!(f, "{role} is version {found}, and what was signed names {expected}")
            }
            Self::ClockBeforeBuild { now, floor } => {
                let (now, floor) = (date(*now), date(*floor));
                write!(f, "the clock says {now}, before the running release was built ({floor})")
            }
            Self::ClockSetBack { now, seen } => {
                write!(f, "the clock says {}, but {} has already been", date(*now), date(*seen))
            }
            Self::RootUpdates { limit } => write!(f, "more than {limit} new versions of root at once"),
            Self::TargetName(name) => write!(f, "{name:?} is not a name of a target"),
            Self::NoTarget(name) => write!(f, "nobody has signed {name}"),
            Self::Form { role, problem } => write!(f, "{role} is not what it should be: {problem}"),
            Self::Document { name, problem } => write!(f, "{name}: {problem}"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::ShippedRoot(problem) => write!(f, "the root of the running release is unusable: {problem}"),
            Self::Fetch { what, problem } => write!(f, "cannot fetch {what}: {problem}"),
            Self::Store(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for TrustError {}

/// A file that went on beyond its limit.
#[derive(Debug)]
pub(crate) struct TooLong {
    pub(crate) limit: u64,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is longer than {} bytes", self.limit)
    }
}

impl std::error::Error for TooLong {}

impl From<ToughError> for TrustError {
    fn from(error: ToughError) -> Self {
        match error {
            ToughError::VerifyMetadata { role, source, .. } => signature(role.into(), &source),
            ToughError::VerifyTrustedMetadata { source, .. } => Self::ShippedRoot(source.to_string()),
            ToughError::ParseTrustedMetadata { source, .. } => Self::ShippedRoot(source.to_string()),
            ToughError::OlderMetadata { role, current_version, new_version, .. } => {
                root_or_rollback(role.into(), new_version, current_version)
            }
            ToughError::OlderSnapshotInTimestamp { snapshot_new, snapshot_old, .. } => {
                Self::Rollback { role: Role::Snapshot, offered: snapshot_new, seen: snapshot_old }
            }
            ToughError::SnapshotRoleRollback { old_role_version, new_role_version, .. } => {
                Self::Rollback { role: Role::Targets, offered: new_role_version, seen: old_role_version }
            }
            ToughError::VersionMismatch { role, fetched, expected, .. } => {
                Self::Mix { role: role.into(), found: fetched, expected }
            }
            ToughError::MaxUpdatesExceeded { max_root_updates, .. } => {
                Self::RootUpdates { limit: max_root_updates }
            }
            ToughError::ParseMetadata { role, source, .. } => {
                Self::Form { role: role.into(), problem: source.to_string() }
            }
            ToughError::Transport { url, source, .. } => transport(url.path(), &source),
            error @ (ToughError::TimestampMetaLength { .. } | ToughError::MissingSnapshotMeta { .. }) => {
                Self::Form { role: Role::Timestamp, problem: error.to_string() }
            }
            error @ (ToughError::SnapshotTargetsMetaMissing { .. }
            | ToughError::SnapshotRoleMissing { .. }
            | ToughError::MetaMissing { .. }) => {
                Self::Form { role: Role::Snapshot, problem: error.to_string() }
            }
            error @ ToughError::InvalidPath { .. } => {
                Self::Form { role: Role::Targets, problem: error.to_string() }
            }
            error => Self::Store(error.to_string()),
        }
    }
}

/// A root must have exactly the next number: one with a higher has been put under another's name.
fn root_or_rollback(role: Role, offered: u64, seen: u64) -> TrustError {
    match role {
        Role::Root if offered > seen => TrustError::Mix { role, found: offered, expected: seen + 1 },
        _ => TrustError::Rollback { role, offered, seen },
    }
}

/// Why the signatures of a role's metadata do not suffice.
pub(crate) fn signature(role: Role, error: &SchemaError) -> TrustError {
    match error {
        SchemaError::SignatureThreshold { threshold, valid, .. } => {
            TrustError::Signature { role, valid: *valid, threshold: *threshold }
        }
        error => TrustError::Form { role, problem: error.to_string() },
    }
}

/// Why a file could not be had; its limits and its hash are checked while it is read.
pub(crate) fn transport(path: &str, error: &TransportError) -> TrustError {
    let what = file_name(path);
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(TooLong { limit }) = found.downcast_ref() {
            return TrustError::Length { what, limit: *limit };
        }
        match found.downcast_ref() {
            Some(ToughError::MaxSizeExceeded { max_size, .. }) => {
                return TrustError::Length { what, limit: *max_size };
            }
            Some(ToughError::HashMismatch { .. }) => return TrustError::Hash { what },
            _ => cause = found.source(),
        }
    }
    let mut problem = error.to_string();
    problem.truncate(problem.char_indices().nth(300).map_or(problem.len(), |(at, _)| at));
    TrustError::Fetch { what, problem }
}

/// What comes after `metadata/` or `targets/`.
fn file_name(path: &str) -> String {
    let after = ["/metadata/", "/targets/"].into_iter().find_map(|folder| path.rsplit_once(folder));
    after.map_or(path, |(_, name)| name).chars().take(200).collect()
}
