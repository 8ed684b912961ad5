//! The choice between the forms, made before the download; and which ranges are asked for.
//!
//! **Invariant:** what is fetched for a release, together, is at most the full forms of its images and [`MOST_BEYOND_FULL`]
//! ([`Allowance`]).

use crate::digest::Sha256Sum;
use crate::index;

/// What a box may fetch beyond the full forms of a release: indexes that turned out to be of no use, and headers.
pub const MOST_BEYOND_FULL: u64 = 64 << 10;
/// What asking for a range costs: the headers of an HTTP request and its answer, in octets.
pub const RANGE_COST: u64 = 512;
/// So many unneeded octets between two ranges are fetched rather than asked around: a new range costs as much, and a round
/// trip in addition (at 10 Mbit/s, 4 KiB take 3 ms).
pub const GAP: u64 = 4 << 10;
/// Most ranges of one file, each a request of its own: not every server, proxy or cache knows several in one, and thousands of
/// requests are taken for an attack.
pub const RANGE_COUNT_LIMIT: usize = 256;
/// A patch that is smaller than this share of the full form is taken unseen: chunks are hardly smaller, and the index to find
/// that out is not free.
const CLEARLY_SMALL: u64 = 4;

/// A range of a file on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its first octet.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

impl Range {
    /// The octet behind it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Joins ranges, sorted and not overlapping, over small gaps; and over larger ones when there are too many.
#[must_use]
pub fn coalesce(wanted: &[Range]) -> Vec<Range> {
    let gap = |pair: &[Range]| pair[1].offset - pair[0].end();
    let mut gaps: Vec<u64> = wanted.windows(2).map(gap).collect();
    // The widest gaps are the ones to keep.
    gaps.sort_unstable_by_key(|gap| std::cmp::Reverse(*gap));
    let limit = gaps.get(RANGE_COUNT_LIMIT - 1).map_or(GAP, |gap| GAP.max(*gap));
    let mut joined: Vec<Range> = Vec::new();
    for range in wanted {
        match joined.last_mut() {
            Some(last) if range.offset - last.end() <= limit => last.length = range.end() - last.offset,
            _ => joined.push(*range),
        }
    }
    joined
}

/// What fetching these ranges costs, with headers.
#[must_use]
pub fn cost(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| range.length + RANGE_COST).sum()
}

/// What the signed manifest says of an image's forms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Length of the full form.
    pub full: u64,
    /// Length of the index, if there are chunks.
    pub index: Option<u64>,
    /// Patches.
    pub patches: Vec<PatchOffer>,
}

/// A patch from one old image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchOffer {
    /// The old image.
    pub old: Sha256Sum,
    /// Length of the patch; when some of it has been applied, what is left.
    pub length: u64,
}

/// What the box has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Holding<'a> {
    /// Whole images, known by their SHA-256.
    pub images: &'a [Sha256Sum],
    /// So much of the full form is here already, from its beginning.
    pub full_fetched: u64,
}

/// What is left of [`MOST_BEYOND_FULL`] while the images of one release are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance(u64);

impl Default for Allowance {
    fn default() -> Self {
        Self(MOST_BEYOND_FULL)
    }
}

impl Allowance {
    /// An index is asked for only while it may turn out to be of no use.
    #[must_use]
    pub fn index(self, bytes: Option<u64>) -> Option<u64> {
        // Both it and what is then fetched have headers.
        bytes.filter(|bytes| bytes.saturating_add(2 * RANGE_COST) <= self.0)
    }

    /// An image's index and its `rest` were fetched, where `full` would have done.
    pub fn spend(&mut self, index: u64, rest: u64, full: u64) {
        let fetched = index.saturating_add(rest).saturating_add(2 * RANGE_COST);
        self.0 = self.0.saturating_sub(fetched.saturating_sub(full));
    }
}

/// A form of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The whole stream.
    Full,
    /// The patch with this number in the offer.
    Patch(usize),
    /// The chunks that are missing.
    Chunks,
}

/// What is done first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// Clear without the index.
    Take(Way),
    /// Fetch the index, see what is missing, and ask [`Offer::second`].
    AskIndex,
}

impl Offer {
    /// Decides as far as that is possible without the index.
    #[must_use]
    pub fn first(&self, holding: Holding<'_>) -> First {
        let full = self.full_left(holding);
        let best = self.without_chunks(holding);
        let index = self.index.filter(|index| *index <= index::LIMIT as u64);
        let Some(index) = index else { return First::Take(best.0) };
        let clear = matches!(best.0, Way::Patch(_)) && best.1 <= full / CLEARLY_SMALL;
        if clear || best.1 <= index + RANGE_COST { First::Take(best.0) } else { First::AskIndex }
    }

    /// Decides when the index is here; `chunks` is the [`cost`] of those that are missing.
    #[must_use]
    pub fn second(&self, holding: Holding<'_>, chunks: u64) -> Way {
        let best = self.without_chunks(holding);
        if chunks < best.1 { Way::Chunks } else { best.0 }
    }

    fn without_chunks(&self, holding: Holding<'_>) -> (Way, u64) {
        let full = (Way::Full, self.full_left(holding));
        let fits = |(_, patch): &(usize, &PatchOffer)| holding.images.contains(&patch.old);
        let patches = self.patches.iter().enumerate().filter(fits);
        // Its header is a range of its own.
        let costs =
            patches.map(|(number, patch)| (Way::Patch(number), patch.length.saturating_add(2 * RANGE_COST)));
        std::iter::once(full).chain(costs).min_by_key(|(_, cost)| *cost).unwrap_or(full)
    }

