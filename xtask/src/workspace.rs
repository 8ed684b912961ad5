//! Where things are: the repository's root, its inputs and its outputs.
//!
//! Outputs go below `target/` only; nothing here creates a directory.

use camino::{Utf8Path, Utf8PathBuf};

/// The repository this builder was compiled from.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: Utf8PathBuf,
}

impl Workspace {
    /// The repository that holds this crate; cargo says where, so that a moved clone still works.
    #[must_use]
    pub fn locate() -> Self {
        let manifest =
            std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
        let manifest = Utf8PathBuf::from(manifest);
        // Cargo names the crate that runs: xtask itself, or qemu-tests beside it.
        let root = manifest.parent().map_or_else(|| manifest.clone(), Utf8Path::to_owned);
        Self { root }
    }

    /// The root of the repository.
    #[must_use]
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// `target`: everything built.
    #[must_use]
    pub fn target(&self) -> Utf8PathBuf {
        self.root.join("target")
    }

    /// `target/images`: disk images, and the step cache below it.
    #[must_use]
    pub fn images(&self) -> Utf8PathBuf {
        self.target().join("images")
    }

    /// `rootfs/packages.lock`.
    #[must_use]
    pub fn lock_file(&self) -> Utf8PathBuf {
        self.root.join("rootfs/packages.lock")
    }

    /// `rootfs/base`: `base.toml` and the files it names.
    #[must_use]
    pub fn base(&self) -> Utf8PathBuf {
        self.root.join("rootfs/base")
    }

    /// The description of a product, `images/NAME.toml`.
    #[must_use]
    pub fn product(&self, name: &str) -> Utf8PathBuf {
        self.root.join("images").join(format!("{name}.toml"))
    }

    /// The description of a machine type, `board/NAME.toml`.
    #[must_use]
    pub fn board(&self, name: &str) -> Utf8PathBuf {
        self.root.join("board").join(format!("{name}.toml"))
    }
}
