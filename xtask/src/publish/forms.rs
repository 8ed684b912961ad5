//! The forms in which an image is published: whole, in chunks, and as a patch from each older release that is named.
//!
//! Formats and choices are those of `kontor-delta`. The same images give the same bytes.

use std::fs;

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use kontor_delta::assemble::Chunks;
use kontor_delta::index::LIMIT;
use kontor_delta::pack::{self, Made};
use kontor_delta::{patch, plan};
use kontor_update::Version;
use kontor_update::release::{Form, Image};

use super::objects;
use super::release::Folder;

/// The same image in an older release.
#[derive(Debug, Clone, Copy)]
pub struct Older<'a> {
    /// The release's folder.
    pub folder: &'a Folder,
    /// Its version.
    pub version: Version,
    /// The image.
    pub image: &'a Image,
}

/// What these releases have of a product: its slot, or the component of this name.
#[must_use]
pub fn older<'a>(folders: &'a [Folder], product: &str, component: Option<&str>) -> Vec<Older<'a>> {
    let releases =
        folders.iter().flat_map(|folder| folder.releases.iter().map(move |release| (folder, release)));
    releases
        .filter(|(_, release)| release.product == product)
        .filter_map(|(folder, release)| {
            let image = match component {
                None => &release.slot,
                Some(name) => &release.components.iter().find(|component| component.name == name)?.image,
            };
            Some(Older { folder, version: release.version, image })
        })
        .collect()
}

/// Puts an image into a folder in all its forms.
///
/// # Errors
/// When something cannot be read or written, or an older release is damaged.
pub fn make(name: &str, path: &Utf8Path, older: &[Older<'_>], store: &Utf8Path) -> Result<Image> {
    let mut image = objects::compress(path, store)?;
    let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    let full = image.full().context("no full form")?.bytes;
    let made =
        pack::make(&bytes, pack::average(&bytes, full)?).with_context(|| format!("chunks of {path}"))?;
    let index = made.index.encode();
    eprintln!(
        "{name}: {} KiB, index {} KiB, chunks {} KiB",
        full >> 10,
        index.len() >> 10,
        made.pack.len() >> 10
    );
    if index.len() <= LIMIT {
        image.forms.push(put_chunks(&made, &index, store)?);
    } else {
        eprintln!("{name}: no box takes an index of more than {} KiB: chunks left out", LIMIT >> 10);
    }
    for old in older {
        let from = &old.image.sha256;
        if *from == image.sha256 || image.patches().any(|(known, ..)| known == from) {
            continue;
        }
        let old_bytes = unpack(old)?;
        let patch = patch::make(&old_bytes, &bytes, patch::Options::default())?;
        let chunks = index.len() as u64 + missing(&made, &old_bytes)?;
        let is_smaller = (patch.len() as u64) < chunks.min(full);
        let what = if is_smaller { "" } else { ", no smaller than chunks: left out" };
        eprintln!("{name}: {} KiB from {}{what}", patch.len() >> 10, old.version);
        if is_smaller {
            let (from, from_bytes) = (from.clone(), old.image.bytes);
            image.forms.push(Form::Patch { from, from_bytes, patch: objects::put(&patch, store)? });
        }
    }
    Ok(image)
}

/// Puts index and pack into a folder.
///
/// # Errors
/// When they cannot be written.
pub fn put_chunks(made: &Made, index: &[u8], store: &Utf8Path) -> Result<Form> {
    Ok(Form::Chunks { index: objects::put(index, store)?, pack: objects::put(&made.pack, store)? })
}

/// What a box with the old image has to fetch of the chunks.
fn missing(made: &Made, old: &[u8]) -> Result<u64> {
    let mut chunks = Chunks::new(&made.index);
    chunks.look_in(0, old)?;
    Ok(plan::cost(&chunks.fetch()))
}

/// An image of a release, checked.
fn unpack(old: &Older<'_>) -> Result<Vec<u8>> {
    let Older { folder, image, .. } = old;
    let object = image.full().context("no full form")?;
    objects::check(object, &folder.objects())?;
    let path = objects::path(&folder.objects(), object);
    let packed = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let bytes = zstd::decode_all(packed.as_slice()).with_context(|| path.to_string())?;
    ensure!(objects::sha256(&bytes) == image.sha256.as_str(), "{path} is not the image its release names");
    Ok(bytes)
}
