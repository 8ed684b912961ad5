//! Which of a machine's disks a box may be installed to.
//!
//! A person chooses among those that are not refused. Without one, only a disk that cannot be the wrong one is taken: the only
//! internal disk, with nothing on it unless the order says that it may be overwritten.

use std::fmt;

use crate::gpt::SECTOR;
use crate::partition::Guid;

/// A disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The kernel's name, `nvme0n1`.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Model, as far as known.
    pub model: String,
    /// The box runs from it.
    pub running: bool,
    /// It is attached by USB.
    pub usb: bool,
    /// It can be pulled out.
    pub removable: bool,
    /// It cannot be written.
    pub read_only: bool,
    /// Bytes of a logical block.
    pub block: u64,
    /// Where one of its partitions is mounted.
    pub mounted: Option<String>,
    /// What is on it.
    pub contents: Contents,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Zeros, at the beginning and at the end; an installation that was cut short looks like this too.
    Empty,
    /// A disk of Kontor's.
    Kontor {
        /// See [`crate::install::identity`].
        identity: Guid,
        /// Whether a box has served an office from it.
        office: bool,
    },
    /// So many partitions of others.
    Partitions(usize),
    /// Something else.
    Data,
    /// It cannot be read, and why.
    Unreadable(String),
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing"),
            Self::Kontor { office: true, .. } => f.write_str("a Kontor with an office's state"),
            Self::Kontor { office: false, .. } => f.write_str("a Kontor that has served nobody"),
            Self::Partitions(1) => f.write_str("a partition"),
            Self::Partitions(count) => write!(f, "{count} partitions"),
            Self::Data => f.write_str("data without a partition table"),
            Self::Unreadable(error) => write!(f, "unreadable: {error}"),
        }
    }
}

/// Why nothing can be installed to a disk, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The box runs from it.
    Running,
    /// It is attached by USB, or can be pulled out.
    Removable,
    /// It has fewer bytes than this.
    TooSmall(u64),
    /// It cannot be written.
    ReadOnly,
    /// Its blocks have so many bytes.
    Blocks(u64),
    /// It is mounted there.
    Mounted(String),
    /// It cannot be read.
    Unreadable,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("the box runs from it"),
            Self::Removable => f.write_str("it is no internal disk"),
            Self::TooSmall(needed) => write!(f, "too small, {} MiB are needed", needed.div_ceil(1 << 20)),
            Self::ReadOnly => f.write_str("it is read-only"),
            Self::Blocks(bytes) => write!(f, "its blocks have {bytes} bytes, not {SECTOR}"),
            Self::Mounted(place) => write!(f, "it is mounted on {place}"),
            Self::Unreadable => f.write_str("it cannot be read"),
        }
    }
}

impl Candidate {
    /// Why not to this one, when `needed` bytes are; nothing when it could be.
    #[must_use]
    pub fn refusal(&self, needed: u64) -> Option<Refusal> {
        if self.running {
            return Some(Refusal::Running);
        }
        if self.usb || self.removable {
            return Some(Refusal::Removable);
        }
        if let Some(place) = &self.mounted {
            return Some(Refusal::Mounted(place.clone()));
        }
        if self.read_only {
            return Some(Refusal::ReadOnly);
        }
        if self.block != SECTOR {
            return Some(Refusal::Blocks(self.block));
        }
        if self.bytes < needed {
            return Some(Refusal::TooSmall(needed));
        }
        matches!(self.contents, Contents::Unreadable(_)).then_some(Refusal::Unreadable)
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = if self.model.is_empty() { "unknown model" } else { &self.model };
        write!(f, "{} ({model}, {})", self.name, size(self.bytes))
    }
}

/// As it is printed on disks.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// What a box that was ordered to install itself does.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// Installs itself to this disk.
    Install(&'a Candidate),
    /// Nothing any more: this disk was made of this stick, and only the stick does not know it yet.
    Done(&'a Candidate),
}

/// Why nobody else than a person can choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecided {
    /// No disk could be installed to; why not to each.
    None(Vec<String>),
    /// These could.
    Several(Vec<String>),
    /// The only one has something on it.
    Full(String),
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(refused) if refused.is_empty() => {
                f.write_str("this machine shows no disk but the stick")
            }
            Self::None(refused) => write!(f, "no internal disk to install to: {}", refused.join("; ")),
            Self::Several(disks) => write!(
                f,
                "several internal disks: {}; `install DISK` at the console says to which one",
                disks.join(", ")
            ),
            Self::Full(disk) => write!(
                f,
                "{disk}, which is left alone: flash the stick with --install-over, or use `install DISK` at the console"
            ),
        }
    }
}

impl std::error::Error for Undecided {}

/// The disk of an order: `made` is the identity of a disk that was made by this order.
///
/// # Errors
/// When it is not certain which one is meant.
pub fn choose(disks: &[Candidate], needed: u64, over: bool, made: Guid) -> Result<Choice<'_>, Undecided> {
    let is_made =
        |disk: &&Candidate| matches!(disk.contents, Contents::Kontor { identity, .. } if identity == made);
    if let Some(disk) = disks.iter().find(is_made) {
        return Ok(Choice::Done(disk));
    }
    let possible: Vec<&Candidate> = disks.iter().filter(|disk| disk.refusal(needed).is_none()).collect();
    match possible[..] {
        [] => {
            let others = disks.iter().filter(|disk| !disk.running);
            let why = |disk: &Candidate| Some(format!("{disk}: {}", disk.refusal(needed)?));
            Err(Undecided::None(others.filter_map(why).collect()))
        }
        [disk] if over || disk.contents == Contents::Empty => Ok(Choice::Install(disk)),
        [disk] => Err(Undecided::Full(format!("on {disk} there is {}", disk.contents))),
        _ => Err(Undecided::Several(possible.iter().map(ToString::to_string).collect())),
    }
}

/// Disks that a box which runs from a stick can offer to be installed to.
#[must_use]
pub fn offer(disks: &[Candidate], needed: u64) -> Vec<&Candidate> {
    disks.iter().filter(|disk| disk.refusal(needed).is_none()).collect()
}

#[cfg(test)]
#[path = "target/tests.rs"]
mod tests;
