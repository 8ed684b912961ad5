//! Reading an initramfs as [`crate::image::cpio`] writes it: entries in order, where each one's bytes are.

use anyhow::{Context, Result, ensure};

const MAGIC: &[u8] = b"070701";
const HEADER: usize = 110;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path in the archive.
    pub name: String,
    /// Everything the header says.
    pub header: &'a [u8],
    /// Its bytes.
    pub content: &'a [u8],
}

/// Every entry up to the trailer.
///
/// # Errors
/// When an entry is cut off or malformed.
pub fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>> {
    let mut at = 0;
    let mut found = Vec::new();
    loop {
        let (entry, next) = entry(bytes, at).with_context(|| format!("no cpio entry at byte {at}"))?;
        if entry.name == "TRAILER!!!" {
            return Ok(found);
        }
        found.push(entry);
        at = next;
    }
}

fn entry(bytes: &[u8], at: usize) -> Result<(Entry<'_>, usize)> {
    let rest = bytes.get(at..).context("the archive ends without a trailer")?;
    let header = rest.get(..HEADER).context("a header is cut off")?;
    ensure!(header.starts_with(MAGIC), "wrong magic number");
    let (size, name_size) = (field(header, 6)?, field(header, 11)?);
    let name = rest.get(HEADER..HEADER + name_size).context("a name is cut off")?;
    let start = (HEADER + name_size).next_multiple_of(4);
    let content = rest.get(start..start + size).context("a file is cut off")?;
    let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    Ok((Entry { name, header, content }, at + (start + size).next_multiple_of(4)))
}

/// The field with this number, from 0, after the magic number.
fn field(header: &[u8], number: usize) -> Result<usize> {
    let at = MAGIC.len() + number * 8;
    let text = std::str::from_utf8(&header[at..at + 8])?;
    usize::from_str_radix(text, 16).with_context(|| format!("malformed number {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::cpio::Writer;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new(7);
        writer.dir("dev", 0o755);
        writer.file("init", 0o755, b"hello");
        let bytes = writer.finish();
        let found: Vec<_> = entries(&bytes).unwrap().into_iter().map(|e| (e.name, e.content)).collect();
        assert_eq!(found, [("dev".to_owned(), &b""[..]), ("init".to_owned(), &b"hello"[..])]);
    }

    #[test]
    fn cut_archives_are_refused_at_every_length() {
        let mut writer = Writer::new(7);
        writer.file("init", 0o755, b"hello");
        let bytes = writer.finish();
        // Behind the trailer there is only padding.
        let name = bytes.windows(10).position(|window| window == b"TRAILER!!!").unwrap();
        let end = (name + 11).next_multiple_of(4);
        for length in 0..end {
            assert!(entries(&bytes[..length]).is_err(), "{length}");
        }
        entries(&bytes[..end]).unwrap();
    }
}
