//! fs-verity (Documentation/filesystems/fsverity.rst): files that the kernel checks at every read, and never lets change.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u16 = 1;
/// Bytes of a SHA-256.
pub const DIGEST: usize = 32;
const BLOCK: u32 = 4096;

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// `struct fsverity_digest`, with room for the one algorithm we use.
#[repr(C)]
struct Digest {
    algorithm: u16,
    size: u16,
    digest: [u8; DIGEST],
}

// The functions these macros make are public to this file only; their names are the kernel's.
#[allow(missing_docs, unreachable_pub)]
mod ioctl {
    nix::ioctl_write_ptr!(fs_ioc_enable_verity, b'f', 133, super::EnableArg);
    // Its number holds the size of the structure without the digest itself.
    pub(super) const MEASURE: libc::c_ulong = nix::request_code_readwrite!(b'f', 134, 4) as libc::c_ulong;
    nix::ioctl_readwrite_bad!(fs_ioc_measure_verity, MEASURE, super::Digest);
}

/// Seals a file, open for reading only and by nobody for writing: SHA-256, blocks of 4 KiB, no salt. It is read from end
/// to end. A power cut meanwhile leaves it as it was.
///
/// # Errors
/// The kernel's: also when the file system cannot, or is mounted read-only.
pub fn seal(file: &File) -> io::Result<()> {
    let argument = EnableArg {
        version: 1,
        hash_algorithm: SHA256.into(),
        block_size: BLOCK,
        salt_size: 0,
        salt_ptr: 0,
        sig_size: 0,
        reserved1: 0,
        sig_ptr: 0,
        reserved2: [0; 11],
    };
    // SAFETY: the kernel reads the argument, which lives until it returns, and has no pointers to follow.
    unsafe { ioctl::fs_ioc_enable_verity(file.as_raw_fd(), &raw const argument)? };
    Ok(())
}

/// By what the kernel knows a sealed file; nothing when it is not sealed.
///
/// # Errors
/// The kernel's: also when the file system knows no seals, or the file is sealed by another algorithm.
pub fn measure(file: &File) -> io::Result<Option<[u8; DIGEST]>> {
    let mut digest = Digest { algorithm: 0, size: DIGEST as u16, digest: [0; DIGEST] };
    // SAFETY: the kernel writes at most `size` bytes of digest into the structure, which lives until it returns.
    match unsafe { ioctl::fs_ioc_measure_verity(file.as_raw_fd(), &raw mut digest) } {
        Err(Errno::ENODATA) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(_) if digest.algorithm == SHA256 && usize::from(digest.size) == DIGEST => Ok(Some(digest.digest)),
        Ok(_) => Err(io::Error::other("sealed by another algorithm than SHA-256")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernel_s_sizes_and_numbers() {
        assert_eq!((size_of::<EnableArg>(), size_of::<Digest>()), (128, 36));
        // <linux/fsverity.h>: _IOWR('f', 134, struct fsverity_digest), whose size does not count the digest.
        assert_eq!(ioctl::MEASURE, 0xC004_6686);
    }

    #[test]
    fn a_file_that_is_not_sealed_has_no_measure() {
        let file = tempfile::tempfile().unwrap();
        // A file system without fs-verity says so; one with it says that there is no seal.
        assert!(matches!(measure(&file), Ok(None) | Err(_)));
    }
}
