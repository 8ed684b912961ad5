//! The factory reset: keeping the seed's site file for it, asking for it, and carrying it out at the next boot.
//!
//! What is done in which order, and what stays, is [`kontor_boot::reset`]'s. It is carried out before `state` is where daemons look
//! for it, so none ever sees an office that is half gone.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use kontor_boot::PartitionKind;
use kontor_boot::filesystem::PROBE_LENGTH;
use kontor_boot::reset::{
    Data, FACTORY_SITE_OFFSET, Fate, RECORD_LENGTH, RECORD_OFFSET, Record, Stage, Step, fate, plan,
};
use kontor_boot::seed::SeedFile;
use kontor_boot::site_copy::{AREA_LENGTH, AREA_OFFSETS, SiteCopy};
use kontor_status::{ResetStatus, SiteOrigin, SiteStatus, StorageStatus, paths};
use kontor_sys::block;
use kontor_sys::file::remove_durable;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::disk::{Disk, open_writable};
use super::{chosen_disk, is_mounted, seed};
use crate::ctl::FACTORY_RESET;
use crate::updated;

/// Asks for a reset at the next boot, to this site file.
///
/// # Errors
/// Why there cannot be one now.
pub(crate) fn ask(data: Data, factory: Option<Vec<u8>>) -> anyhow::Result<()> {
    let bootstate = asked_disk()?.partition(PartitionKind::BootState)?;
    keep(&bootstate, factory.unwrap_or_default())?;
    write_record(&bootstate, &Record { stage: Stage::Asked, data, at: now() })
}

/// The site file that this box was flashed with, as far as it is known.
///
/// # Errors
/// Why there cannot be a reset now.
pub(crate) fn factory_site() -> anyhow::Result<Option<Vec<u8>>> {
    read_factory_site(&asked_disk()?.partition(PartitionKind::BootState)?)
}

/// The disk of a box that can be reset.
fn asked_disk() -> anyhow::Result<Disk> {
    let disk = chosen_disk().context("without its disk a box keeps nothing: a restart does the same")?;
    if !is_mounted(paths::STATE) {
        bail!("the state partition is not mounted, so nothing on it could be reset; `status` says why");
    }
    if updated::is_on_trial() {
        bail!(
            "a release is on trial, and is judged by what worked before: wait until `update` says how that ended"
        );
    }
    Ok(disk)
}

/// Keeps what the seed brought, without its secrets, for a reset: the seed itself is wiped.
pub(super) fn keep_factory_site(bootstate: &Path, files: &[SeedFile]) -> anyhow::Result<()> {
    let site = files.iter().find(|file| file.path == "site.toml");
    keep(bootstate, site.map(|file| file.content.clone()).unwrap_or_default())
}

fn keep(bootstate: &Path, text: Vec<u8>) -> anyhow::Result<()> {
    if read_factory_site(bootstate)?.unwrap_or_default() == text {
        return Ok(());
    }
    write_copy(&open_writable(bootstate)?, FACTORY_SITE_OFFSET, text)
}

/// Carries out what is asked for, on `state` mounted where no daemon looks for it. What fails becomes a problem, and is tried
/// again at the next boot.
///
/// # Errors
/// When `state` is neither as it was nor fresh: nobody may take anything in it for the office, which is served from RAM, by
/// the site file of the copies.
pub(super) fn attend(disk: &Disk, state: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let Err(error) = try_attend(disk, state) else { return Ok(()) };
    let error = error.context("the factory reset that was asked for");
    let bootstate = disk.partition(PartitionKind::BootState)?;
    if read_record(&bootstate)?.is_some_and(|record| record.stage == Stage::Begun) {
        return Err(error);
    }
    problems.push(format!("{error:#}; `{FACTORY_RESET} --withdraw` takes it back"));
    Ok(())
}

