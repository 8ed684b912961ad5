//! An `.xz` file decompressed into memory, its blocks at the same time and straight to where they belong.
//!
//! Of the format (the .xz File Format, version 1.2.1) only footer and index are read here, for where blocks begin;
//! the blocks themselves are liblzma's. The blocks' own check sums are not looked at: who calls this has checked a
//! cryptographic hash of the whole. Files of another layout than `dpkg-deb` makes (one stream, nothing after it) are
//! decompressed in one piece.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, ensure};
use liblzma::bufread::XzDecoder;
use liblzma::stream::{Action, CONCATENATED, IGNORE_CHECK, Status, Stream};

use crate::archive::cache::parallel;

/// Length of the header and of the footer of a stream (sections 2.1.1 and 2.1.2).
const FRAME: usize = 12;
/// Magic bytes of both (sections 2.1.1.1 and 2.1.2.4).
const HEADER_MAGIC: &[u8] = b"\xfd7zXZ\0";
const FOOTER_MAGIC: &[u8] = b"YZ";
/// An index is some bytes for each block; a longer one belongs to no package.
const MAX_INDEX: u64 = 1 << 20;

/// Where a block is, and its content in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    compressed: Range<u64>,
    length: usize,
}

/// The content of the `.xz` file that lies in this part of `source`, decompressed by so many threads.
///
/// # Errors
/// When it cannot be read, is no such file, or is damaged.
pub(super) fn decompress(source: &File, place: Range<u64>, threads: usize) -> Result<Vec<u8>> {
    let Some((header, blocks)) = layout(source, &place)? else { return in_one_piece(source, &place) };
    let mut output = vec![0; blocks.iter().map(|block| block.length).sum()];
    let mut rest = output.as_mut_slice();
    let mut work = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (part, after) = rest.split_at_mut(block.length);
        rest = after;
        work.push((block, Mutex::new(part)));
    }
    parallel(&work, threads, |(block, part)| {
        let mut part = part.lock().map_err(|_| anyhow!("another thread panicked"))?;
        decompress_block(source, &header, &block.compressed, &mut part)
            .with_context(|| format!("the block at byte {}", block.compressed.start - place.start))
    })?;
    drop(work);
    Ok(output)
}

fn decompress_block(source: &File, header: &[u8], place: &Range<u64>, output: &mut [u8]) -> Result<()> {
    // What a decoder is given at once: stays in the processor's cache.
    const CHUNK: u64 = 1 << 18;
    let mut stream = Stream::new_stream_decoder(u64::MAX, IGNORE_CHECK)?;
    stream.process(header, &mut [], Action::Run)?;
    let mut input = vec![0; usize::try_from(CHUNK)?];
    let (mut at, mut written) = (place.start, 0);
    while at < place.end && written < output.len() {
        let length = usize::try_from(CHUNK.min(place.end - at))?;
        source.read_exact_at(&mut input[..length], at)?;
        at += length as u64;
        let mut given = &input[..length];
        while !given.is_empty() && written < output.len() {
            let (read_before, written_before) = (stream.total_in(), stream.total_out());
            let status = stream.process(given, &mut output[written..], Action::Run)?;
            let read = usize::try_from(stream.total_in() - read_before)?;
            written += usize::try_from(stream.total_out() - written_before)?;
            given = &given[read..];
            ensure!(status == Status::Ok, "it ends before its content does");
        }
    }
    ensure!(written == output.len(), "it holds {written} bytes, not {} as the index says", output.len());
    Ok(())
}

fn in_one_piece(source: &File, place: &Range<u64>) -> Result<Vec<u8>> {
    let mut source = source;
    source.seek(SeekFrom::Start(place.start))?;
    let member = source.take(place.end - place.start);
    let mut output = Vec::new();
    let stream = Stream::new_stream_decoder(super::XZ_MEMORY, CONCATENATED)?;
    let decoder = XzDecoder::new_stream(BufReader::with_capacity(1 << 17, member), stream);
    super::Bounded { inner: decoder, left: super::UNPACKED }.read_to_end(&mut output)?;
    Ok(output)
}

/// The stream's header and its blocks; `None` if the file is not laid out as expected, or damaged.
fn layout(source: &File, place: &Range<u64>) -> Result<Option<(Vec<u8>, Vec<Block>)>> {
    let length = place.end.saturating_sub(place.start);
    if length < 2 * FRAME as u64 {
        return Ok(None);
    }
    let read = |from: u64, length: usize| -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        source.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    };
    let header = read(place.start, FRAME)?;
    let footer = read(place.end - FRAME as u64, FRAME)?;
    let Some(index_length) = index_length(&header, &footer).filter(|index| *index <= MAX_INDEX) else {
        return Ok(None);
    };
    let blocks_end = (place.end - FRAME as u64).checked_sub(index_length);
    let Some(blocks_end) = blocks_end.filter(|end| *end >= place.start + FRAME as u64) else {
        return Ok(None);
    };
    let index = read(blocks_end, usize::try_from(index_length)?)?;
    let blocks = blocks(&index, place.start + FRAME as u64..blocks_end);
    Ok(blocks.map(|blocks| (header, blocks)))
}

