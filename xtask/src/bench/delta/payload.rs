//! What a kernel image has in it: what another layout could win, would the kernel lie decompressed at rest.

use anyhow::{Context, Result, ensure};

/// Of a boot sector that is a kernel's (Linux, Documentation/arch/x86/boot.rst).
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;
/// Behind the compressed stream stands how long it will be.
const TRAILER: usize = 4;

/// The decompressed kernel in a bzImage whose payload is zstd, as Debian's is.
pub(super) fn decompressed(image: &[u8]) -> Result<Vec<u8>> {
    let magic = image.get(MAGIC.0..MAGIC.0 + MAGIC.1.len());
    ensure!(magic == Some(MAGIC.1), "the kernel is no bzImage");
    // Zero stands for four, as it did when there was no such field.
    let setup = match usize::from(image[SETUP_SECTORS]) {
        0 => 4,
        sectors => sectors,
    };
    let start = (setup + 1) * SECTOR + number(image, PAYLOAD_OFFSET)?;
    let end = (start + number(image, PAYLOAD_LENGTH)?).saturating_sub(TRAILER);
    let payload = image.get(start..end).context("the kernel's payload lies outside of it")?;
    zstd::decode_all(payload).context("the kernel's payload is not zstd")
}

fn number(image: &[u8], at: usize) -> Result<usize> {
    let bytes = image.get(at..at + 4).context("the kernel's header is cut off")?;
    Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_where_the_header_says() {
        let kernel = b"a kernel".repeat(1000);
        let packed = zstd::encode_all(kernel.as_slice(), 3).unwrap();
        let mut image = vec![0; 3 * SECTOR];
        image[MAGIC.0..][..4].copy_from_slice(MAGIC.1);
        image[SETUP_SECTORS] = 1;
        image[PAYLOAD_OFFSET..][..4].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        let length = (packed.len() + TRAILER) as u32;
        image[PAYLOAD_LENGTH..][..4].copy_from_slice(&length.to_le_bytes());
        image.extend(packed);
        image.extend((kernel.len() as u32).to_le_bytes());
        assert_eq!(decompressed(&image).unwrap(), kernel);
        assert!(decompressed(&image[..image.len() - 8]).is_err());
        assert!(decompressed(&image[..0x24a]).is_err());
        assert!(decompressed(b"").is_err());
    }
}
