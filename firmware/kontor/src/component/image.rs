//! A component's root: a sealed image, checked and mounted, or on a development machine a directory.
//!
//! **Invariant:** of an image nothing is used before the kernel has measured what the release says, and every block of it
//! could be read. fs-verity checks each block when it is read, so that what rots later is an error and never other code.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use kontor_component::Seal;
use kontor_sys::verity;
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

/// Below the run directory, in the component's own name space for mounts.
const MOUNT_POINT: &str = "root";
/// Read at a time when an image is checked.
const CHUNK: usize = 1 << 20;
/// What to do about an image that is not what it should be.
const REMEDY: &str =
    "the network is not concerned; flash the disk again, or install an update, to have the image anew";

/// Where a component's root comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Root {
    /// A directory that holds it: nothing checks it.
    Directory(PathBuf),
    /// A sealed image.
    Image(Image),
}

/// An image, and by what it is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) seal: Seal,
}

impl Root {
    /// The root as a directory. Called in the component's own name space for mounts, which alone sees it.
    ///
    /// # Errors
    /// When the image is not the one of this release, is damaged, or cannot be mounted.
    pub(super) fn mount(&self, run: &Path) -> anyhow::Result<PathBuf> {
        match self {
            Self::Directory(directory) => Ok(directory.clone()),
            Self::Image(image) => image.mount(&run.join(MOUNT_POINT)),
        }
    }
}

impl Image {
    /// Seals the image if nobody has yet, in the box's own name space for mounts. The builder cannot seal it, and a box that never
    /// runs the component need not.
    ///
    /// # Errors
    /// When there is no such image, or the kernel refuses.
    pub(super) fn seal_if_new(&self) -> anyhow::Result<()> {
        let file = self.open()?;
        if self.measure(&file)?.is_some() {
            return Ok(());
        }
        println!("sealing the image, once");
        match verity::seal(&file) {
            // Somebody else was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result.with_context(|| format!("cannot seal {}", self.path.display())),
        }
    }

    fn open(&self) -> anyhow::Result<File> {
        File::open(&self.path).with_context(|| format!("there is no image {}; {REMEDY}", self.path.display()))
    }

    fn measure(&self, file: &File) -> anyhow::Result<Option<[u8; verity::DIGEST]>> {
        verity::measure(file).with_context(|| format!("cannot measure {}", self.path.display()))
    }

    fn mount(&self, target: &Path) -> anyhow::Result<PathBuf> {
        let file = self.open()?;
        self.check(file.try_clone()?)?;
        fs::create_dir_all(target).with_context(|| target.display().to_string())?;
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        // By its descriptor: what was checked is what is mounted.
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        mount(Some(source.as_str()), target, Some("erofs"), flags, None::<&str>)
            .with_context(|| format!("cannot mount {}", self.path.display()))?;
        Ok(target.to_owned())
    }

    fn check(&self, file: File) -> anyhow::Result<()> {
        let expected = self.seal.digest().context("the release knows no digest of it")?;
        let Some(measured) = self.measure(&file)? else {
            bail!("{} is not sealed", self.path.display());
        };
        ensure!(
            measured == expected && file.metadata()?.len() == self.seal.bytes,
            "{} is damaged: it is not the image of this release; {REMEDY}",
            self.path.display()
        );
        read_through(file).with_context(|| format!("{} is damaged; {REMEDY}", self.path.display()))
    }
}

/// Every block, so that one that has rotted is found now and not in the middle of somebody's work.
fn read_through(mut file: File) -> anyhow::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut at: u64 = 0;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => at += length as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| format!("at {} KiB", at >> 10)),
        }
    }
}
