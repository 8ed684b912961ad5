//! Images put together from every form, with interruptions, damage, and sources that lie.

use proptest::prelude::*;

use super::*;
use crate::digest::sha256;
use crate::index::Index;
use crate::io::{Sequential, Source};
use crate::pack;
use crate::patch::{self, Header};

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

fn old() -> Vec<u8> {
    [noise(1, 400_000), vec![0; 300_000], noise(2, 300_000)].concat()
}

/// The old one with something inserted, something changed here and there, a hole, and a part twice.
fn new() -> Vec<u8> {
    let old = old();
    let mut moved = old[700_000..].to_vec();
    moved.iter_mut().step_by(337).for_each(|byte| *byte = byte.wrapping_add(4));
    [&old[..200_000], &noise(3, 5_000), &old[200_000..400_000], &[0; 350_000], &moved, &old[..100_000]]
        .concat()
}

fn part(bytes: &[u8], range: Range) -> &[u8] {
    &bytes[range.offset as usize..range.end() as usize]
}

#[test]
fn chunks_from_an_old_image_and_the_pack() {
    let (old, new) = (old(), new());
    let made = pack::make(&new, 12).unwrap();
    let index = Index::decode(&made.index.encode()).unwrap();
    let mut chunks = Chunks::new(&index);
    let mut target = Vec::new();
    chunks.resume(&mut target);
    chunks.look_in(0, Sequential::new(old.as_slice(), old.len() as u64)).unwrap();
    let asked = chunks.fetch();
    let cost: u64 = asked.iter().map(|range| range.length).sum();
    assert!((300_000..360_000).contains(&cost), "{cost}");
    let mut source = old.clone();
    chunks.local(&mut [&mut source], &mut target).unwrap();
    assert_eq!(chunks.fetch(), asked);
    assert!(!chunks.is_complete());
    for range in asked {
        chunks.receive(range, part(&made.pack, range), &mut target).unwrap();
    }
    assert!(chunks.is_complete() && chunks.fetch().is_empty());
    assert_eq!(sha256(&target), index.sha256);
    assert_eq!(target, new);
}

#[test]
fn an_interrupted_attempt_is_not_fetched_again() {
    let new = new();
    let made = pack::make(&new, 12).unwrap();
    let mut target = vec![0xff; new.len()];
    let mut chunks = Chunks::new(&made.index);
    let asked = chunks.fetch();
    assert_eq!(asked, [Range { offset: 0, length: made.pack.len() as u64 }]);
    let error = chunks.receive(asked[0], &made.pack[..made.pack.len() / 2], &mut target).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let mut again = Chunks::new(&made.index);
    again.resume(&mut target);
    let left: u64 = again.fetch().iter().map(|range| range.length).sum();
    assert!(left < made.pack.len() as u64 / 2 + 40_000, "{left}");
    again.local(&mut [], &mut target).unwrap();
    for range in again.fetch() {
        again.receive(range, part(&made.pack, range), &mut target).unwrap();
    }
    assert!(again.is_complete());
    assert_eq!(target, new);
}

#[test]
fn a_source_that_changes_meanwhile_is_fetched_instead() {
    let (mut old, new) = (old(), new());
    let made = pack::make(&new, 12).unwrap();
    let mut chunks = Chunks::new(&made.index);
    chunks.look_in(0, old.as_slice()).unwrap();
    let before = chunks.fetch();
    old[100_000] ^= 1;
    let mut target = Vec::new();
    chunks.local(&mut [&mut old], &mut target).unwrap();
    assert!(chunks.fetch().len() > before.len());
    for range in chunks.fetch() {
        chunks.receive(range, part(&made.pack, range), &mut target).unwrap();
    }
    chunks.local(&mut [&mut old], &mut target).unwrap();
    assert!(chunks.is_complete());
    assert_eq!(target, new);
}

#[test]
fn a_damaged_pack_is_noticed() {
    let new = new();
    let mut made = pack::make(&new, 12).unwrap();
    made.pack[50_000] ^= 1;
    let mut chunks = Chunks::new(&made.index);
    let all = chunks.fetch()[0];
    let error = chunks.receive(all, made.pack.as_slice(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Damaged { part: "chunk", offset: 1.. }), "{error}");
}

