//! The seed: a tar with the site file and first-boot secrets, written by the builder, imported once.
//!
//! It is the one thing on the disk that a stranger may have written: every size and name is bounded.

use std::fmt;
use std::io::{self, Read};

use crate::partition::SEED_SIZE;

/// Files a seed may have.
const MAX_FILES: usize = 64;
/// Size of one file; a site file is a few KiB.
const MAX_FILE: u64 = 1 << 20;
const SITE: &str = "site.toml";
const SECRETS: &str = "secrets/";
/// An order to install ([`crate::install::Order`]); it is no file of the office and is never imported.
pub const ORDER: &str = "install.toml";

/// One file to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedFile {
    /// `site.toml`, `secrets/NAME` or `install.toml`; never anything else.
    pub path: String,
    /// Content.
    pub content: Vec<u8>,
}

/// Why a seed is refused as a whole.
#[derive(Debug)]
pub enum SeedError {
    /// Larger than its partition.
    TooLarge,
    /// Not a readable tar.
    Tar(io::Error),
    /// More than 64 entries.
    TooManyFiles,
    /// A name that is not allowed, or twice the same.
    Name(String),
    /// A file larger than 1 MiB.
    FileTooLarge(String),
}

impl fmt::Display for SeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("seed is larger than its partition"),
            Self::Tar(_) => f.write_str("seed is not a readable tar"),
            Self::TooManyFiles => write!(f, "seed has more than {MAX_FILES} files"),
            Self::Name(name) => {
                write!(
                    f,
                    "seed has `{name}`; only site.toml, install.toml and secrets/NAME, once each, are allowed"
                )
            }
            Self::FileTooLarge(name) => write!(f, "`{name}` in the seed is larger than 1 MiB"),
        }
    }
}

impl std::error::Error for SeedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tar(error) => Some(error),
            _ => None,
        }
    }
}

/// Whether the partition holds no seed (any more).
#[must_use]
pub fn is_empty(partition: &[u8]) -> bool {
    partition.iter().all(|byte| *byte == 0)
}

/// The files of a seed partition; none when it is empty. All or nothing.
///
/// # Errors
/// When anything in it is not as the builder makes it.
pub fn read(partition: &[u8]) -> Result<Vec<SeedFile>, SeedError> {
    if partition.len() as u64 > SEED_SIZE {
        return Err(SeedError::TooLarge);
    }
    let mut files: Vec<SeedFile> = Vec::new();
    for entry in tar::Archive::new(partition).entries().map_err(SeedError::Tar)? {
        let mut entry = entry.map_err(SeedError::Tar)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type().is_dir() && path == SECRETS {
            continue;
        }
        let doubled = files.iter().any(|file| file.path == path);
        if !entry.header().entry_type().is_file() || !is_allowed(&path) || doubled {
            return Err(SeedError::Name(path));
        }
        if files.len() == MAX_FILES {
            return Err(SeedError::TooManyFiles);
        }
        let mut content = Vec::new();
        (&mut entry).take(MAX_FILE + 1).read_to_end(&mut content).map_err(SeedError::Tar)?;
        if content.len() as u64 > MAX_FILE {
            return Err(SeedError::FileTooLarge(path));
        }
        files.push(SeedFile { path, content });
    }
    Ok(files)
}

/// The files as a tar for the partition, with this time; they may be secret. The order stays: the site file is to come first.
///
/// # Errors
/// When they do not fit.
pub fn pack(files: &[SeedFile], mtime: u32) -> Result<Vec<u8>, SeedError> {
    let mut tar = tar::Builder::new(Vec::new());
    for SeedFile { path, content } in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        // The site file may hold password hashes.
        header.set_mode(0o600);
        header.set_mtime(mtime.into());
        header.set_cksum();
        tar.append_data(&mut header, path, content.as_slice()).map_err(SeedError::Tar)?;
    }
    let bytes = tar.into_inner().map_err(SeedError::Tar)?;
    if bytes.len() as u64 > SEED_SIZE { Err(SeedError::TooLarge) } else { Ok(bytes) }
}

fn is_allowed(path: &str) -> bool {
    let is_name = |name: &str| {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        plain && !name.is_empty() && name.len() <= 64 && !name.starts_with('.')
    };
    path == SITE || path == ORDER || path.strip_prefix(SECRETS).is_some_and(is_name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seed(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = tar_of(files);
        bytes.resize(SEED_SIZE as usize, 0);
        bytes
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            // Set by hand: the crate refuses to write some of the names that must be refused here.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_seed_is_read_and_an_empty_one_has_nothing() {
        let files = read(&seed(&[("site.toml", b"schema = 1"), ("secrets/vpn.key", b"k")])).unwrap();
        let expected = [("site.toml", b"schema = 1".as_slice()), ("secrets/vpn.key", b"k")];
        assert_eq!(
            files.iter().map(|f| (f.path.as_str(), f.content.as_slice())).collect::<Vec<_>>(),
            expected
        );
        let empty = vec![0; SEED_SIZE as usize];
        assert!(is_empty(&empty) && read(&empty).unwrap().is_empty());
    }

    #[test]
    fn names_are_only_what_the_builder_writes() {
        for name in
            ["/site.toml", "../site.toml", "secrets/../x", "secrets/a/b", "secrets/.x", "other", "secrets/"]
        {
            assert!(matches!(read(&seed(&[(name, b"")])), Err(SeedError::Name(_))), "{name}");
        }
        assert!(matches!(read(&seed(&[("site.toml", b""), ("site.toml", b"")])), Err(SeedError::Name(_))));
    }

    #[test]
    fn sizes_are_bounded() {
        let large = vec![1; MAX_FILE as usize + 1];
        assert!(matches!(read(&seed(&[("site.toml", &large)])), Err(SeedError::FileTooLarge(_))));
        let names: Vec<String> = (0..=MAX_FILES).map(|n| format!("secrets/{n}")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
        assert!(matches!(read(&seed(&many)), Err(SeedError::TooManyFiles)));
        assert!(matches!(read(&vec![0; SEED_SIZE as usize + 1]), Err(SeedError::TooLarge)));
    }

    #[test]
    fn a_link_is_refused() {
        let mut bytes = seed(&[("site.toml", b"")]);
        let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        assert!(matches!(read(&bytes), Err(SeedError::Name(_))));
    }

    proptest! {
        #[test]
        fn truncated_and_damaged_seeds_never_panic(cut in 0_usize..3000, at in 0_usize..2000, byte: u8) {
            let mut bytes = tar_of(&[("site.toml", &[7; 700]), ("secrets/a", b"x")]);
            bytes[at] = byte;
            bytes.truncate(cut);
            let _ = read(&bytes);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = read(&bytes);
        }
    }
}