fn try_attend(disk: &Disk, state: &Path) -> anyhow::Result<()> {
    let bootstate = disk.partition(PartitionKind::BootState)?;
    let Some(asked) = read_record(&bootstate)?.filter(|record| record.stage != Stage::Done) else {
        return Ok(());
    };
    if is_office_in_force() {
        bail!("it waits for a restart");
    }
    if updated::is_trial_noted(state) {
        bail!("it waits for the end of a release's trial");
    }
    let data = disk.partition(PartitionKind::Data).ok();
    let places = Places { bootstate: &bootstate, data: data.as_deref(), state };
    eprintln!("factory reset: begins, {}", said(asked.data));
    for step in places.plan(asked)? {
        places.take(&step, asked).with_context(|| format!("{step:?}"))?;
    }
    eprintln!("factory reset: done, {}", said(asked.data));
    Ok(())
}

/// The last one that was carried out. One that is still asked for is a problem where `state` could not be mounted.
pub(super) fn last(disk: &Disk, status: &mut StorageStatus) -> anyhow::Result<()> {
    match read_record(&disk.partition(PartitionKind::BootState)?)? {
        Some(Record { stage: Stage::Done, data, at }) => {
            status.reset = Some(ResetStatus { at, data_kept: data == Data::Keep });
        }
        Some(_) if !status.state_mounted => status.problems.push(format!(
            "the factory reset that was asked for waits for the state partition; `{FACTORY_RESET} --withdraw` takes it back if \
             it has not begun"
        )),
        _ => {}
    }
    Ok(())
}

/// Takes back what is asked for and has not begun.
///
/// # Errors
/// When there is nothing to take back.
pub(crate) fn withdraw() -> anyhow::Result<()> {
    let bootstate = chosen_disk()?.partition(PartitionKind::BootState)?;
    match read_record(&bootstate)?.map(|record| record.stage) {
        Some(Stage::Asked) => write_sector(&bootstate, &[0; RECORD_LENGTH]),
        Some(Stage::Begun) => bail!("it has begun: what it removes is gone"),
        Some(Stage::Done) | None => bail!("no factory reset is asked for"),
    }
}

fn said(data: Data) -> &'static str {
    match data {
        Data::Keep => "data is kept",
        Data::Wipe => "data is wiped",
    }
}

/// Storage may run again on a running box. Then daemons know the office, and would write what they know to a fresh `state`.
fn is_office_in_force() -> bool {
    let text = fs::read(paths::SITE_STATUS).unwrap_or_default();
    serde_json::from_slice::<SiteStatus>(&text).is_ok_and(|site| site.origin != SiteOrigin::Default)
}

/// What a reset changes.
struct Places<'a> {
    bootstate: &'a Path,
    /// Without it there is nothing to be wiped.
    data: Option<&'a Path>,
    /// Mount point of `state`.
    state: &'a Path,
}

impl Places<'_> {
    fn plan(&self, asked: Record) -> anyhow::Result<Vec<Step>> {
        let mut goes = Vec::new();
        self.collect(Path::new(""), &mut goes).with_context(|| self.state.display().to_string())?;
        Ok(plan(asked, &goes))
    }

    fn collect(&self, directory: &Path, goes: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(self.state.join(directory))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            match fate(&path) {
                Fate::Stays => {}
                Fate::Enter if entry.file_type()?.is_dir() => self.collect(&path, goes)?,
                Fate::Enter | Fate::Goes => goes.push(path),
            }
        }
        Ok(())
    }

    fn take(&self, step: &Step, asked: Record) -> anyhow::Result<()> {
        match step {
            Step::ReplaceCopies => self.replace_copies(),
            Step::WipeData => self.data.map_or(Ok(()), wipe),
            Step::Begin => write_record(self.bootstate, &Record { stage: Stage::Begun, ..asked }),
            Step::Overwrite(path) => {
                Ok(overwrite(&self.state.join(path)).with_context(|| path.display().to_string())?)
            }
            Step::Remove(path) => remove(&self.state.join(path)).with_context(|| path.display().to_string()),
            Step::Sync => Ok(nix::unistd::syncfs(File::open(self.state)?)?),
            Step::Trim => {
                // A disk that cannot do it has nothing to be told.
                let _ = block::trim(&File::open(self.state)?);
                Ok(())
            }
            Step::StoreSite => match read_factory_site(self.bootstate)? {
                Some(content) => {
                    let site = SeedFile { path: "site.toml".to_owned(), content };
                    seed::store(&[site], &self.state.join("site"))
                }
                None => Ok(()),
            },
            Step::Note => {
                let done = Record { stage: Stage::Done, at: now().max(asked.at), ..asked };
                write_record(self.bootstate, &done)
            }
        }
    }

    fn replace_copies(&self) -> anyhow::Result<()> {
        let text = read_factory_site(self.bootstate)?.unwrap_or_default();
        let device = open_writable(self.bootstate)?;
        device.write_all_at(&vec![0; AREA_LENGTH], AREA_OFFSETS[1])?;
        write_copy(&device, AREA_OFFSETS[0], text)
    }
}

