//! The cache: whole answers in wire form, served by copying (RFC 1035 §7.4, RFC 2308, RFC 9520).
//!
//! One table keyed by question and DO/CD bits, bounded by bytes, evicting by a clock hand (second chance).
//! It knows nothing about names or TTL rules: [`crate::answer`] decides what may be kept and for how long.

use std::time::{Duration, Instant};

use hashbrown::HashTable;

use crate::name::Name;
use crate::response::Stored;
use crate::wire::Query;

/// Larger answers are passed on but not kept: a few crafted ones would push out everything else.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024;
/// Fixed cost of an entry beside its octets (slot, table, allocator), for the byte budget.
const ENTRY_OVERHEAD: usize = 160;
/// How long after its end an answer still serves when nobody can give a better one (RFC 8767 §5 suggests 1 to 3 days).
const STALE_LIFETIME: Duration = Duration::from_secs(86_400);
/// How long a stale answer is given without asking again (RFC 8767 §5: no more often than every 30 s).
const STALE_RECHECK: Duration = Duration::from_secs(30);

/// What an answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// Wire form, lower case.
    pub qname: &'a [u8],
    /// Type.
    pub qtype: u16,
    /// Class.
    pub qclass: u16,
    /// DNSSEC records wanted.
    pub dnssec_ok: bool,
    /// Checking disabled.
    pub checking_disabled: bool,
}

impl<'a> Key<'a> {
    /// The key of a query whose name is `qname`.
    #[must_use]
    pub fn of(query: &Query<'_>, qname: &'a Name) -> Self {
        Self {
            qname: qname.wire(),
            qtype: query.qtype,
            qclass: query.qclass,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.checking_disabled(),
        }
    }

    /// Everything but the name in one word.
    #[must_use]
    pub(crate) fn kind(&self) -> u64 {
        u64::from(self.qtype) << 32
            | u64::from(self.qclass) << 16
            | u64::from(self.dnssec_ok) << 1
            | u64::from(self.checking_disabled)
    }
}

/// What the cache keeps.
#[derive(Debug)]
enum Kept {
    /// An answer.
    Answer { wire: Box<[u8]>, ttl_at: Box<[u16]> },
    /// The upstreams failed to answer (RFC 9520).
    Failure,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    qname: Box<[u8]>,
    kind: u64,
    stored_at: Instant,
    expires_at: Instant,
    /// Expired, and nobody could be asked: until then it is good enough.
    stale_until: Option<Instant>,
    used: bool,
    kept: Kept,
}

impl Entry {
    fn is_stale(&self, now: Instant) -> bool {
        matches!(self.kept, Kept::Answer { .. })
            && self.expires_at <= now
            && now < self.expires_at + STALE_LIFETIME
    }

    fn cost(&self) -> usize {
        let content = match &self.kept {
            Kept::Answer { wire, ttl_at } => wire.len() + 2 * ttl_at.len(),
            Kept::Failure => 0,
        };
        ENTRY_OVERHEAD + self.qname.len() + content
    }
}

/// What a look-up found.
#[derive(Debug, Clone, Copy)]
pub enum Hit<'a> {
    /// An answer, stored `age_s` seconds ago.
    Answer {
        /// The message.
        stored: Stored<'a>,
        /// Seconds in the cache.
        age_s: u32,
    },
    /// An answer past its time, because a better one could not be had a moment ago.
    Stale(Stored<'a>),
    /// A recent failure.
    Failure,
}

/// Answers by question.
#[derive(Debug)]
pub struct Cache {
    table: HashTable<u32>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    max_bytes: usize,
}

