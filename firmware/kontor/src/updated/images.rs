//! Images, each in the way that costs the line least: from a patch, from chunks that are missing, or whole.
//!
//! Decided before the download, by what the box holds (`kontor_delta::plan`). A way that fails for another reason than line or disk
//! gives way to the full form, and says so. **Invariant:** an image has its name when its SHA-256 was the signed one, and not before.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use kontor_delta::assemble::{Chunks, Patching};
use kontor_delta::index::Index;
use kontor_delta::io::{Sequential, Source};
use kontor_delta::patch::{Header, PREAMBLE};
use kontor_delta::plan::{self, Allowance, First, Holding, Offer, PatchOffer, Way};
use kontor_delta::{Error, Sha256Sum, full};
use kontor_update::Sha256Hex;
use kontor_update::release::{Image, Object};
use serde::{Deserialize, Serialize};

use super::download::{CHUNK, Downloads, Failure};
use super::fetch::{Order, Progress};
use super::held::{Kind, Old, OnDisk};
use super::places::Places;

/// An image that is to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Wanted {
    /// For people.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) image: Image,
}

/// Makes the images of an order, and says what came over the line.
pub(super) fn fetch(order: &Order) -> anyhow::Result<Progress> {
    let full = order.images.iter().filter_map(|wanted| wanted.image.full());
    let mut maker = Maker {
        places: Places::new(&order.work),
        downloads: Downloads::new(order, full.map(|object| object.bytes).sum()),
        allowance: Allowance::default(),
        old: order.held.iter().map(|held| Old::take(*held)).collect::<Result<_, _>>()?,
    };
    for wanted in &order.images {
        maker.image(wanted).with_context(|| wanted.name.clone())?;
    }
    maker.downloads.say();
    Ok(maker.downloads.progress)
}

struct Maker {
    places: Places,
    downloads: Downloads,
    allowance: Allowance,
    old: Vec<Old>,
}

