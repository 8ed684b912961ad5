//! What a box fetches for an image: published, decided, put together and verified by the code of box and publisher.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kontor_delta::assemble::{Chunks, Patching};
use kontor_delta::digest::sha256;
use kontor_delta::io::Source;
use kontor_delta::pack::{self, Made};
use kontor_delta::patch::{self, Header};
use kontor_delta::plan::{self, Allowance, First, Holding, Offer, PatchOffer, Way};
use kontor_delta::{Sha256Sum, full};

/// A new image in the forms that know of no old one.
pub(super) struct Published {
    pub(super) image: Vec<u8>,
    sha256: Sha256Sum,
    pub(super) full: Vec<u8>,
    pub(super) index: Vec<u8>,
    made: Made,
}

impl Published {
    pub(super) fn new(image: Vec<u8>) -> Result<Self> {
        let full = full::make(&image)?;
        let made = pack::make(&image, pack::average(&image, full.len() as u64)?)?;
        Ok(Self { sha256: sha256(&image), index: made.index.encode(), full, made, image })
    }
}

/// What a box did, in octets and seconds.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    pub(super) way: &'static str,
    /// Everything fetched: what was decided for, and the index, where it was needed for that.
    pub(super) bytes: u64,
    /// What chunks alone would have come to, with the index.
    pub(super) chunks: u64,
    /// From the bytes fetched to the verified image.
    pub(super) apply_s: f64,
}

/// Updates a box that has these images; there is a patch from the first of them, if any.
pub(super) fn fetch(
    published: &Published,
    have: &[&[u8]],
    patch: Option<&[u8]>,
    allowance: &mut Allowance,
) -> Result<Fetched> {
    let images: Vec<Sha256Sum> = have.iter().map(|image| sha256(image)).collect();
    let patches = patch.map(|patch| PatchOffer { old: images[0], length: patch.len() as u64 });
    let offer = Offer {
        full: published.full.len() as u64,
        index: allowance.index(Some(published.index.len() as u64)),
        patches: patches.into_iter().collect(),
    };
    let holding = Holding { images: &images, full_fetched: 0 };
    let mut chunks = Chunks::new(&published.made.index);
    for (number, image) in have.iter().enumerate() {
        chunks.look_in(number, *image)?;
    }
    let ranges = chunks.fetch();
    let index = published.index.len() as u64;
    let missing: u64 = ranges.iter().map(|range| range.length).sum();
    let (way, asked) = match offer.first(holding) {
        First::Take(way) => (way, 0),
        First::AskIndex => (offer.second(holding, plan::cost(&ranges)), index),
    };
    let began = Instant::now();
    let (way, bytes) = match way {
        Way::Full => (("full", apply_full(published)?), published.full.len() as u64),
        Way::Patch(_) => {
            let patch = patch.context("a patch was chosen, and there is none")?;
            (("patch", apply_patch(patch, have[0])?), patch.len() as u64)
        }
        Way::Chunks => (("chunks", apply_chunks(chunks, published, have)?), missing),
    };
    let apply_s = began.elapsed().as_secs_f64();
    let (way, target) = way;
    if asked > 0 {
        allowance.spend(asked, bytes, offer.full);
    }
    ensure!(sha256(&target) == published.sha256, "{way}: what was put together is not the image");
    Ok(Fetched { way, bytes: asked + bytes, chunks: index + missing, apply_s })
}

fn apply_full(published: &Published) -> Result<Vec<u8>> {
    let mut target = Vec::new();
    full::assemble(published.full.as_slice(), published.image.len() as u64, &mut target)?;
    Ok(target)
}

fn apply_patch(patch: &[u8], old: &[u8]) -> Result<Vec<u8>> {
    let header = Header::decode(patch)?;
    let mut patching = Patching::new(&header);
    let (mut old, mut target) = (old, Vec::new());
    patching.local(&mut old, &mut target)?;
    for range in patching.fetch() {
        let body = &patch[range.offset as usize..range.end() as usize];
        patching.receive(range, body, &mut old, &mut target)?;
    }
    Ok(target)
}

fn apply_chunks(mut chunks: Chunks<'_>, published: &Published, have: &[&[u8]]) -> Result<Vec<u8>> {
    let mut target = Vec::new();
    let mut sources: Vec<&[u8]> = have.to_vec();
    let mut sources: Vec<&mut dyn Source> =
        sources.iter_mut().map(|image| image as &mut dyn Source).collect();
    chunks.local(&mut sources, &mut target)?;
    for range in chunks.fetch() {
        let body = &published.made.pack[range.offset as usize..range.end() as usize];
        chunks.receive(range, body, &mut target)?;
    }
    Ok(target)
}

/// The patch a publisher makes beside the new image.
pub(super) fn publish_patch(published: &Published, old: &[u8]) -> Result<Vec<u8>> {
    Ok(patch::make(old, &published.image, patch::Options::default())?)
}