impl Cache {
    /// An empty cache of at most `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { table: HashTable::new(), slots: Vec::new(), free: Vec::new(), hand: 0, bytes: 0, max_bytes }
    }

    /// Number of entries, expired ones included until their room is needed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes in use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is known and still fresh, or stale and good enough for now.
    #[inline]
    pub fn find(&mut self, now: Instant, hash: u64, key: Key<'_>) -> Option<Hit<'_>> {
        let slot = self.slot_of(hash, key)?;
        let entry = self.slots.get_mut(slot)?.as_mut()?;
        let fresh = entry.expires_at > now;
        let good_enough = entry.stale_until.is_some_and(|until| until > now) && entry.is_stale(now);
        if !fresh && !good_enough {
            return None;
        }
        entry.used = true;
        Some(match &entry.kept {
            Kept::Answer { wire, ttl_at } if !fresh => Hit::Stale(Stored { wire, ttl_at }),
            Kept::Answer { wire, ttl_at } => {
                let age = now.saturating_duration_since(entry.stored_at).as_secs();
                Hit::Answer { stored: Stored { wire, ttl_at }, age_s: u32::try_from(age).unwrap_or(u32::MAX) }
            }
            Kept::Failure => Hit::Failure,
        })
    }

    /// The answer that was right some time ago (RFC 8767), for when nobody can be asked.
    pub fn find_stale(&mut self, now: Instant, hash: u64, key: Key<'_>) -> Option<Stored<'_>> {
        let slot = self.slot_of(hash, key)?;
        let entry = self.slots.get_mut(slot)?.as_mut().filter(|entry| entry.is_stale(now))?;
        entry.used = true;
        match &entry.kept {
            Kept::Answer { wire, ttl_at } => Some(Stored { wire, ttl_at }),
            Kept::Failure => None,
        }
    }

    /// Keeps an answer for `lifetime`; replaces what was known.
    pub fn insert(
        &mut self,
        now: Instant,
        hash: u64,
        key: Key<'_>,
        wire: &[u8],
        ttl_at: &[u16],
        lifetime: Duration,
    ) {
        if wire.len() + 2 * ttl_at.len() > MAX_ENTRY_BYTES {
            return;
        }
        let kept = Kept::Answer { wire: wire.into(), ttl_at: ttl_at.into() };
        self.put(now, hash, key, kept, lifetime);
    }

    /// Keeps the fact that nobody could answer; an answer past its time is not lost by that.
    pub fn insert_failure(&mut self, now: Instant, hash: u64, key: Key<'_>, lifetime: Duration) {
        let known = self.slot_of(hash, key).and_then(|slot| self.slots.get_mut(slot)?.as_mut());
        if let Some(stale) = known.filter(|entry| entry.is_stale(now)) {
            stale.stale_until = Some(now + STALE_RECHECK);
            return;
        }
        self.put(now, hash, key, Kept::Failure, lifetime);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.max_bytes);
    }

    /// Forgets failures: the way to the upstreams has changed.
    pub fn forget_failures(&mut self) {
        for slot in 0..self.slots.len() {
            if let Some(entry) = &mut self.slots[slot] {
                entry.stale_until = None;
            }
            if matches!(&self.slots[slot], Some(Entry { kept: Kept::Failure, .. })) {
                self.remove(slot);
            }
        }
    }

    fn put(&mut self, now: Instant, hash: u64, key: Key<'_>, kept: Kept, lifetime: Duration) {
        if let Some(slot) = self.slot_of(hash, key) {
            self.remove(slot);
        }
        let entry = Entry {
            hash,
            qname: key.qname.into(),
            kind: key.kind(),
            stored_at: now,
            expires_at: now + lifetime,
            stale_until: None,
            used: false,
            kept,
        };
        let cost = entry.cost();
        while self.bytes + cost > self.max_bytes {
            if !self.evict_one(now) {
                return;
            }
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let Some(place) = self.slots.get_mut(index(slot)) else { return };
        *place = Some(entry);
        self.bytes += cost;
        let slots = &self.slots;
        self.table.insert_unique(hash, slot, |&slot| hash_of(slots, slot));
    }

    /// Lets one entry go: the next under the hand that is expired or was not used since the hand last came by.
    fn evict_one(&mut self, now: Instant) -> bool {
        // Two turns suffice: the first takes every second chance away.
        for _ in 0..2 * self.slots.len() {
            let slot = self.hand;
            self.hand = (slot + 1) % self.slots.len();
            match &mut self.slots[slot] {
                Some(entry) if entry.used && entry.expires_at > now => entry.used = false,
                Some(_) => {
                    self.remove(slot);
                    return true;
                }
                None => {}
            }
        }
        false
    }

    fn remove(&mut self, slot: usize) {
        let Some(entry) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        self.bytes -= entry.cost();
        if let Ok(found) = self.table.find_entry(entry.hash, |&other| index(other) == slot) {
            self.free.push(*found.get());
            found.remove();
        }
    }

    #[inline]
    fn slot_of(&self, hash: u64, key: Key<'_>) -> Option<usize> {
        let kind = key.kind();
        let same = |&slot: &u32| {
            let entry = self.slots.get(index(slot)).and_then(Option::as_ref);
            entry.is_some_and(|entry| entry.hash == hash && entry.kind == kind && *entry.qname == *key.qname)
        };
        self.table.find(hash, same).map(|&slot| index(slot))
    }
}

fn index(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

fn hash_of(slots: &[Option<Entry>], slot: u32) -> u64 {
    slots.get(index(slot)).and_then(Option::as_ref).map_or(0, |entry| entry.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(qname: &[u8]) -> Key<'_> {
        Key { qname, qtype: 1, qclass: 1, dnssec_ok: false, checking_disabled: false }
    }

    fn age(cache: &mut Cache, now: Instant, hash: u64, qname: &[u8]) -> Option<u32> {
        match cache.find(now, hash, key(qname)) {
            Some(Hit::Answer { age_s, .. }) => Some(age_s),
            _ => None,
        }
    }

    #[test]
    fn entries_age_and_expire() {
        let mut cache = Cache::new(10_000);
        let now = Instant::now();
        cache.insert(now, 7, key(b"a"), &[0; 20], &[], Duration::from_secs(10));
        assert_eq!(age(&mut cache, now, 7, b"a"), Some(0));
        assert_eq!(age(&mut cache, now + Duration::from_millis(9_999), 7, b"a"), Some(9));
        assert_eq!(age(&mut cache, now + Duration::from_secs(10), 7, b"a"), None);
    }

    #[test]
    fn equal_hashes_do_not_mix_questions() {
        let mut cache = Cache::new(10_000);
        let now = Instant::now();
        cache.insert(now, 7, key(b"a"), &[1; 20], &[], Duration::from_secs(10));
        assert!(cache.find(now, 7, key(b"b")).is_none());
        let signed = Key { dnssec_ok: true, ..key(b"a") };
        assert!(cache.find(now, 7, signed).is_none());
        let unchecked = Key { checking_disabled: true, ..key(b"a") };
        assert!(cache.find(now, 7, unchecked).is_none());
    }

    #[test]
    fn bytes_stay_bounded_and_used_entries_survive() {
        let mut cache = Cache::new(4_000);
        let now = Instant::now();
        cache.insert(now, 0, key(b"hot"), &[0; 100], &[12], Duration::from_secs(10));
        for n in 1..1_000u64 {
            assert!(age(&mut cache, now, 0, b"hot").is_some(), "{n}");
            cache.insert(now, n, key(&n.to_be_bytes()), &[0; 100], &[], Duration::from_secs(10));
            assert!(cache.bytes() <= 4_000);
        }
        assert!(cache.len() > 5);
    }

    #[test]
    fn a_stale_answer_survives_failures_for_a_day() {
        let mut cache = Cache::new(10_000);
        let (start, day) = (Instant::now(), Duration::from_secs(86_400));
        cache.insert(start, 7, key(b"a"), &[0; 20], &[], Duration::from_secs(10));
        let end = start + Duration::from_secs(10);
        assert!(cache.find_stale(end - Duration::from_millis(1), 7, key(b"a")).is_none(), "still fresh");
        assert!(cache.find(end, 7, key(b"a")).is_none());
        assert!(cache.find_stale(end, 7, key(b"a")).is_some());
        cache.insert_failure(end, 7, key(b"a"), Duration::from_secs(1));
        let recheck = end + Duration::from_secs(30);
        assert!(matches!(cache.find(recheck - Duration::from_millis(1), 7, key(b"a")), Some(Hit::Stale(_))));
        assert!(cache.find(recheck, 7, key(b"a")).is_none());
        cache.insert_failure(recheck, 7, key(b"a"), Duration::from_secs(1));
        cache.forget_failures();
        assert!(cache.find(recheck, 7, key(b"a")).is_none(), "the way out has changed: ask");
        assert!(cache.find_stale(end + day - Duration::from_secs(1), 7, key(b"a")).is_some());
        assert!(cache.find_stale(end + day, 7, key(b"a")).is_none());
    }

    #[test]
    fn replacing_keeps_the_books() {
        let mut cache = Cache::new(4_000);
        let now = Instant::now();
        for size in [10, 500, 20, MAX_ENTRY_BYTES + 1] {
            cache.insert(now, 1, key(b"x"), &vec![0; size], &[], Duration::from_secs(1));
        }
        assert_eq!((cache.len(), cache.bytes()), (1, ENTRY_OVERHEAD + 1 + 20));
        cache.insert_failure(now, 1, key(b"x"), Duration::from_secs(1));
        assert!(matches!(cache.find(now, 1, key(b"x")), Some(Hit::Failure)));
        cache.forget_failures();
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }
}