impl Maker {
    fn image(&mut self, wanted: &Wanted) -> anyhow::Result<()> {
        let Wanted { name, image, .. } = wanted;
        let whole = image.full().context("there is no full form")?;
        let finished = self.places.image(&image.sha256);
        if finished.metadata().is_ok_and(|found| found.len() == image.bytes) {
            self.downloads.expect(whole.bytes, 0);
            return Ok(());
        }
        let part = self.places.part(&image.sha256);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part);
        let mut target = OnDisk(file.with_context(|| part.display().to_string())?);
        let made = match self.smallest(wanted, whole, &mut target) {
            Ok(Way::Full) => Err(None),
            Ok(way) => ended_as(image, &mut target).map_err(|error| Some(error.context(spoken(way)))),
            Err(Failure::Form(error)) => Err(Some(error)),
            Err(failure) => return Err(failure.into()),
        };
        if let Err(why) = made {
            if let Some(why) = why {
                eprintln!("{name}: {why:#}; fetching the whole image instead");
                self.downloads.expect(0, whole.bytes - self.downloads.have(whole));
            }
            self.forget_delta(image);
            self.full(image, whole, &mut target)?;
        }
        target.0.sync_all()?;
        fs::rename(&part, &finished).with_context(|| finished.display().to_string())?;
        File::open(self.places.images())?.sync_all()?;
        self.forget(image);
        Ok(())
    }

    /// What was downloaded for an image that is finished.
    fn forget(&self, image: &Image) {
        self.forget_delta(image);
        if let Some(whole) = image.full() {
            let _ = fs::remove_file(self.downloads.path(whole));
        }
    }

    /// What was downloaded for another form than the full one takes no room beside it.
    fn forget_delta(&self, image: &Image) {
        let chunks = image.chunks().map(|(index, _)| index);
        let patches = image.patches().map(|(_, _, patch)| patch);
        for object in chunks.into_iter().chain(patches) {
            let _ = fs::remove_file(self.downloads.path(object));
        }
    }

    /// Chooses, and follows the choice unless it is the full form.
    fn smallest(&mut self, wanted: &Wanted, whole: &Object, target: &mut OnDisk) -> Result<Way, Failure> {
        let Wanted { name, kind, image } = wanted;
        let patches: Vec<_> = image.patches().collect();
        let here: Vec<(Sha256Sum, usize)> = patches
            .iter()
            .filter_map(|(from, bytes, _)| {
                let found = self.old.iter_mut().position(|old| old.is(*bytes, from))?;
                Some((from.to_bytes(), found))
            })
            .collect();
        let images: Vec<Sha256Sum> = here.iter().map(|(sum, _)| *sum).collect();
        let holding = Holding { images: &images, full_fetched: self.downloads.have(whole) };
        let left = |(from, _, patch): &(&Sha256Hex, u64, &Object)| PatchOffer {
            old: from.to_bytes(),
            length: patch.bytes - self.downloads.have(patch),
        };
        let offer = Offer {
            full: whole.bytes,
            index: self.allowance.index(image.chunks().map(|(index, _)| index.bytes)),
            patches: patches.iter().map(left).collect(),
        };
        let way = match (offer.first(holding), image.chunks()) {
            (First::AskIndex, Some((index, pack))) => {
                let index = self.index(image, index, pack)?;
                let mut chunks = Chunks::new(&index);
                chunks.resume(target);
                self.look(*kind, &mut chunks);
                let cost = plan::cost(&chunks.fetch());
                let left = offer.full - holding.full_fetched;
                let way = offer.second(holding, cost);
                let rest = match way {
                    Way::Full => left,
                    Way::Patch(number) => offer.patches[number].length,
                    Way::Chunks => cost,
                };
                self.allowance.spend(offer.index.unwrap_or(0), rest, left);
                if way == Way::Chunks {
                    self.choose(name, Way::Chunks, cost, whole);
                    return self.chunks(chunks, pack, left + plan::RANGE_COST, target).map(|()| way);
                }
                way
            }
            (First::Take(way), _) => way,
            (First::AskIndex, None) => Way::Full,
        };
        let Way::Patch(number) = way else {
            self.choose(name, Way::Full, whole.bytes - holding.full_fetched, whole);
            return Ok(Way::Full);
        };
        let (from, _, patch) = patches[number];
        let found = here.iter().find(|(sum, _)| *sum == from.to_bytes());
        let old = found.map(|(_, old)| *old).ok_or_else(|| Failure::Form(anyhow!("no old image")))?;
        self.choose(name, way, offer.patches[number].length, whole);
        self.patch(image, patch, from, old, target)?;
        Ok(way)
    }

    fn choose(&mut self, name: &str, way: Way, cost: u64, whole: &Object) {
        eprintln!("{name}: {}, {} of {} KiB", spoken(way), cost >> 10, whole.bytes >> 10);
        self.downloads.expect(whole.bytes, cost);
    }

    fn index(&mut self, image: &Image, index: &Object, pack: &Object) -> Result<Index, Failure> {
        self.downloads.expect(0, index.bytes);
        let path = self.downloads.object(index)?;
        let bytes = fs::read(&path).with_context(|| path.display().to_string()).map_err(Failure::Local)?;
        let check = || {
            let index = Index::decode(&bytes).context("rule index")?;
            ensure!(
                index.sha256 == image.sha256.to_bytes() && index.length == image.bytes,
                "rule index: it is of another image"
            );
            ensure!(index.pack_length() == pack.bytes, "rule index: it is of another pack");
            Ok(index)
        };
        check().map_err(Failure::Form)
    }

    /// Looks for chunks in what is of the same kind; what cannot be read is fetched.
    fn look(&mut self, kind: Kind, chunks: &mut Chunks<'_>) {
        for (number, old) in self.old.iter_mut().enumerate().filter(|(_, old)| old.kind == kind) {
            let bytes = old.bytes;
            if let Err(error) = chunks.look_in(number, Sequential::new(old.source(), bytes)) {
                eprintln!("image {number} is of no use: {error:#}");
            }
        }
    }

    /// Everything that is here, and what is missing from the server.
    fn chunks(
        &mut self,
        mut chunks: Chunks<'_>,
        pack: &Object,
        most: u64,
        target: &mut OnDisk,
    ) -> Result<(), Failure> {
        self.local_chunks(&mut chunks, target)?;
        if plan::cost(&chunks.fetch()) > most {
            return Err(Failure::Form(anyhow!("the disk has lost what it had a moment ago")));
        }
        let mut fruitless = 0;
        loop {
            let before = chunks.fetch();
            if before.is_empty() {
                break;
            }
            if let Err(failure) = self.ranges(&mut chunks, pack, target) {
                self.downloads.pause(failure, chunks.fetch() != before, &mut fruitless)?;
            }
        }
        self.local_chunks(&mut chunks, target)?;
        if chunks.is_complete() {
            Ok(())
        } else {
            Err(Failure::Form(anyhow!("rule index: chunks are missing")))
        }
    }

    fn local_chunks(&mut self, chunks: &mut Chunks<'_>, target: &mut OnDisk) -> Result<(), Failure> {
        let mut sources: Vec<&mut dyn Source> =
            self.old.iter_mut().map(|old| old.source() as &mut dyn Source).collect();
        chunks.local(&mut sources, target).map_err(|error| Failure::Local(error.into()))
    }

    fn ranges(&mut self, chunks: &mut Chunks<'_>, pack: &Object, target: &mut OnDisk) -> Result<(), Failure> {
        for range in chunks.fetch() {
            let mut body = self.downloads.range(pack, range)?;
            let received = chunks.receive(range, &mut body, target);
            let ended = body.ended;
            received.map_err(|error| match error {
                Error::Io(error) if ended && error.kind() == ErrorKind::UnexpectedEof => {
                    Failure::Short(error.into())
                }
                Error::Io(error) if ended => Failure::Remote(error.into()),
                Error::Io(error) => Failure::Local(error.into()),
                error => Failure::Form(anyhow::Error::new(error).context("rule hash")),
            })?;
        }
        Ok(())
    }

    /// The patch as a file, checked, and what it makes of the old image.
    fn patch(
        &mut self,
        image: &Image,
        patch: &Object,
        from: &Sha256Hex,
        old: usize,
        target: &mut OnDisk,
    ) -> Result<(), Failure> {
        let path = self.downloads.object(patch)?;
        let old = self.old.get_mut(old).ok_or_else(|| Failure::Form(anyhow!("no old image")))?;
        apply(&path, image, from, old, target).context("rule patch").map_err(Failure::Form)
    }

    fn full(&mut self, image: &Image, whole: &Object, target: &mut OnDisk) -> anyhow::Result<()> {
        let path: PathBuf = self.downloads.object(whole)?;
        let stream = File::open(&path).with_context(|| path.display().to_string())?;
        let stream = BufReader::with_capacity(CHUNK, stream);
        let found = full::assemble(stream, image.bytes, &mut *target).map_err(|error| match error {
            Error::Malformed(what) => anyhow!("rule length: the object is not what the release says: {what}"),
            error => error.into(),
        })?;
        target.0.set_len(image.bytes)?;
        ensure!(found == image.sha256.to_bytes(), "rule hash: the image is not what the release says");
        Ok(())
    }
}

