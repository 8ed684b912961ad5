//! Importing the seed: once, durably, and then wiping it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kontor_boot::PartitionKind;
use kontor_boot::partition::SEED_SIZE;
use kontor_boot::seed::{self, SeedFile};
use kontor_status::paths;
use kontor_sys::file::{write_atomic, write_durable};

use super::disk::{Disk, open_writable};

const STATE_SITE_DIRECTORY: &str = "/data/kontor/site";

/// Moves the seed's files to `data` and wipes the partition. Without `data` the seed stays, and its site
/// file serves this boot from RAM.
pub(super) fn import(disk: &Disk, data_mounted: bool) -> anyhow::Result<()> {
    let node = disk.partition(PartitionKind::Seed)?;
    let bytes = read(&node)?;
    if seed::is_empty(&bytes) {
        return Ok(());
    }
    let files = seed::read(&bytes)?;
    if !data_mounted {
        if let Some(site) = files.iter().find(|file| file.path == "site.toml") {
            write_atomic(Path::new(paths::SEED_SITE), &site.content)?;
        }
        bail!("kept until there is a data partition");
    }
    store(&files, Path::new(STATE_SITE_DIRECTORY))?;
    wipe(&open_writable(&node)?, bytes.len())?;
    eprintln!("imported {} files from the seed", files.len());
    Ok(())
}

fn read(node: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(node).with_context(|| node.display().to_string())?;
    file.take(SEED_SIZE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Secrets first: when the site file is there, everything it needs is.
fn store(files: &[SeedFile], directory: &Path) -> anyhow::Result<()> {
    let secrets = directory.join("secrets");
    fs::create_dir_all(&secrets)?;
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700))?;
    let is_site = |file: &&SeedFile| file.path == "site.toml";
    let secret_files = files.iter().filter(|file| !is_site(file));
    for file in secret_files.chain(files.iter().filter(is_site)) {
        let path: PathBuf = directory.join(&file.path);
        write_durable(&path, &file.content).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn wipe(partition: &File, length: usize) -> anyhow::Result<()> {
    partition.write_all_at(&vec![0; length], 0).context("cannot wipe the seed")?;
    partition.sync_all().context("cannot wipe the seed")
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
        assert!(seed::is_empty(&read(&partition).unwrap()));
    }
}