/// A disk that can do so forgets all of it; of any other the beginning is cleared, so that the file system is made anew.
fn wipe(node: &Path) -> anyhow::Result<()> {
    // Exclusively: never while it is mounted.
    let opened = File::options().write(true).custom_flags(OFlag::O_EXCL.bits()).open(node);
    let device = opened.with_context(|| node.display().to_string())?;
    match block::discard(&device) {
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => return Err(error.into()),
        Ok(()) => eprintln!("factory reset: the disk has been told to forget all of {}", node.display()),
        Err(error) => eprintln!("factory reset: {} cannot be discarded: {error}", node.display()),
    }
    device.write_all_at(&vec![0; PROBE_LENGTH], 0)?;
    Ok(device.sync_all()?)
}

/// Links are not followed. Of a file with holes no more is written than it has blocks.
fn overwrite(path: &Path) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            overwrite(&entry?.path())?;
        }
    } else if found.is_file() {
        let length = found.len().min(found.blocks() * 512);
        let mut file = File::options().write(true).open(path)?;
        io::copy(&mut io::repeat(0).take(length), &mut file)?;
    }
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match path.symlink_metadata()?.is_dir() {
        true => Ok(fs::remove_dir_all(path)?),
        false => Ok(remove_durable(path)?),
    }
}

fn read_factory_site(bootstate: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let mut area = vec![0; AREA_LENGTH];
    let name = || bootstate.display().to_string();
    File::open(bootstate)
        .and_then(|file| file.read_exact_at(&mut area, FACTORY_SITE_OFFSET))
        .with_context(name)?;
    Ok(SiteCopy::decode(&area).map(|copy| copy.text).filter(|text| !text.is_empty()))
}

fn write_copy(bootstate: &File, offset: u64, text: Vec<u8>) -> anyhow::Result<()> {
    let bytes = SiteCopy { sequence: 1, text }.encode().map_err(io::Error::other)?;
    bootstate.write_all_at(&bytes, offset)?;
    Ok(bootstate.sync_all()?)
}

fn read_record(bootstate: &Path) -> anyhow::Result<Option<Record>> {
    let mut sector = [0; RECORD_LENGTH];
    let name = || bootstate.display().to_string();
    File::open(bootstate)
        .and_then(|file| file.read_exact_at(&mut sector, RECORD_OFFSET))
        .with_context(name)?;
    Ok(Record::decode(&sector))
}

fn write_record(bootstate: &Path, record: &Record) -> anyhow::Result<()> {
    write_sector(bootstate, &record.encode())
}

fn write_sector(bootstate: &Path, sector: &[u8; RECORD_LENGTH]) -> anyhow::Result<()> {
    let device = open_writable(bootstate)?;
    device.write_all_at(sector, RECORD_OFFSET)?;
    Ok(device.sync_all()?)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