/// A disk with a bad sector.
struct Worn(Vec<u8>);

impl Source for Worn {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        if (offset..offset + buffer.len() as u64).contains(&100_000) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn around_a_bad_sector_everything_is_used() {
    let (old, new) = (old(), new());
    let made = pack::make(&new, 12).unwrap();
    let missing = |source: Worn, length: usize| {
        let mut chunks = Chunks::new(&made.index);
        chunks.look_in(0, Sequential::new(source, length as u64)).unwrap();
        chunks.fetch().iter().map(|range| range.length).sum::<u64>()
    };
    let length = old.len();
    let whole = missing(Worn([&old[..100_000], &[9], &old[100_001..]].concat()), length);
    assert!(whole < 450_000, "{whole}");
}

fn patched(patch: &[u8], old: &[u8], target: &mut Vec<u8>) -> Result<(), Error> {
    let needed = Header::needed(&patch[..patch::PREAMBLE])?;
    let header = Header::decode(&patch[..needed])?;
    let mut patching = Patching::new(&header);
    patching.resume(target);
    let mut old = old.to_vec();
    patching.local(&mut old, target)?;
    for range in patching.fetch() {
        let body = patch.get(range.offset as usize..).unwrap_or(&[]);
        patching.receive(range, body, &mut old, target)?;
    }
    assert!(patching.is_complete());
    Ok(())
}

#[test]
fn a_patch_makes_the_new_image_from_the_old_one() {
    let (old, new) = (old(), new());
    let patch = patch::make(&old, &new, patch::Options::default()).unwrap();
    assert!(patch.len() < 25_000, "{}", patch.len());
    for mut target in [Vec::new(), vec![0xff; new.len()], new.clone()] {
        patched(&patch, &old, &mut target).unwrap();
        assert!(target == new);
    }
}

#[test]
fn a_patch_goes_on_where_it_ended() {
    let (old, new) = (noise(1, 100_000), noise(2, 9_000_000));
    let patch = patch::make(&old, &new, patch::Options::default()).unwrap();
    let mut target = Vec::new();
    assert!(patched(&patch[..patch.len() / 2], &old, &mut target).unwrap_err().is_retryable());
    let header = Header::decode(&patch).unwrap();
    let mut patching = Patching::new(&header);
    patching.resume(&mut target);
    let left: u64 = patching.fetch().iter().map(|range| range.length).sum();
    assert!(left < 6_100_000, "a third is here: {left}");
    patched(&patch, &old, &mut target).unwrap();
    assert!(target == new);
}

#[test]
fn another_old_image_is_noticed() {
    let (old, new) = (old(), new());
    let patch = patch::make(&old, &new, patch::Options::default()).unwrap();
    let other: Vec<u8> = old.iter().map(|byte| byte.wrapping_add(1)).collect();
    let error = patched(&patch, &other, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Damaged { part: "segment", .. }), "{error}");
    assert!(patched(&patch, &old[..1000], &mut Vec::new()).is_err(), "or a shorter one");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_form_makes_the_same_image(seed in any::<u64>(), edits in proptest::collection::vec((0_usize..60_000, 0_usize..9_000, 0_usize..9_000), 0..6)) {
        let old = [noise(seed, 40_000), vec![0; 20_000]].concat();
        let mut new = old.clone();
        for (number, (at, removed, added)) in edits.into_iter().enumerate() {
            let at = at.min(new.len());
            let to = (at + removed).min(new.len());
            new.splice(at..to, noise(seed ^ number as u64 ^ 77, added));
        }
        let mut target = Vec::new();
        patched(&patch::make(&old, &new, patch::Options::default()).unwrap(), &old, &mut target).unwrap();
        prop_assert!(target == new);
        let made = pack::make(&new, 12).unwrap();
        let mut chunks = Chunks::new(&made.index);
        chunks.look_in(0, old.as_slice()).unwrap();
        let (mut target, mut source) = (Vec::new(), old);
        chunks.local(&mut [&mut source], &mut target).unwrap();
        for range in chunks.fetch() {
            chunks.receive(range, part(&made.pack, range), &mut target).unwrap();
        }
        prop_assert!(chunks.is_complete() && target == new);
    }
}