/// Length of the index, as the footer says it (section 2.1.2.2).
fn index_length(header: &[u8], footer: &[u8]) -> Option<u64> {
    let same_flags = header.get(6..8)? == footer.get(8..10)?;
    let framed = header.starts_with(HEADER_MAGIC) && footer.ends_with(FOOTER_MAGIC) && same_flags;
    let right = word(footer, 0)? == crc32fast::hash(footer.get(4..10)?);
    (framed && right).then_some((u64::from(word(footer, 4)?) + 1) * 4)
}

/// The blocks an index (section 4) lists, if they fill this place.
fn blocks(index: &[u8], place: Range<u64>) -> Option<Vec<Block>> {
    let (listed, sum) = index.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*sum) != crc32fast::hash(listed) {
        return None;
    }
    let mut listed = listed.strip_prefix(&[0])?;
    let count = number(&mut listed)?;
    let (mut at, mut total) = (place.start, 0_u64);
    let mut blocks = Vec::new();
    for _ in 0..count {
        let unpadded = number(&mut listed)?;
        let length = number(&mut listed)?;
        let end = at.checked_add(unpadded.checked_next_multiple_of(4)?)?;
        total = total.checked_add(length).filter(|total| *total <= super::UNPACKED)?;
        blocks.push(Block { compressed: at..end, length: usize::try_from(length).ok()? });
        at = end;
    }
    (at == place.end && listed.len() < 4 && listed.iter().all(|byte| *byte == 0)).then_some(blocks)
}

/// A number of variable length (section 1.2).
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..9 {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use liblzma::stream::{Check, Filters, LzmaOptions, MtStreamBuilder};
    use proptest::prelude::*;

    use super::*;

    /// Compressed in blocks of this size, as `dpkg-deb` does it.
    fn compressed(content: &[u8], block_size: u64) -> Vec<u8> {
        let mut filters = Filters::new();
        filters.lzma2(&LzmaOptions::new_preset(1).unwrap());
        let stream = MtStreamBuilder::new()
            .threads(1)
            .block_size(block_size)
            .filters(filters)
            .check(Check::Crc64)
            .encoder()
            .unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Somewhere in a file, as a member of a package is.
    fn decompressed(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        file.write_all(bytes).unwrap();
        file.write_all(b"after").unwrap();
        decompress(&file, 6..6 + bytes.len() as u64, 3)
    }

    /// Something that compresses here and there.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        let run = (any::<u8>(), 1..3000_usize).prop_map(|(byte, length)| vec![byte; length]);
        let noise = proptest::collection::vec(any::<u8>(), 0..3000);
        proptest::collection::vec(prop_oneof![run, noise], 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn blocks_give_what_the_plain_decoder_gives(content in content(), block_size in 1..8192_u64) {
            let bytes = compressed(&content, block_size);
            let mut plain = Vec::new();
            liblzma::read::XzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
            prop_assert_eq!(&plain, &content);
            prop_assert_eq!(decompressed(&bytes).unwrap(), plain);
        }

        #[test]
        fn truncated_files_are_errors(content in content(), keep in 0.0..1.0_f64) {
            let bytes = compressed(&content, 4096);
            let keep = (bytes.len() as f64 * keep) as usize;
            prop_assert!(decompressed(&bytes[..keep]).is_err());
        }

        #[test]
        fn damage_never_panics_and_never_changes_the_length(
            content in content(), at in any::<prop::sample::Index>(), with in 1..=255_u8,
        ) {
            let mut bytes = compressed(&content, 4096);
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            if let Ok(output) = decompressed(&bytes) {
                prop_assert_eq!(output.len(), content.len());
            }
        }

        #[test]
        fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decompressed(&bytes).is_err());
        }
    }

    #[test]
    fn the_index_is_understood() {
        let content = vec![7; 10_000];
        let bytes = compressed(&content, 4096);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let (_, blocks) = layout(&file, &(0..bytes.len() as u64)).unwrap().unwrap();
        assert_eq!(blocks.iter().map(|block| block.length).collect::<Vec<_>>(), [4096, 4096, 1808]);
    }

    #[test]
    fn other_layouts_are_decompressed_in_one_piece() {
        let two = [compressed(b"one", 10), compressed(b"two", 10)].concat();
        assert_eq!(decompressed(&two).unwrap(), b"onetwo");
    }
}
