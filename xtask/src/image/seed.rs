//! The seed: a raw tar with what the box imports at its first boot, and then wipes.

use anyhow::{Result, anyhow};
use kontor_boot::install::Order;
use kontor_boot::seed::{ORDER, SeedError, SeedFile, pack};

const SITE: &str = "site.toml";
/// Where the box looks for the password with which its component `samba` joins a domain.
const JOIN: &str = "secrets/samba-join";

/// A tar with `site.toml`, and with the two lines of a user who may join computers if they are given, for the `seed` partition.
///
/// # Errors
/// When it does not fit.
pub fn seed(site: &str, join: Option<&str>, mtime: u32) -> Result<Vec<u8>> {
    pack(&files(site, join), mtime).map_err(|error| match error {
        SeedError::TooLarge => {
            anyhow!("the site file of {} bytes does not fit the seed partition", site.len())
        }
        error => error.into(),
    })
}

/// The same of a stick that is to install itself; the office, if there is one, goes along.
///
/// # Errors
/// When it does not fit.
pub fn installing(office: Option<(&str, Option<&str>)>, order: &Order, mtime: u32) -> Result<Vec<u8>> {
    let mut all = office.map(|(site, join)| files(site, join)).unwrap_or_default();
    all.push(file(ORDER, &order.text()));
    Ok(pack(&all, mtime)?)
}

fn files(site: &str, join: Option<&str>) -> Vec<SeedFile> {
    [file(SITE, site)].into_iter().chain(join.map(|text| file(JOIN, text))).collect()
}

fn file(path: &str, text: &str) -> SeedFile {
    SeedFile { path: path.into(), content: text.into() }
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
    fn an_order_comes_last_with_or_without_an_office() {
        let order = Order { id: kontor_boot::Guid::from_u128(7), over: true };
        for (office, names) in [
            (Some(("schema = 1\n", Some("joiner\nsecret\n"))), vec![SITE, JOIN, ORDER]),
            (Some(("schema = 1\n", None)), vec![SITE, ORDER]),
            (None, vec![ORDER]),
        ] {
            let files = kontor_boot::seed::read(&installing(office, &order, 7).unwrap()).unwrap();
            assert!(files.iter().map(|file| file.path.as_str()).eq(names));
            assert_eq!(Order::parse(&files.last().unwrap().content).unwrap(), order);
        }
    }

    #[test]
    fn a_seed_that_is_too_large_is_refused() {
        let site = "#".repeat(5 << 20);
        assert!(seed(&site, None, 0).unwrap_err().to_string().contains("does not fit the seed partition"));
    }
}
