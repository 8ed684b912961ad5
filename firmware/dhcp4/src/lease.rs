//! Lease records and the append-only journal that makes them durable.
//!
//! One line per change: the CRC-32 of the JSON in eight hex digits, a space, the JSON, a newline. The last
//! line for an address counts. A torn last line is what a power cut leaves and is no problem; a damaged line
//! in the middle is skipped and reported, and what follows it still counts.
//!
//! Times: the box may have no clock of its own, so a record says how much of the lease was left
//! (`remaining_s`) and what the wall clock said then (`written_at`). After a restart, the age is the
//! difference of wall clocks; a clock that went backwards counts as no age at all (see [`Record::left`]).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// A lease that ran out while the box was off is honoured at least this long after the restart, because
/// the clock that says it ran out may be wrong, and its holder may still be there.
pub const GRACE_S: u64 = 600;
/// Longer lines are damage; a record has well under 1 KiB.
const MAX_LINE: usize = 4096;
/// The journal is rewritten when it has more than this many lines and four times the live records:
/// then the rewrite costs a quarter of what was appended since the last one.
const COMPACT_LINES: usize = 1000;
/// Problems reported of one replay; a wholly foreign file has one per line.
const MAX_PROBLEMS: usize = 8;

/// What a record says about its address. Names are on disk: never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordState {
    /// Leased.
    Leased,
    /// Given back or run out; remembered so that its client gets it again.
    Free,
    /// In use by somebody we do not know: not to be leased for a while.
    Declined,
}

/// One line of the journal. Field names are on disk: never change one; add with `#[serde(default)]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Network of the site file.
    pub network: String,
    /// The address.
    pub address: Ipv4Addr,
    /// What became of it.
    pub state: RecordState,
    /// Hardware address of the (last) holder.
    pub mac: [u8; 6],
    /// Client identifier of the (last) holder, option 61; empty when it sent none.
    #[serde(default)]
    pub client_id: Vec<u8>,
    /// Name in DNS.
    #[serde(default)]
    pub name: Option<String>,
    /// Wall clock, seconds since 1970, when this was written.
    pub written_at: u64,
    /// Seconds the state had left then.
    pub remaining_s: u64,
}

/// What is left of a record after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// This many seconds.
    Seconds(u64),
    /// Nothing: it is over since this many seconds.
    OverSince(u64),
}

impl Record {
    /// What is left when the wall clock says `wall_now`.
    ///
    /// A clock before `written_at` (a box without a battery starts somewhere in the past) means that the
    /// age is unknown: all of `remaining_s` is honoured. A lease that ran out no longer than its own
    /// remaining time (at least [`GRACE_S`]) ago gets [`GRACE_S`] more.
    #[must_use]
    pub fn left(&self, wall_now: u64) -> Left {
        let age = wall_now.saturating_sub(self.written_at);
        if self.state == RecordState::Free {
            return Left::OverSince(age);
        }
        let over = age.saturating_sub(self.remaining_s);
        if age < self.remaining_s {
            let left = self.remaining_s - age;
            let floor = if self.state == RecordState::Leased { GRACE_S.min(self.remaining_s) } else { 0 };
            Left::Seconds(left.max(floor))
        } else if self.state == RecordState::Leased && over <= self.remaining_s.max(GRACE_S) {
            Left::Seconds(GRACE_S)
        } else {
            Left::OverSince(over)
        }
    }

    /// The journal line, newline included.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Plain data with string keys always serialises; an empty line would only be skipped at replay.
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
    }

    fn from_line(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (crc, json) = line.split_once(' ')?;
        if line.len() > MAX_LINE || crc.len() != 8 {
            return None;
        }
        let crc = u32::from_str_radix(crc, 16).ok()?;
        (crc == crc32fast::hash(json.as_bytes())).then(|| serde_json::from_str(json).ok())?
    }
}

/// What a journal held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// The last record of each address, by network and address.
    pub records: Vec<Record>,
    /// Octets up to the end of the last good line; appending goes on there.
    pub valid_len: usize,
    /// Good lines.
    pub lines: usize,
    /// Damage, for people; a torn last line is none.
    pub problems: Vec<String>,
}

impl Replay {
    /// Whether the journal should be rewritten from its live records before it is appended to.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        !self.problems.is_empty() || wants_compaction(self.lines, self.records.len())
    }
}

/// Whether a journal of `lines` lines with `live` live records should be rewritten.
#[must_use]
pub fn wants_compaction(lines: usize, live: usize) -> bool {
    lines > COMPACT_LINES && lines > live.saturating_mul(4)
}

/// Reads a journal: never fails, whatever the bytes.
#[must_use]
pub fn replay(bytes: &[u8]) -> Replay {
    let mut replay = Replay::default();
    let mut live = BTreeMap::new();
    let mut offset = 0;
    let mut damaged = Vec::new();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        offset += line.len();
        let Some((b'\n', text)) = line.split_last() else {
            // No newline: torn by a power cut while it was appended. Only the last line can be so.
            break;
        };
        match Record::from_line(text) {
            Some(record) => {
                live.insert((record.network.clone(), record.address), record);
                replay.lines += 1;
                replay.valid_len = offset;
            }
            None => damaged.push((index + 1, offset)),
        }
    }
    replay.records = live.into_values().collect();
    // A damaged stretch at the very end is a torn write too (blocks written out of order).
    damaged.retain(|(_, end)| *end < replay.valid_len);
    let lines = damaged.iter().take(MAX_PROBLEMS);
    replay.problems =
        lines.map(|(number, _)| format!("line {number} of the lease journal is damaged")).collect();
    if damaged.len() > MAX_PROBLEMS {
        replay.problems.push(format!("{} damaged lines in all", damaged.len()));
    }
    replay
}

#[cfg(test)]
mod tests;
