//! The stick that the box runs from: standing still while it is copied, and what becomes of it afterwards.

use anyhow::Context as _;
use kontor_boot::{Guid, PartitionKind};
use nix::mount::{MsFlags, mount};

use super::office;
use crate::storage::{BootStateFile, Disk, SYSTEM, is_mounted, seed};

const SECRETS_LEFT: &str = "the stick may still hold secrets: flash it anew";

/// While it lives, nobody writes to `system`.
pub(super) struct Still {
    was_mounted: bool,
}

impl Still {
    /// Fails while somebody has a file open there for writing: a release is being fetched.
    pub(super) fn hold() -> anyhow::Result<Self> {
        let was_mounted = is_mounted(SYSTEM);
        if was_mounted {
            remount(MsFlags::MS_RDONLY)
                .context("a release is being fetched: wait until `update` says that none is on its way")?;
        }
        Ok(Self { was_mounted })
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        if self.was_mounted
            && let Err(error) = remount(MsFlags::empty())
        {
            eprintln!("error: {SYSTEM} stays read-only until the next start: {error}");
        }
    }
}

fn remount(how: MsFlags) -> nix::Result<()> {
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(None::<&str>, SYSTEM, None::<&str>, MsFlags::MS_REMOUNT | flags | how, None::<&str>)
}

/// After the disk is whole: a stick that is left plugged in starts that disk, and secrets are there alone. In this order: a stick
/// whose order is gone and that does not know its disk would serve an office of its own.
pub(super) fn finish(stick: &Disk, made: Guid) -> anyhow::Result<()> {
    let mut state = BootStateFile::open(&stick.partition(PartitionKind::BootState)?)?;
    state.change(|state| state.installed = Some(made)).context("the stick's boot state")?;
    seed::clear(stick).and_then(|()| office::wipe_secrets()).context(SECRETS_LEFT)
}
