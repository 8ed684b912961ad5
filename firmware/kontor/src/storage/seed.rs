//! Importing the seed: once, durably, and then wiping it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kontor_boot::PartitionKind;
use kontor_boot::install::Order;
use kontor_boot::partition::SEED_SIZE;
use kontor_boot::seed::{self, SeedFile};
use kontor_status::paths;
use kontor_sys::file::{write_atomic, write_durable};

use super::disk::{Disk, open_writable};
use super::reset;

const SECTOR: usize = 512;
/// What a seed begins with once its files are safe elsewhere.
const IMPORTED: &[u8] = b"imported, to be wiped\n";
const STATE_SITE_DIRECTORY: &str = "/state/site";

/// The order to install in the seed of a stick. On any other disk there is nothing to install from.
pub(super) fn order(disk: &Disk, problems: &mut Vec<String>) -> Option<Order> {
    let found = waiting(disk).ok()?.into_iter().find(|file| file.path == seed::ORDER)?;
    if !disk.is_stick() {
        problems.push("the seed says `install`, but the box does not run from a stick: not done".to_owned());
        return None;
    }
    Order::parse(&found.content).inspect_err(|error| problems.push(error.to_string())).ok()
}

/// The files of a seed that has not been imported.
pub(crate) fn waiting(disk: &Disk) -> anyhow::Result<Vec<SeedFile>> {
    let node = disk.partition(PartitionKind::Seed)?;
    if is_empty(&node)? {
        return Ok(Vec::new());
    }
    let bytes = read(&node)?;
    if bytes.starts_with(IMPORTED) { Ok(Vec::new()) } else { Ok(seed::read(&bytes)?) }
}

/// Has the office served from RAM.
pub(super) fn serve(files: &[SeedFile]) -> anyhow::Result<()> {
    let site = files.iter().find(|file| file.path == "site.toml");
    site.map_or(Ok(()), |site| Ok(write_atomic(Path::new(paths::SEED_SITE), &site.content)?))
}

/// Clears a seed that has done its work elsewhere.
pub(crate) fn clear(disk: &Disk) -> anyhow::Result<()> {
    let node = disk.partition(PartitionKind::Seed)?;
    if is_empty(&node)? {
        return Ok(());
    }
    wipe(&open_writable(&node)?, read(&node)?.len())
}

/// Moves the seed's files to `state` and wipes the partition. Without `state` the seed stays, and its site
/// file serves this boot from RAM.
pub(super) fn import(disk: &Disk, state_mounted: bool) -> anyhow::Result<()> {
    let node = disk.partition(PartitionKind::Seed)?;
    if is_empty(&node)? {
        return Ok(());
    }
    let bytes = read(&node)?;
    if bytes.starts_with(IMPORTED) {
        return wipe(&open_writable(&node)?, bytes.len());
    }
    let mut files = seed::read(&bytes)?;
    files.retain(|file| file.path != seed::ORDER);
    if !state_mounted {
        serve(&files)?;
        bail!("kept until there is a state partition");
    }
    let kept = disk.partition(PartitionKind::BootState);
    if let Err(error) = kept.and_then(|bootstate| reset::keep_factory_site(&bootstate, &files)) {
        // No reason to leave the office without its site.
        eprintln!("warning: a factory reset will not bring this site file back: {error:#}");
    }
    store(&files, Path::new(STATE_SITE_DIRECTORY))?;
    wipe(&open_writable(&node)?, bytes.len())?;
    eprintln!("imported {} files from the seed", files.len());
    Ok(())
}

/// By its first sector: a tar begins with a name, and [`wipe`] clears that sector last.
fn is_empty(node: &Path) -> anyhow::Result<bool> {
    let mut start = Vec::new();
    let file = File::open(node).with_context(|| node.display().to_string())?;
    file.take(SECTOR as u64).read_to_end(&mut start)?;
    Ok(seed::is_empty(&start))
}

fn read(node: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(node).with_context(|| node.display().to_string())?;
    file.take(SEED_SIZE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Secrets first: when the site file is there, everything it needs is.
pub(super) fn store(files: &[SeedFile], directory: &Path) -> anyhow::Result<()> {
    let secrets = directory.join("secrets");
    fs::create_dir_all(&secrets)?;
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700))?;
    let is_site = |file: &&SeedFile| file.path == "site.toml";
    let secret_files = files.iter().filter(|file| !is_site(file));
    for file in secret_files.chain(files.iter().filter(is_site)) {
        let path: PathBuf = directory.join(&file.path);
        // Cut short before it was wiped, the seed is imported again: a second copy would leave the first one's blocks on the disk.
        if fs::read(&path).is_ok_and(|content| content == file.content) {
            continue;
        }
        write_durable(&path, &file.content).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Clears the partition, whenever it is cut short: the first sector says from the first moment that what follows is
/// no seed any more, and is cleared last.
fn wipe(partition: &File, length: usize) -> anyhow::Result<()> {
    let write = |bytes: &[u8], offset: usize| {
        partition.write_all_at(bytes, offset as u64)?;
        partition.sync_all()
    };
    let mut imported = [0; SECTOR];
    imported[..IMPORTED.len()].copy_from_slice(IMPORTED);
    write(&imported, 0)
        .and_then(|()| write(&vec![0; length.saturating_sub(SECTOR)], SECTOR))
        .and_then(|()| write(&[0; SECTOR], 0))
        .context("cannot wipe the seed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_stored_closed_and_the_seed_is_wiped() {
        let directory = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| SeedFile { path: path.into(), content: text.into() };
        store(&[file("site.toml", "s"), file("secrets/vpn", "k")], directory.path()).unwrap();
        assert_eq!(fs::read(directory.path().join("site.toml")).unwrap(), b"s");
        let secret = directory.path().join("secrets/vpn");
        assert_eq!(fs::read(&secret).unwrap(), b"k");
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);

        let partition = directory.path().join("seed");
        fs::write(&partition, [7; 4096]).unwrap();
        wipe(&open_writable(&partition).unwrap(), 4096).unwrap();
        assert!(seed::is_empty(&read(&partition).unwrap()) && is_empty(&partition).unwrap());
    }
}
