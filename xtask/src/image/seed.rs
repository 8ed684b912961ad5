//! The seed: a raw tar with what the box imports at its first boot, and then wipes.

use anyhow::{Context, Result, ensure};
use kontor_boot::partition::SEED_SIZE;

/// Where the box looks for the password with which its component `samba` joins a domain.
const JOIN: &str = "secrets/samba-join";

/// A tar with `site.toml`, and with the two lines of a user who may join computers if they are given, for the `seed` partition.
///
/// # Errors
/// When it does not fit.
pub fn seed(site: &str, join: Option<&str>, mtime: u32) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let join = join.map(|text| (JOIN, text));
    for (name, text) in [("site.toml", site)].into_iter().chain(join) {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        // The site file may hold password hashes.
        header.set_mode(0o600);
        header.set_mtime(mtime.into());
        header.set_cksum();
        tar.append_data(&mut header, name, text.as_bytes()).with_context(|| format!("cannot pack {name}"))?;
    }
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
        let bytes = seed("schema = 1\n", None, 7).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("site.toml"));
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "schema = 1\n");
        assert_eq!(bytes, seed("schema = 1\n", None, 7).unwrap());
    }

    #[test]
    fn the_box_reads_a_secret_where_it_looks_for_it() {
        let bytes = seed("schema = 1\n", Some("joiner\nsecret\n"), 7).unwrap();
        let files = kontor_boot::seed::read(&bytes).unwrap();
        let found = files.iter().map(|file| (file.path.as_str(), file.content.as_slice()));
        let wanted: [(&str, &[u8]); 2] = [("site.toml", b"schema = 1\n"), (JOIN, b"joiner\nsecret\n")];
        assert!(found.eq(wanted));
    }

    #[test]
    fn a_seed_that_is_too_large_is_refused() {
        let site = "#".repeat(5 << 20);
        assert!(seed(&site, None, 0).unwrap_err().to_string().contains("does not fit the seed partition"));
    }
}
