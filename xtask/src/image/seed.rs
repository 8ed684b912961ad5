//! The seed: a raw tar with what the box imports at its first boot, and then wipes.

use anyhow::{Context, Result, ensure};
use kontor_boot::partition::SEED_SIZE;

/// A tar with `site.toml`, for the `seed` partition.
///
/// # Errors
/// When it does not fit.
pub fn seed(site: &str, mtime: u32) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(site.len() as u64);
    // It may hold password hashes.
    header.set_mode(0o600);
    header.set_mtime(mtime.into());
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "site.toml", site.as_bytes()).context("cannot pack the site file")?;
    let bytes = tar.into_inner()?;
    ensure!(
        bytes.len() as u64 <= SEED_SIZE,
        "the site file of {} bytes does not fit the seed partition",
        site.len()
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_site_file_comes_back() {
        let bytes = seed("schema = 1\n", 7).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("site.toml"));
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "schema = 1\n");
        assert_eq!(bytes, seed("schema = 1\n", 7).unwrap());
    }

    #[test]
    fn a_seed_that_is_too_large_is_refused() {
        let site = "#".repeat(5 << 20);
        assert!(seed(&site, 0).unwrap_err().to_string().contains("does not fit the seed partition"));
    }
}
