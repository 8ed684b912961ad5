//! The office that goes along: site file and first-boot secrets, as the seed of the disk that is made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use kontor_boot::seed::{ORDER, SeedFile, pack};
use kontor_status::{SiteOrigin, SiteStatus, paths};

use crate::component::seeded;
use crate::init::built_at;
use crate::storage::{Disk, seed};

const SITE: &str = "site.toml";

/// A seed with what the stick's own still holds, or with what was imported of it; empty when the stick has no office.
pub(super) fn seed(stick: &Disk) -> anyhow::Result<Vec<u8>> {
    let mut files = seed::waiting(stick).context("the stick's seed")?;
    files.retain(|file| file.path != ORDER);
    if files.is_empty() {
        files = imported(Path::new(paths::STATE_SITE), Path::new(paths::STATE_SECRETS))?;
    }
    if files.is_empty() {
        let text = fs::read(paths::SITE_STATUS).unwrap_or_default();
        let served = serde_json::from_slice::<SiteStatus>(&text);
        ensure!(
            served.is_ok_and(|site| site.origin == SiteOrigin::Default),
            "the site file in force is not on the stick: its state partition is not mounted, `status` says why"
        );
        return Ok(Vec::new());
    }
    // Of no use to anybody but the order of files.
    let time = u32::try_from(built_at().as_secs()).unwrap_or(0);
    let packed = pack(&files, time).context("the office's files")?;
    kontor_boot::seed::read(&packed).context("the office's files")?;
    Ok(packed)
}

fn imported(site: &Path, secrets: &Path) -> anyhow::Result<Vec<SeedFile>> {
    let read = |place: &Path, path: String| -> anyhow::Result<SeedFile> {
        let content = fs::read(place).with_context(|| place.display().to_string())?;
        Ok(SeedFile { path, content })
    };
    let mut files = Vec::new();
    if site.is_file() {
        files.push(read(site, SITE.to_owned())?);
    }
    for place in secret_files(secrets)? {
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push(read(&place, format!("secrets/{name}"))?);
    }
    Ok(files)
}

/// Secrets that were imported are the new disk's now.
pub(super) fn wipe_secrets() -> anyhow::Result<()> {
    secret_files(Path::new(paths::STATE_SECRETS))?.iter().try_for_each(|file| seeded::wipe(file))
}

fn secret_files(secrets: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(secrets) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| secrets.display().to_string())?,
    };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_imported_can_be_a_seed_again() {
        let scratch = tempfile::tempdir().unwrap();
        let (site, secrets) = (scratch.path().join("site.toml"), scratch.path().join("secrets"));
        assert_eq!(imported(&site, &secrets).unwrap(), [], "no office");
        fs::write(&site, "schema = 1\n").unwrap();
        fs::create_dir(&secrets).unwrap();
        fs::write(secrets.join("samba-join"), "joiner\nsecret\n").unwrap();
        let files = imported(&site, &secrets).unwrap();
        assert_eq!(kontor_boot::seed::read(&pack(&files, 7).unwrap()).unwrap(), files);
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["site.toml", "secrets/samba-join"]);
    }
}
