//! The licence texts that must go with an image, each once, as one archive.
//!
//! `texts/HASH` are the texts; `INDEX` says which component has which, under what name at its source.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::Sbom;
use crate::archive::hex;

/// Compression: level 15 takes ten times as long, for 2 % less.
const ZSTD_LEVEL: i32 = 12;

/// Where a text is in the archive.
pub(super) fn name_of(bytes: &[u8]) -> String {
    format!("texts/{}", &hex(&Sha256::digest(bytes))[..32])
}

/// The archive, a tar compressed with zstd; the same texts give the same bytes.
///
/// # Errors
/// When it cannot be written, which in memory means that there is none left.
pub fn bundle(sbom: &Sbom, epoch_s: u32) -> Result<Vec<u8>> {
    let mut texts: BTreeMap<String, &[u8]> = BTreeMap::new();
    let mut index = String::new();
    for component in &sbom.components {
        for text in &component.texts {
            let name = name_of(&text.bytes);
            writeln!(index, "{}\t{}\t{name}", component.purl, text.name)?;
            texts.insert(name, &text.bytes);
        }
    }
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?);
    let mut append = |name: &str, bytes: &[u8]| -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(epoch_s.into());
        Ok(tar.append_data(&mut header, name, bytes)?)
    };
    append("INDEX", index.as_bytes())?;
    texts.iter().try_for_each(|(name, bytes)| append(name, bytes))?;
    Ok(tar.into_inner()?.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::sbom::component::{Component, Kind, Text};

    fn component(name: &str, texts: &[&str]) -> Component {
        Component {
            purl: format!("pkg:cargo/{name}@1"),
            kind: Kind::Library,
            name: name.into(),
            version: "1".into(),
            sha256: None,
            licences: vec![],
            homepage: None,
            properties: vec![],
            needs: vec![],
            texts: texts
                .iter()
                .map(|text| Text { name: "LICENSE".into(), bytes: text.as_bytes().to_vec() })
                .collect(),
        }
    }

    #[test]
    fn every_text_is_there_once_and_found_by_its_component() {
        let sbom = Sbom {
            components: vec![component("a", &["one", "two"]), component("b", &["one"])],
            ..Sbom::default()
        };
        let bytes = bundle(&sbom, 1).unwrap();
        assert_eq!(bytes, bundle(&sbom, 1).unwrap());
        let mut tar = tar::Archive::new(zstd::Decoder::new(bytes.as_slice()).unwrap());
        let mut files = BTreeMap::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(path, text);
        }
        let index = files.remove("INDEX").unwrap();
        assert_eq!(files.len(), 2);
        for (line, expect) in index.lines().zip(["one", "two", "one"]) {
            let name = line.rsplit('\t').next().unwrap();
            assert_eq!(files[name], expect);
        }
        assert!(index.contains("pkg:cargo/b@1\tLICENSE\ttexts/"));
    }
}
