//! Where releases lie on their way: a mirror of what was fetched, and the images made of it.
//!
//! On `system`, which nobody else fills. What is below [`WORK`] belongs to the children that fetch; the daemon believes none of it
//! without checking.

use std::path::{Path, PathBuf};

use kontor_update::Sha256Hex;

/// Everything on its way.
pub(super) const WORK: &str = "/system/update";
/// What the name of an unfinished image ends in.
pub(super) const PART: &str = ".part";
/// The user of the children that fetch (`rootfs/base/base.toml`).
pub(super) const FETCH_USER: u32 = 207;
/// What the daemon remembers of the repository: in a directory that no child can write to.
pub(super) const TRUST: &str = "/state/updated/trust";
/// The root of trust of this release.
pub(super) const ROOT: &str = "/usr/share/kontor/root.json";

/// Below a directory like [`WORK`].
#[derive(Debug, Clone)]
pub(super) struct Places(PathBuf);

impl Places {
    pub(super) fn new(work: &Path) -> Self {
        Self(work.to_owned())
    }

    /// A repository: `metadata/`, `targets/`, as far as it was fetched.
    pub(super) fn mirror(&self) -> PathBuf {
        self.0.join("mirror")
    }

    /// What the children themselves remember of the repository.
    pub(super) fn memory(&self) -> PathBuf {
        self.0.join("memory")
    }

    /// Downloads, whole or not.
    pub(super) fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// Finished images.
    pub(super) fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// The finished image with this hash.
    pub(super) fn image(&self, sha256: &Sha256Hex) -> PathBuf {
        self.images().join(sha256.as_str())
    }

    /// What there is of that image, on its way.
    pub(super) fn part(&self, sha256: &Sha256Hex) -> PathBuf {
        self.images().join(format!("{sha256}{PART}"))
    }

    /// Every directory.
    pub(super) fn all(&self) -> [PathBuf; 5] {
        [self.0.clone(), self.mirror(), self.memory(), self.objects(), self.images()]
    }
}