    fn full_left(&self, holding: Holding<'_>) -> u64 {
        self.full.saturating_sub(holding.full_fetched) + RANGE_COST
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: Sha256Sum = [1; 32];
    const OTHER: Sha256Sum = [2; 32];

    fn offer(full: u64, index: u64, patch: u64) -> Offer {
        Offer { full, index: Some(index), patches: vec![PatchOffer { old: OLD, length: patch }] }
    }

    #[test]
    fn the_smallest_form_is_taken() {
        let has = Holding { images: &[OLD], full_fetched: 0 };
        let lacks = Holding { images: &[OTHER], full_fetched: 0 };
        let mib = 1 << 20;
        let offered = offer(40 * mib, 50_000, mib);
        assert_eq!(offered.first(has), First::Take(Way::Patch(0)));
        assert_eq!(offered.first(lacks), First::AskIndex);
        assert_eq!(offered.second(lacks, 3 * mib), Way::Chunks);
        assert_eq!(offered.second(lacks, 41 * mib), Way::Full);
        // So much has changed that chunks from elsewhere may be better.
        let offered = offer(40 * mib, 50_000, 30 * mib);
        assert_eq!(offered.first(has), First::AskIndex);
        assert_eq!(offered.second(has, 35 * mib), Way::Patch(0));
        assert_eq!(offered.second(has, 20 * mib), Way::Chunks);
        // The rest of what was interrupted.
        let interrupted = Holding { images: &[OLD], full_fetched: 40 * mib - 1000 };
        assert_eq!(offered.first(interrupted), First::Take(Way::Full));
        // An index that is longer than the format allows is not looked at.
        assert_eq!(offer(40 * mib, 70_000, 39 * mib).first(lacks), First::Take(Way::Full));
    }

    #[test]
    fn ranges_are_joined_over_small_gaps_and_never_too_many() {
        let range = |offset, length| Range { offset, length };
        assert_eq!(coalesce(&[]), []);
        assert_eq!(
            coalesce(&[range(0, 10), range(10, 5), range(15 + GAP, 1), range(17 + 2 * GAP, 1)]),
            [range(0, 16 + GAP), range(17 + 2 * GAP, 1)]
        );
        let many: Vec<Range> = (0..2000).map(|n| range(n * 100_000 + n * n, 10)).collect();
        let joined = coalesce(&many);
        assert!(
            joined.len() <= RANGE_COUNT_LIMIT && joined.len() > RANGE_COUNT_LIMIT / 2,
            "{}",
            joined.len()
        );
        let even: Vec<Range> = (0..2000).map(|n| range(n * 100_000, 10)).collect();
        assert!(coalesce(&even).len() <= RANGE_COUNT_LIMIT);
    }

    proptest! {
        #[test]
        fn never_more_than_full_and_64_kib(
            full in 0_u64..1 << 32, index in proptest::option::of(0_u64..1 << 20), patches in proptest::collection::vec((any::<bool>(), 0_u64..1 << 33), 0..3),
            chunks in 0_u64..1 << 33, fetched in 0_u64..1 << 32,
        ) {
            let patches: Vec<_> = patches.into_iter()
                .map(|(here, length)| PatchOffer { old: if here { OLD } else { OTHER }, length }).collect();
            let offer = Offer { full, index, patches };
            let holding = Holding { images: &[OLD], full_fetched: fetched.min(full) };
            let (way, asked) = match offer.first(holding) {
                First::Take(way) => (way, 0),
                First::AskIndex => (offer.second(holding, chunks), index.unwrap_or(0) + RANGE_COST),
            };
            let taken = match way {
                Way::Full => full - holding.full_fetched + RANGE_COST,
                Way::Patch(number) => {
                    prop_assert_eq!(offer.patches[number].old, OLD);
                    offer.patches[number].length + 2 * RANGE_COST
                }
                Way::Chunks => chunks,
            };
            prop_assert!(fetched.min(full) + asked + taken <= full + MOST_BEYOND_FULL);
        }

        #[test]
        fn no_release_costs_more_than_its_images_and_64_kib(
            images in proptest::collection::vec((0_u64..1 << 32, 0_u64..1 << 17, 0_u64..1 << 33), 0..40),
        ) {
            let (mut allowance, mut fetched, mut together) = (Allowance::default(), 0, 0);
            for (full, index, chunks) in images {
                let offer = Offer { full, index: allowance.index(Some(index)), patches: Vec::new() };
                let holding = Holding::default();
                together += full;
                if offer.first(holding) == First::AskIndex {
                    let rest = if offer.second(holding, chunks) == Way::Chunks { chunks } else { full };
                    allowance.spend(index, rest, full);
                    fetched += index + rest;
                } else {
                    fetched += full;
                }
            }
            prop_assert!(fetched <= together + MOST_BEYOND_FULL);
        }

        #[test]
        fn what_is_wanted_is_in_what_is_asked_for(lengths in proptest::collection::vec((1_u64..20_000, 1_u64..9000), 0..700)) {
            let mut offset = 0;
            let wanted: Vec<Range> = lengths.into_iter().map(|(gap, length)| {
                let range = Range { offset: offset + gap, length };
                offset = range.end();
                range
            }).collect();
            let joined = coalesce(&wanted);
            prop_assert!(joined.len() <= RANGE_COUNT_LIMIT);
            for range in &wanted {
                prop_assert!(joined.iter().any(|ask| ask.offset <= range.offset && range.end() <= ask.end()));
            }
            prop_assert!(joined.windows(2).all(|pair| pair[0].end() < pair[1].offset));
        }
    }
}
