//! The forms in which an image is published: whole, in chunks, and as a patch from each older release that is named.
//!
//! Formats and choices are those of `kontor-delta`. The same images give the same bytes.

use std::fs;

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use kontor_delta::assemble::Chunks;
use kontor_delta::pack::{self, Made};
use kontor_delta::{patch, plan};
use kontor_update::Release;
use kontor_update::release::{Form, Image};

use super::objects;
use super::release::Folder;

/// Puts an image into a folder in all its forms. `old` finds the same image in an older release.
///
/// # Errors
/// When something cannot be read or written, or an older release is damaged.
pub fn make(
    name: &str,
    path: &Utf8Path,
    older: &[Folder],
    old: impl Fn(&Release) -> Option<&Image>,
    store: &Utf8Path,
) -> Result<Image> {
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
    image.forms.push(put_chunks(&made, &index, store)?);
    for folder in older {
        for release in &folder.releases {
            let Some(from) = old(release).filter(|from| from.sha256 != image.sha256) else { continue };
            if image.patches().any(|(known, ..)| *known == from.sha256) {
                continue;
            }
            let from_bytes = unpack(from, folder)?;
            let patch = patch::make(&from_bytes, &bytes, patch::Options::default())?;
            let chunks = index.len() as u64 + missing(&made, &from_bytes)?;
            let is_smaller = (patch.len() as u64) < chunks.min(full);
            let what = if is_smaller { "" } else { ", no smaller than chunks: left out" };
            eprintln!("{name}: {} KiB from {}{what}", patch.len() >> 10, release.version);
            if is_smaller {
                let (from, from_bytes) = (from.sha256.clone(), from.bytes);
                image.forms.push(Form::Patch { from, from_bytes, patch: objects::put(&patch, store)? });
            }
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
fn unpack(image: &Image, folder: &Folder) -> Result<Vec<u8>> {
    let object = image.full().context("no full form")?;
    objects::check(object, &folder.objects())?;
    let path = objects::path(&folder.objects(), object);
    let packed = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let bytes = zstd::decode_all(packed.as_slice()).with_context(|| path.to_string())?;
    ensure!(objects::sha256(&bytes) == image.sha256.as_str(), "{path} is not the image its release names");
    Ok(bytes)
}