fn spoken(way: Way) -> &'static str {
    match way {
        Way::Full => "the whole image",
        Way::Patch(_) => "a patch",
        Way::Chunks => "chunks",
    }
}

/// What was put together, cut to its length and held against the signed hash.
fn ended_as(image: &Image, target: &mut OnDisk) -> anyhow::Result<()> {
    target.0.set_len(image.bytes)?;
    let found = target.hash(image.bytes)?;
    ensure!(found == image.sha256, "rule hash: the image is not what the release says");
    Ok(())
}

fn apply(
    path: &Path,
    image: &Image,
    from: &Sha256Hex,
    old: &mut Old,
    target: &mut OnDisk,
) -> anyhow::Result<()> {
    let mut patch = File::open(path)?;
    let mut head = vec![0; PREAMBLE];
    patch.read_exact(&mut head)?;
    head.resize(Header::needed(&head)?, 0);
    patch.read_exact(&mut head[PREAMBLE..])?;
    let header = Header::decode(&head)?;
    ensure!(
        header.sha256 == image.sha256.to_bytes()
            && header.length == image.bytes
            && header.old_sha256 == from.to_bytes()
            && header.old_length <= old.bytes,
        "it is of other images"
    );
    let mut patching = Patching::new(&header);
    patching.resume(target);
    patching.local(old.source(), target)?;
    for range in patching.fetch() {
        patch.seek(SeekFrom::Start(range.offset))?;
        patching.receive(range, (&mut patch).take(range.length), old.source(), target)?;
    }
    ensure!(patching.is_complete(), "segments are missing");
    Ok(())
}

#[cfg(test)]
mod tests;
