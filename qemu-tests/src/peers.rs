//! The locked tool sets, as the tests need them.

use anyhow::Result;
use xtask::archive::cache::{Cache, FetchOptions};
use xtask::archive::lock_file::LockFile;
use xtask::tools::Tools;
use xtask::workspace::Workspace;

/// A tool set; unpacked now, unless `cargo xtask` has done it already.
///
/// # Errors
/// When its packages are neither cached nor to be had from the mirror.
pub fn tool_set(name: &str) -> Result<Tools> {
    let workspace = Workspace::locate();
    let lock = LockFile::load(workspace.lock_file())?;
    let cache = Cache::open(&FetchOptions { quiet: true, ..FetchOptions::default() })?;
    Tools::prepare_set(name, &lock, &cache, workspace.target())
}
