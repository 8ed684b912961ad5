//! Single zstd frames in memory, of known length, with or without a prefix that both sides have.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, Strategy};

use crate::Error;

/// How a frame is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Chunks: small, many, with this level.
    Chunk(i32),
    /// Segments of a patch: made once, fetched by every box.
    Segment,
}

/// Frames say neither their length nor a checksum: the tables around them do.
pub(crate) fn compress(bytes: &[u8], prefix: &[u8], effort: Effort) -> Result<Vec<u8>, Error> {
    let mut context = CCtx::try_create().ok_or(Error::Malformed("no memory for a compressor"))?;
    let level = match effort {
        Effort::Chunk(level) => level,
        Effort::Segment => 22,
    };
    let window = (bytes.len() + prefix.len()).max(1 << 10).next_power_of_two().ilog2();
    let mut parameters = vec![
        CParameter::CompressionLevel(level),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ];
    if !prefix.is_empty() {
        parameters.extend([
            CParameter::WindowLog(window),
            CParameter::EnableLongDistanceMatching(true),
            CParameter::Strategy(Strategy::ZSTD_btultra2),
        ]);
    }
    for parameter in parameters {
        context.set_parameter(parameter).map_err(|_| Error::Malformed("a parameter of zstd"))?;
    }
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(|_| Error::Malformed("a prefix for zstd"))?;
    }
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(bytes.len()));
    context.compress2(&mut out, bytes).map_err(|_| Error::Malformed("zstd cannot compress"))?;
    Ok(out)
}

/// Decodes one frame of exactly `length` bytes; never allocates more than that and the decoder's own state.
pub(crate) fn decompress(frame: &[u8], prefix: &[u8], length: usize) -> Result<Vec<u8>, Error> {
    let out = decode(frame, prefix, length)?;
    if out.len() == length { Ok(out) } else { Err(Error::Malformed("a frame of another length")) }
}

/// Decodes one frame of at most `limit` bytes.
pub(crate) fn decompress_up_to(frame: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    decode(frame, &[], limit)
}

fn decode(frame: &[u8], prefix: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let mut context = DCtx::try_create().ok_or(Error::Malformed("no memory for a decompressor"))?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(|_| Error::Malformed("a prefix for zstd"))?;
    }
    let mut out = Vec::with_capacity(limit);
    context.decompress(&mut out, frame).map_err(|_| Error::Malformed("not a zstd frame"))?;
    Ok(out)
}
