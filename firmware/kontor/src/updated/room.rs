//! Room on `system` for a release on its way: whose folders these are, what is in nobody's way any more, whether it fits.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use anyhow::{Context as _, ensure};
use kontor_update::Release;
use kontor_update::release::Object;
use nix::fcntl::OFlag;

use super::held::Kind;
use super::images::Wanted;
use super::places::{FETCH_USER, PART, Places};
use crate::storage::{Room, SYSTEM};

/// What must stay free on `system` for its own file system.
const SPARE_BYTES: u64 = 16 << 20;

/// The directories that belong to the children that fetch. What holds them does not, so that none of them is ever a link.
pub(super) fn prepare(places: &Places) -> anyhow::Result<()> {
    let [work, below @ ..] = places.all();
    own(&work, 0)?;
    below.iter().try_for_each(|folder| own(folder, FETCH_USER))
}

fn own(folder: &Path, user: u32) -> anyhow::Result<()> {
    let made = match fs::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    let opened = made.and_then(|()| {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(folder)
    });
    let owned = opened.and_then(|folder| fchown(folder, Some(user), Some(user)));
    owned.with_context(|| folder.display().to_string())
}

/// What an earlier release has left, and this one does not name, is in nobody's way any more.
pub(super) fn keep_only(release: &Release, places: &Places) {
    let images = release.images().map(|(_, image)| image.sha256.as_str());
    let objects = release.objects().map(|object| object.sha256.as_str());
    let kept: Vec<&str> = images.chain(objects).collect();
    for folder in [places.images(), places.objects()] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !kept.contains(&name.strip_suffix(PART).unwrap_or(&name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether a release fits: its images, and the largest download beside them.
pub(super) fn has_room(images: &[Wanted], places: &Places) -> anyhow::Result<()> {
    let missing =
        images.iter().map(|wanted| &wanted.image).filter(|image| !places.image(&image.sha256).exists());
    // Components are copied once more when they are installed.
    let components = images.iter().filter(|wanted| wanted.kind == Kind::Component);
    let copied: u64 = components.map(|wanted| wanted.image.bytes).sum();
    let (mut need, mut largest) = (SPARE_BYTES + copied, 0);
    for image in missing {
        // Of an unfinished one, what has been written takes its room already.
        let part = places.part(&image.sha256).symlink_metadata().map_or(0, |part| part.blocks() * 512);
        need += image.bytes.saturating_sub(part);
        largest = image.full().map_or(0, |object| missing_of(object, places)).max(largest);
    }
    let free = Room::read(SYSTEM.as_ref()).context(SYSTEM)?.free;
    let need = need + largest;
    ensure!(
        free >= need,
        "the disk is too small: the release needs {} MiB on system, {} MiB are free",
        need >> 20,
        free >> 20
    );
    Ok(())
}

/// What of a download has not come yet.
fn missing_of(object: &Object, places: &Places) -> u64 {
    let path = places.objects().join(object.sha256.as_str());
    object.bytes.saturating_sub(path.symlink_metadata().map_or(0, |found| found.len()))
}
