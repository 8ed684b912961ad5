//! The full form: the image as one zstd stream, which any zstd reads.
//!
//! The box keeps what it has fetched of the stream in a file; after an interruption it fetches the rest and decodes from the
//! file's beginning. The window is bounded, so that decoding needs little memory.

use std::io::{Read, Write};

use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{CParameter, DParameter};

use crate::chunk::is_zero;
use crate::digest::Sha256Sum;
use crate::io::Target;
use crate::{Error, IMAGE_LIMIT};

/// The decoder's window, 8 MiB, as a power of two.
pub const WINDOW_LOG: u32 = 23;
const LEVEL: i32 = 19;
/// Written at once, and skipped when it is a hole that the target has already.
const PIECE: usize = 256 * 1024;

/// Makes the stream: the publisher's part.
///
/// # Errors
/// When the compressor fails.
pub fn make(image: &[u8]) -> Result<Vec<u8>, Error> {
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    encoder.set_pledged_src_size(Some(image.len() as u64))?;
    encoder.include_checksum(false)?;
    encoder.write_all(image)?;
    Ok(encoder.finish()?)
}

/// Decodes the stream into `target` and says what came out; that is compared with the manifest by the caller.
///
/// # Errors
/// When the stream is none or not of `length` bytes, and those of reading and writing.
pub fn assemble(stream: impl Read, length: u64, mut target: impl Target) -> Result<Sha256Sum, Error> {
    if length > IMAGE_LIMIT {
        return Err(Error::Malformed("an image too long"));
    }
    let mut decoder = zstd::Decoder::new(stream)?.single_frame();
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
    let (mut offset, mut hasher) = (0, Sha256::new());
    let mut piece = vec![0; PIECE];
    loop {
        let count = fill(&mut decoder, &mut piece)?;
        if count == 0 {
            break;
        }
        let piece = &piece[..count];
        if offset + count as u64 > length {
            return Err(Error::Malformed("a stream longer than the image"));
        }
        put(&mut target, offset, piece)?;
        hasher.update(piece);
        offset += count as u64;
    }
    if offset == length { Ok(hasher.finalize().into()) } else { Err(Error::Malformed("a stream too short")) }
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    let mut count = 0;
    while count < buffer.len() {
        match source.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Io(error)),
        }
    }
    Ok(count)
}

/// Writes a piece unless the target has it already, zeros most of all: flash wears, and holes stay holes.
pub(crate) fn put(target: &mut impl Target, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    if is_zero(bytes) {
        let mut there = vec![1; bytes.len()];
        if target.read_at(offset, &mut there).is_ok() && is_zero(&there) {
            return Ok(());
        }
    }
    Ok(target.write_at(offset, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    fn image() -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut image: Vec<u8> = (0..700_000).map(|_| random.u8(..8)).collect();
        image.extend(vec![0; 600_000]);
        image
    }

    #[test]
    fn the_image_comes_back_also_over_something_else() {
        let image = image();
        let stream = make(&image).unwrap();
        for mut target in [Vec::new(), vec![7; image.len()]] {
            let sum = assemble(stream.as_slice(), image.len() as u64, &mut target).unwrap();
            assert_eq!((sum, target), (sha256(&image), image.clone()));
        }
    }

    #[test]
    fn a_stream_of_another_length_or_cut_short_is_refused() {
        let image = image();
        let stream = make(&image).unwrap();
        let length = image.len() as u64;
        for (stream, length) in
            [(&stream[..], length - 1), (&stream[..], length + 1), (&stream[..1000], length), (b"x", length)]
        {
            assert!(assemble(stream, length, Vec::new()).is_err());
        }
    }
}
