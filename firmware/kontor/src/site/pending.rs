//! A site file that was loaded while `state` was not there: kept under /run until it can be stored.
//!
//! Without it, a disk that appears late would bring back the file the operator has just replaced.

use std::fs;
use std::io;
use std::path::PathBuf;

use kontor_status::paths::Paths;
use kontor_sys::file::write_atomic;

use super::store::{self, Info};

/// Keeps a validated file for later.
pub(super) fn keep(paths: &Paths, text: &str, info: &Info) -> io::Result<()> {
    let header = toml::to_string(info).map_err(io::Error::other)?;
    let [file, header_file] = files(paths);
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    write_atomic(&header_file, header.as_bytes())?;
    write_atomic(&file, text.as_bytes())
}

/// The kept file, if any.
pub(super) fn take(paths: &Paths) -> Option<(Vec<u8>, Info)> {
    let [file, header_file] = files(paths);
    let bytes = store::read_bounded(&file).ok()??;
    let info = toml::from_str(&fs::read_to_string(header_file).ok()?).ok()?;
    Some((bytes, info))
}

/// Forgets it: it has been stored, or replaced by one that was.
pub(super) fn discard(paths: &Paths) {
    for file in files(paths) {
        // Usually there is none.
        let _ = fs::remove_file(file);
    }
}

fn files(paths: &Paths) -> [PathBuf; 2] {
    ["pending.toml", "pending.info.toml"].map(|name| paths.site_status().with_file_name(name))
}
